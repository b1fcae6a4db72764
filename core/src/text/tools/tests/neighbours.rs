//! Deviations from the formats that models are known to write.

use super::*;

fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

fn tool(name: &str, properties: Value) -> Value {
    json!({ "type": "function", "function": { "name": name, "parameters": { "properties": properties } } })
}

/// The tools of [`super::tools`], and one whose parameters are all strings.
fn tools() -> Vec<Value> {
    let text = || json!({ "type": "string" });
    let mut tools = super::tools();
    tools.push(tool("edit", json!({ "path": text(), "old": text(), "new": text() })));
    tools
}

fn heard(format: ToolCallFormat, answer: &str) -> Vec<Piece> {
    let [once, ones, fours] =
        [usize::MAX, 1, 4].map(|most| without_ids(pieces_of(tools(), format, answer, &mut || most, true)));
    assert_eq!(once, ones, "{format}: {answer:?}");
    assert_eq!(once, fours, "{format}: {answer:?}");
    once
}

/// The arguments of the only piece, which must be a call.
fn arguments(format: ToolCallFormat, answer: &str) -> Value {
    match &heard(format, answer)[..] {
        [Piece::Call(call)] => call.arguments.clone().into(),
        other => panic!("{format}: {answer:?}: {other:?}"),
    }
}

/// The numbers of calls and of rejections, and the text.
fn summary(format: ToolCallFormat, answer: &str) -> (usize, usize, String) {
    let pieces = heard(format, answer);
    let rejected = pieces.iter().filter(|p| matches!(p, Piece::Rejected(_))).count();
    let text = pieces.iter().filter_map(|p| if let Piece::Text(text) = p { Some(text.as_str()) } else { None });
    (calls(&pieces).len(), rejected, text.collect())
}

fn edit_as(format: ToolCallFormat, old: &str) -> String {
    use ToolCallFormat::*;
    match format {
        XmlFunction | Qwen3_5 => {
            format!("<tool_call>\n<function=edit>\n<parameter=old>\n{old}\n</parameter>\n</function>\n</tool_call>")
        }
        Glm4 => format!("<tool_call>edit\n<arg_key>old</arg_key>\n<arg_value>{old}</arg_value>\n</tool_call>"),
        MinimaxM2 => format!(
            "<minimax:tool_call>\n<invoke name=\"edit\">\n<parameter name=\"old\">{old}</parameter>\n</invoke>\n\
             </minimax:tool_call>"
        ),
        Atem => format!(
            "<atem:function_calls><atem:invoke name=\"edit\"><atem:parameter name=\"old\">{old}</atem:parameter>\
             </atem:invoke></atem:function_calls>"
        ),
        Gemma => format!("<start_function_call>call:edit{{old:<escape>{old}<escape>}}<end_function_call>"),
        Gemma4 => format!("<|tool_call>call:edit{{old:<|\"|>{old}<|\"|>}}<tool_call|>"),
        other => panic!("{other}"),
    }
}

#[test]
fn blanks_of_strings_are_kept() {
    use ToolCallFormat::*;
    for format in [XmlFunction, Qwen3_5, Glm4, MinimaxM2, Atem, Gemma, Gemma4] {
        for old in ["", " ", "    x    ", "\t\tx", "x\n", "\n  x", "\n\n", "  \n  ", "\u{a0}x\u{3000}"] {
            assert_eq!(arguments(format, &edit_as(format, old)), json!({ "old": old }), "{format}: {old:?}");
        }
    }
    // White space is not part of values of other types.
    let answer = "<tool_call>get_weather\n<arg_key> days </arg_key>\n<arg_value> 3\n</arg_value></tool_call>";
    assert_eq!(arguments(Glm4, answer), json!({ "days": 3 }));
}

#[test]
fn the_end_of_a_value_may_be_forgotten() {
    use ToolCallFormat::*;
    for format in [XmlFunction, Qwen3_5] {
        let expected = json!({ "path": "a.py", "old": "x = 1", "new": "x = 2" });
        let values = ["path>\na.py\n", "old>\nx = 1\n", "new>\nx = 2\n"];
        for forgotten in 0..8 {
            let end = |n: usize| if forgotten >> n & 1 == 1 { "" } else { "</parameter>\n" };
            let value = |(n, value): (usize, &&str)| format!("<parameter={value}{}", end(n));
            let body: String = values.iter().enumerate().map(value).collect();
            for (start, close) in [
                ("<tool_call>\n", "</function>\n</tool_call>"),
                ("<tool_call>\n", "</function>"),
                ("<tool_call>\n", "</tool_call>"),
                ("", "</function>"),
                ("", "</function>\n</tool_call>"),
            ] {
                let answer = format!("{start}<function=edit>\n{body}{close}");
                assert_eq!(arguments(format, &answer), expected, "{answer}");
                let cut = pieces_of(tools(), format, &answer, &mut || 3, false);
                assert!(matches!(&cut[..], [Piece::Rejected(r)] if r.reason == RejectionReason::IncompleteOutput));
            }
            let compact = format!("<tool_call><function=edit>{}</function></tool_call>", body.replace('\n', ""));
            assert_eq!(arguments(format, &compact), expected, "{compact}");
        }
        // A tag within a line, or one that does not fit there, does not end a value.
        for old in ["see <parameter=new> there", "\n<parameter=days>\n", "\n</function>\nmore", "a </tool_call>\nb"] {
            assert_eq!(arguments(format, &edit_as(format, old)), json!({ "old": old }));
        }
        let open = "<tool_call>\n<function=edit>\n<parameter=old>\nx";
        assert_eq!(summary(format, open), (0, 1, String::new()));
    }
}

#[test]
fn doubled_braces_are_read() {
    use ToolCallFormat::*;
    let inner = "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"{{Oslo}}\"}}";
    for format in [Json, Qwen3_5, Glm4] {
        for end in ["", "}", "}}", "\n}\n}"] {
            for close in ["", "\n</tool_call>"] {
                let answer = format!("<tool_call>\n{{{inner}{end}{close}");
                assert_eq!(arguments(format, &answer), json!({ "city": "{{Oslo}}" }), "{answer}");
            }
        }
        assert_eq!(summary(format, &format!("<tool_call>{inner}}}</tool_call>")), (0, 1, String::new()));
        assert_eq!(summary(format, &format!("<tool_call>{{{inner}}}}}}}</tool_call>")), (0, 1, String::new()));
    }
}

#[test]
fn wrappers_of_arguments_are_taken_off_in_every_format() {
    use ToolCallFormat::*;
    let inner = "{\"city\": \"Oslo\"}";
    for wrapper in ["properties", "parameters", "arguments", "args", "kwargs"] {
        for (format, answer) in [
            (Lfm2, format!("<|tool_call_start|>[get_weather({wrapper}={inner})]<|tool_call_end|>")),
            (
                Llama3,
                format!("<|python_tag|>{{\"name\": \"get_weather\", \"parameters\": {{\"{wrapper}\": {inner}}}}}"),
            ),
            (Mistral, format!("[TOOL_CALLS]get_weather[ARGS]{{\"{wrapper}\": {inner}}}")),
            (Gemma4, format!("<|tool_call>call:get_weather{{{wrapper}:{{city:<|\"|>Oslo<|\"|>}}}}<tool_call|>")),
            (
                XmlFunction,
                format!(
                    "<tool_call><function=get_weather><parameter={wrapper}>{inner}</parameter></function></tool_call>"
                ),
            ),
        ] {
            assert_eq!(arguments(format, &answer), json!({ "city": "Oslo" }), "{answer}");
        }
    }
}

#[test]
fn string_parameters_keep_their_literals_in_every_format() {
    use ToolCallFormat::*;
    for word in ["3.10", "1e5", "true", "12345678901234567890123", "0", "-1.50"] {
        let expected = json!({ "city": word });
        for (format, answer) in [
            (
                Json,
                format!("<tool_call>{{\"name\": \"get_weather\", \"arguments\": {{\"city\": {word}}}}}</tool_call>"),
            ),
            (Lfm2, format!("<|tool_call_start|>[get_weather(city={word})]<|tool_call_end|>")),
            (Gemma, format!("<start_function_call>call:get_weather{{city:{word}}}<end_function_call>")),
            (Gemma4, format!("<|tool_call>call:get_weather{{city: {word} }}<tool_call|>")),
            (Mistral, format!("[TOOL_CALLS]get_weather[ARGS]{{\"city\": {word}}}")),
            (Llama3, format!("{{\"name\": \"get_weather\", \"parameters\": {{\"city\": {word}}}}}")),
            (Glm4, format!("<tool_call>get_weather<arg_key>city</arg_key><arg_value>{word}</arg_value></tool_call>")),
            (GptOss, format!("<|channel|>commentary to=functions.get_weather<|message|>{{\"city\": {word}}}")),
        ] {
            assert_eq!(arguments(format, &answer), expected, "{answer}");
        }
    }
    let answer = "<|tool_call_start|>[get_weather(city=01001, days=7)]<|tool_call_end|>";
    assert_eq!(arguments(Lfm2, answer), json!({ "city": "01001", "days": 7 }));
    let answer = "<start_function_call>call:get_weather{city:01001,days:7}<end_function_call>";
    assert_eq!(arguments(Gemma, answer), json!({ "city": "01001", "days": 7 }));
}

#[test]
fn the_gemmas_strings_may_stand_in_plain_quotes() {
    use ToolCallFormat::*;
    for (format, start, end) in
        [(Gemma, "<start_function_call>", "<end_function_call>"), (Gemma4, "<|tool_call>", "<tool_call|>")]
    {
        for (body, old) in [
            ("old:\"fn f() { 1 }\"", "fn f() { 1 }"),
            ("old:'a, b: [c]'", "a, b: [c]"),
            ("\"old\":\"say \\\"hi\\\"\\n\"", "say \"hi\"\n"),
            ("old:\"}\"", "}"),
            ("old:\" a \" ", " a "),
            ("old:\"<tool_call|><end_function_call>\"", "<tool_call|><end_function_call>"),
        ] {
            let answer = format!("{start}call:edit{{{body}}}{end}");
            assert_eq!(arguments(format, &answer), json!({ "old": old }), "{answer}");
        }
        for body in
            ["old:\"say \"hi\" now\"", "old:fn f() { 1 }", "old:\"a\" b", "old:\"a\",b,new:1", "old:\"open", "old:1}{"]
        {
            assert_eq!(summary(format, &format!("{start}call:edit{{{body}}}{end}")), (0, 1, String::new()), "{body}");
        }
    }
}

#[test]
fn calls_without_a_frame_follow_each_other() {
    use ToolCallFormat::*;
    let call = |name: &str| format!("{{\"name\": \"{name}\", \"arguments\": {{}}}}");
    for format in [Llama3, Json] {
        for separator in [";", "; ", " ; ", ",", ", ", "\n", "\n\n", "", " "] {
            let answer = [call("now"), call("get_weather"), call("now")].join(separator);
            assert_eq!(summary(format, &answer), (3, 0, String::new()), "{answer}");
            assert_eq!(summary(format, &format!("{answer};")), (3, 0, String::new()), "{answer}");
            let then = format!("{answer}{separator} I called it.");
            assert_eq!(summary(format, &then), (3, 0, format!("{separator} I called it.")), "{then}");
            let json = format!("{answer}{separator}{{\"a\": 1}}");
            assert_eq!(summary(format, &json), (3, 0, format!("{separator}{{\"a\": 1}}")), "{json}");
        }
    }
    let answer = format!("<|python_tag|>{};<|python_tag|>{}", call("now"), call("now"));
    assert_eq!(summary(Llama3, &answer), (2, 0, String::new()));
    let answer = format!("<|python_tag|>{}; {}", call("now"), call("rm"));
    assert_eq!(summary(Llama3, &answer), (1, 1, String::new()));
}

#[test]
fn text_behind_a_call_is_kept() {
    use ToolCallFormat::*;
    let then = "\n\nI {called} it, [twice].";
    for (format, answer) in [
        (Llama3, "<|python_tag|>{\"name\": \"now\", \"parameters\": {}}"),
        (Llama3, "<|python_tag|>[{\"name\": \"now\", \"parameters\": {}}]"),
        (Llama3, "{\"name\": \"now\", \"parameters\": {}}"),
        (Mistral, "[TOOL_CALLS][{\"name\": \"now\", \"arguments\": {}}]"),
        (Mistral, "[TOOL_CALLS] [ {\"name\": \"now\", \"arguments\": {}, \"id\": \"abcdefghi\"} ]"),
        (Mistral, "[TOOL_CALLS]now[ARGS]{}"),
        (Mistral, "[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}"),
        (Mistral, "[TOOL_CALLS]now{}"),
        (Mistral, "[TOOL_CALLS]{\"name\": \"now\", \"arguments\": {}}"),
    ] {
        assert_eq!(summary(format, &format!("{answer}{then}")), (1, 0, then.to_owned()), "{answer}");
        assert_eq!(summary(format, answer), (1, 0, String::new()), "{answer}");
    }
    for answer in [
        "[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]now[ARGS]{}",
        "[TOOL_CALLS]now[ARGS]{}now[ARGS]{}",
        "[TOOL_CALLS]now{}\nnow{}",
        "[TOOL_CALLS][{\"name\": \"now\"}, {\"name\": \"now\"}]",
        "[TOOL_CALLS]now[ARGS]{} [TOOL_CALLS][{\"name\": \"now\"}]",
    ] {
        assert_eq!(summary(Mistral, &format!("{answer}{then}")), (2, 0, then.to_owned()), "{answer}");
    }
}

#[test]
fn kimis_calls_need_no_section() {
    let call =
        |n: usize| format!("<|tool_call_begin|>functions.now:{n}<|tool_call_argument_begin|>{{}}<|tool_call_end|>");
    let section = ["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"];
    for between in ["", "\n", " \n "] {
        let both = [call(0), call(1)].join(between);
        for answer in [
            both.clone(),
            format!("{both}{between}{}", section[1]),
            format!("{}{both}", section[0]),
            format!("{}{between}{both}{between}{}", section[0], section[1]),
        ] {
            assert_eq!(summary(ToolCallFormat::KimiK2, &answer), (2, 0, String::new()), "{answer}");
            let (before, after) = ("Let me see. ", " Done.");
            let found = heard(ToolCallFormat::KimiK2, &format!("{before}{answer}{after}"));
            let is_closed = !answer.starts_with(section[0]) || answer.ends_with(section[1]);
            if is_closed {
                assert_eq!((&found[0], &found[3], found.len()), (&text(before), &text(after), 4), "{answer}");
            }
        }
    }
    let none = "<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|><|tool_call_end|>";
    assert_eq!(summary(ToolCallFormat::KimiK2, none), (1, 0, String::new()));
}

#[test]
fn harmonys_recipient_may_stand_in_the_role() {
    use ToolCallFormat::GptOss;
    for name in ["get_weather", "edit"] {
        for header in [
            format!(" to=functions.{name}<|channel|>commentary <|constrain|>json<|message|>"),
            format!(" to=functions.{name}<|channel|>commentary json<|message|>"),
            format!(" to=functions.{name}<|channel|>commentary<|message|>"),
            format!(" to=functions.{name}<|channel|>analysis<|message|>"),
            format!("to={name}<|channel|>commentary<|message|>"),
            format!(" to=functions.{name} <|constrain|>json<|message|>"),
            format!(" to=functions.{name} json<|message|>"),
            format!("assistant to=functions.{name}<|channel|>commentary<|message|>"),
            format!("<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"),
            format!(
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant to=functions.{name}<|channel|>x<|message|>"
            ),
        ] {
            for end in ["", "<|call|>", "<|end|>", "<|ca"] {
                let found = heard(GptOss, &format!("{header}{{\"days\": \"3\"}}{end}"));
                let expected = if name == "edit" { json!("3") } else { json!(3) };
                assert_eq!(calls(&found), [(name.to_owned(), json!({ "days": expected }))], "{header}");
                assert_eq!(summary(GptOss, &format!("{header}{end}")).0, 1, "no arguments: {header}");
                assert_eq!(summary(GptOss, &format!("{header}{{}} and{end}")).1, 1, "more than arguments: {header}");
            }
            assert_eq!(summary(GptOss, &header[..header.len() - "<|message|>".len()]).2, "", "{header}");
        }
    }
    for plain in
        ["to be or not to be", "to", "to=x is an assignment <b>", "assistants help", "a < b", "<b>Hi</b>", "assistant"]
    {
        assert_eq!(heard(GptOss, plain), [text(plain)]);
    }
}

#[test]
fn without_tools_harmony_has_channels_and_no_calls() {
    let answer = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant to=functions.now<|channel|>commentary\
                  <|message|>{}<|end|><|start|>assistant<|channel|>final<|message|> Yes.";
    for cut in [1, 4, 1000] {
        let found = pieces_of(Vec::new(), ToolCallFormat::GptOss, answer, &mut || cut, true);
        assert_eq!(found, [Piece::Reasoning("Hm.".to_owned()), text("{} Yes.")]);
    }
}

#[test]
fn a_call_that_is_wrong_takes_no_other_with_it_unless_it_is_open() {
    use ToolCallFormat::*;
    let good = "<tool_call>{\"name\": \"now\"}</tool_call>";
    for bad in ["{\"name\": \"rm\"}", "{\"name\": }", "no json", ""] {
        let answer = format!("<tool_call>{bad}</tool_call>{good}");
        assert_eq!(summary(Json, &answer), (1, 1, String::new()), "{answer}");
    }
    // Text after an open bracket or string may be part of it.
    for bad in
        ["{\"name\": \"edit\", \"arguments\": {\"old\": \"", "{\"name\": \"edit\", \"arguments\": {\"old\": \"x\""]
    {
        let answer = format!("<tool_call>{bad}</tool_call>{good}");
        assert_eq!(summary(Json, &answer), (0, 1, String::new()), "{answer}");
    }
}
