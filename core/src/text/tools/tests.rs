//! Calls of every format, whole, cut into pieces, and wrong.

mod injection;
mod neighbours;

use super::{stream::merged, *};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

fn tools() -> Vec<Value> {
    let parameters = json!({ "type": "object", "properties": {
        "city": { "type": "string" }, "days": { "type": "integer" }, "metric": { "type": "boolean" },
        "tags": { "type": "array", "items": { "type": "string" } },
    }});
    vec![
        json!({ "type": "function", "function": { "name": "get_weather", "parameters": parameters } }),
        json!({ "name": "now", "parameters": { "type": "object", "properties": {} } }),
    ]
}

/// An answer with the two calls of [`expected`], as each format writes them, and a text before.
fn answer(format: ToolCallFormat) -> &'static str {
    match format {
        ToolCallFormat::Json | ToolCallFormat::Qwen3_5 => {
            "Let me see.<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"São </tool_call> Paulo\", \
             \"days\": \"3\", \"metric\": true, \"tags\": [\"a\", \"b\"]}}\n</tool_call><tool_call>{\"name\": \"now\", \
             \"arguments\": {}}</tool_call>"
        }
        ToolCallFormat::XmlFunction => {
            "Let me see.<tool_call>\n<function=get_weather>\n<parameter=city>\nSão </tool_call> Paulo\n</parameter>\n\
             <parameter=days>\n3\n</parameter>\n<parameter=metric>True</parameter>\n<parameter=tags>[\"a\", \"b\"]\
             </parameter>\n</function>\n</tool_call><function=now>\n</function>"
        }
        ToolCallFormat::Lfm2 => {
            "Let me see.<|tool_call_start|>[get_weather(city='São </tool_call> Paulo', days=3, metric=True, \
             tags=['a', \"b\"]), now()]<|tool_call_end|>"
        }
        ToolCallFormat::Glm4 => {
            "Let me see.<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>São </tool_call> Paulo</arg_value>\n\
             <arg_key>days</arg_key>\n<arg_value>3</arg_value><arg_key>metric</arg_key><arg_value>true</arg_value>\
             <arg_key>tags</arg_key><arg_value>[\"a\", \"b\"]</arg_value></tool_call><tool_call>now</tool_call>"
        }
        ToolCallFormat::Gemma => {
            "Let me see.<start_function_call>call:get_weather{city:<escape>São </tool_call> Paulo<escape>,days:3,\
             metric:true,tags:[<escape>a<escape>,<escape>b<escape>]}<end_function_call>\
             <start_function_call>call:now{}<end_function_call>"
        }
        ToolCallFormat::Gemma4 => {
            "Let me see.<|tool_call>call:get_weather{city:<|\"|>São </tool_call> Paulo<|\"|>,days:3,metric:true,\
             tags:[<|\"|>a<|\"|>,<|\"|>b<|\"|>]}<tool_call|><|tool_call>call:now{}<tool_call|>"
        }
        ToolCallFormat::Mistral => {
            "Let me see.[TOOL_CALLS]get_weather[ARGS]{\"city\": \"São </tool_call> Paulo\", \"days\": 3, \
             \"metric\": true, \"tags\": [\"a\", \"b\"]}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}"
        }
        ToolCallFormat::Llama3 => {
            "Let me see.<|python_tag|>{\"name\": \"get_weather\", \"parameters\": {\"city\": \
             \"São </tool_call> Paulo\", \"days\": \"3\", \"metric\": \"true\", \"tags\": [\"a\", \"b\"]}}; \
             {\"name\": \"now\", \"parameters\": {}}"
        }
        ToolCallFormat::KimiK2 => {
            "Let me see.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0\
             <|tool_call_argument_begin|>{\"city\": \"São </tool_call> Paulo\", \"days\": 3, \"metric\": true, \
             \"tags\": [\"a\", \"b\"]}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>\
             {}<|tool_call_end|><|tool_calls_section_end|>"
        }
        ToolCallFormat::MinimaxM2 => {
            "Let me see.<minimax:tool_call>\n<invoke name=\"get_weather\">\n<parameter name=\"city\">\
             São </tool_call> Paulo</parameter><parameter name=\"days\">3</parameter><parameter name=\"metric\">yes\
             </parameter><parameter name=\"tags\">[\"a\", \"b\"]</parameter></invoke><invoke name=\"now\"></invoke>\n\
             </minimax:tool_call>"
        }
        ToolCallFormat::Atem => {
            "Let me see.<atem:function_calls><atem:invoke name=\"get_weather\"><atem:parameter name=\"city\" \
             string=\"true\">São </tool_call> Paulo</atem:parameter><atem:parameter name=\"days\">3</atem:parameter>\
             <atem:parameter name=\"metric\">true</atem:parameter><atem:parameter name=\"tags\">[\"a\", \"b\"]\
             </atem:parameter></atem:invoke><atem:invoke name=\"now\"></atem:invoke></atem:function_calls>"
        }
        ToolCallFormat::GptOss => {
            "<|channel|>final<|message|>Let me see.<|end|><|start|>assistant<|channel|>commentary \
             to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"São </tool_call> Paulo\", \"days\": 3, \
             \"metric\": true, \"tags\": [\"a\", \"b\"]}<|call|><|start|>assistant to=functions.now<|channel|>\
             commentary<|message|>{}"
        }
    }
}

fn pieces(format: ToolCallFormat, answer: &str, cuts: &mut impl FnMut() -> usize, is_complete: bool) -> Vec<Piece> {
    pieces_of(tools(), format, answer, cuts, is_complete)
}

fn pieces_of(
    tools: Vec<Value>,
    format: ToolCallFormat,
    answer: &str,
    cuts: &mut impl FnMut() -> usize,
    is_complete: bool,
) -> Vec<Piece> {
    let mut harmony = Harmony::new(tools.clone());
    let mut stream = ToolCallStream::new(format, tools);
    let is_harmony = format == ToolCallFormat::GptOss;
    let chars: Vec<char> = answer.chars().collect();
    let mut rest = &chars[..];
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(cuts().clamp(1, rest.len()));
        let piece = String::from_iter(piece);
        rest = after;
        out.extend(if is_harmony { harmony.push(&piece) } else { stream.push(&piece) });
    }
    out.extend(if is_harmony { harmony.finish(is_complete) } else { stream.finish(is_complete) });
    merged(out)
}

/// What stands between the tags of a call, with those around it.
fn framed(format: ToolCallFormat, body: &str) -> String {
    let frame = format.frames()[0];
    [frame.start, body, frame.end.unwrap_or_default()].concat()
}

fn whole(format: ToolCallFormat, answer: &str) -> Vec<Piece> {
    pieces(format, answer, &mut || usize::MAX, true)
}

/// Names and arguments; ids are the format's own business.
fn calls(pieces: &[Piece]) -> Vec<(String, Value)> {
    let call = |piece: &Piece| match piece {
        Piece::Call(call) => Some((call.name.clone(), call.arguments.clone().into())),
        _ => None,
    };
    pieces.iter().filter_map(call).collect()
}

fn expected() -> Vec<(String, Value)> {
    let arguments = json!({ "city": "São </tool_call> Paulo", "days": 3, "metric": true, "tags": ["a", "b"] });
    vec![("get_weather".to_owned(), arguments), ("now".to_owned(), json!({}))]
}

fn without_ids(pieces: Vec<Piece>) -> Vec<Piece> {
    let each = |piece| match piece {
        Piece::Call(call) => Piece::Call(ToolCall { id: String::new(), ..call }),
        other => other,
    };
    pieces.into_iter().map(each).collect()
}

#[test]
fn every_format_however_it_is_cut() {
    let mut rng = StdRng::seed_from_u64(5);
    for format in ToolCallFormat::ALL {
        let (answer, expected) = (answer(format), expected());
        let once = whole(format, answer);
        assert_eq!(once[0], Piece::Text("Let me see.".to_owned()), "{format}");
        assert_eq!((calls(&once), once.len()), (expected, 3), "{format}: {once:?}");
        let once = without_ids(once);
        for most in [1, 2, 5, 12, 30] {
            let cut = pieces(format, answer, &mut || rng.random_range(1..=most), true);
            assert_eq!(without_ids(cut), once, "{format} in pieces of {most} at most");
        }
    }
}

/// Wherever an answer is cut off, no part of a tag is shown as text, and nothing is called that was not said in full.
#[test]
fn answers_that_are_cut_off_leak_nothing() {
    for format in ToolCallFormat::ALL {
        let answer = answer(format).replace("São </tool_call> Paulo", "Oslo");
        let mut expected = expected();
        expected[0].1["city"] = json!("Oslo");
        let ends: Vec<usize> = answer.char_indices().map(|(at, _)| at).collect();
        let first_tag = answer.find("see.").unwrap() + "see.".len();
        for end in ends {
            let pieces = pieces(format, &answer[..end], &mut || 3, false);
            let text: String =
                pieces.iter().filter_map(|p| if let Piece::Text(t) = p { Some(t.as_str()) } else { None }).collect();
            if end <= first_tag && format != ToolCallFormat::GptOss {
                assert_eq!(text, answer[..end], "{format} up to {end}");
            }
            let shown = text.strip_prefix("Let me see.").unwrap_or("");
            // A tag that the answer's end leaves unfinished is text: nobody can know.
            let tags = format.tags();
            assert!(shown.is_empty() || tags.iter().any(|t| t.starts_with(shown)), "{format} up to {end}: {shown:?}");
            let found = calls(&pieces);
            assert_eq!(found, expected[..found.len()], "{format} up to {end}");
            for piece in &pieces {
                if let Piece::Rejected(rejected) = piece {
                    assert_eq!(
                        rejected.reason,
                        RejectionReason::IncompleteOutput,
                        "{format} up to {end}: {rejected:?}"
                    );
                }
            }
        }
    }
}

/// Bodies of calls, and what mlx-lm's own parsers make of them (`tests/goldens/tool_calls.py`).
#[test]
fn calls_are_those_of_mlx_lm() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/tool-calls.json");
    let goldens: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let tools: Vec<Value> = serde_json::from_value(goldens["tools"].clone()).unwrap();
    for case in goldens["cases"].as_array().unwrap() {
        let [parser, body] = ["parser", "body"].map(|key| case[key].as_str().unwrap());
        let format: ToolCallFormat = parser.parse().unwrap();
        let mut stream = ToolCallStream::new(format, tools.clone());
        let mut pieces = stream.push(&framed(format, body));
        pieces.extend(stream.finish(true));
        let call = |(name, arguments)| json!({ "name": name, "arguments": arguments });
        let found: Vec<Value> = calls(&pieces).into_iter().map(call).collect();
        let expected = case["calls"].as_array().cloned().unwrap_or_default();
        assert_eq!(found, expected, "{parser}: {body}: {pieces:?}");
        assert_eq!(pieces.len(), expected.len().max(1), "{parser}: {body}: {pieces:?}");
    }
}

#[test]
fn what_is_wrong_is_rejected_with_the_reason() {
    use RejectionReason::*;
    use ToolCallFormat::*;
    for (format, answer, reason, name) in [
        (Json, "<tool_call>{\"name\": \"now\", </tool_call>", MalformedSyntax, None),
        (Json, "<tool_call>not json</tool_call>", MalformedSyntax, None),
        (Json, "<tool_call></tool_call>", MalformedSyntax, None),
        (Json, "<tool_call>{\"name\": \"now\"", IncompleteOutput, None),
        (Json, "<tool_call>{\"arguments\": {}}</tool_call>", MissingToolName, None),
        (Json, "<tool_call>{\"name\": \"rm\", \"arguments\": {}}</tool_call>", UndeclaredTool, Some("rm")),
        (Json, "<tool_call>{\"name\": \"now\", \"arguments\": [1]}</tool_call>", InvalidArguments, Some("now")),
        (
            Json,
            "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"days\": \"many\"}}</tool_call>",
            InvalidArguments,
            Some("get_weather"),
        ),
        (XmlFunction, "<tool_call>get_weather</tool_call>", MalformedSyntax, None),
        (XmlFunction, "<tool_call><function=></function></tool_call>", MissingToolName, None),
        (XmlFunction, "<function=get_weather><parameter=city>Os", IncompleteOutput, Some("get_weather")),
        (Glm4, "<tool_call>get_weather<arg_key>city</tool_call>", MalformedSyntax, Some("get_weather")),
        (Lfm2, "<|tool_call_start|>[get_weather(city=]<|tool_call_end|>", MalformedSyntax, None),
        (Gemma, "<start_function_call>call:now{a:1<end_function_call>", MalformedSyntax, Some("now")),
        (Mistral, "[TOOL_CALLS]get_weather", MalformedSyntax, None),
        (Mistral, "[TOOL_CALLS]get_weather[ARGS]{\"city\"", MalformedSyntax, Some("get_weather")),
        (Llama3, "<|python_tag|>print(1)", MalformedSyntax, None),
        (
            KimiK2,
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.now:0<|tool_call_end|><|tool_calls_section_end|>",
            MalformedSyntax,
            None,
        ),
        (MinimaxM2, "<minimax:tool_call><invoke></invoke></minimax:tool_call>", MissingToolName, None),
        (GptOss, "<|channel|>commentary to=functions.now<|message|>{<|call|>", MalformedSyntax, Some("now")),
    ] {
        let pieces = whole(format, answer);
        let [Piece::Rejected(rejected)] = &pieces[..] else { panic!("{format}: {answer}: {pieces:?}") };
        assert_eq!((rejected.reason, rejected.name.as_deref()), (reason, name), "{answer}: {rejected:?}");
    }
}

#[test]
fn the_text_goes_on_after_a_call_and_after_a_rejected_one() {
    let answer = "a<tool_call>{\"name\": \"now\"}</tool_call>b<tool_call>{\"x\": \"</tool_call>c<tool_";
    let pieces = without_ids(whole(ToolCallFormat::Json, answer));
    let text = |t: &str| Piece::Text(t.to_owned());
    assert_eq!((&pieces[0], &pieces[2], &pieces[4]), (&text("a"), &text("b"), &text("c<tool_")), "{pieces:?}");
    assert!(matches!((&pieces[1], &pieces[3]), (Piece::Call(_), Piece::Rejected(_))), "{pieces:?}");
}

#[test]
fn a_bare_object_is_a_call_only_if_it_is_one() {
    let bare = " {\"name\": \"get_weather\", \"arguments\": {\"city\": \"{Oslo\"}}";
    for format in [ToolCallFormat::Json, ToolCallFormat::Llama3] {
        assert_eq!(calls(&whole(format, bare)).len(), 1, "{format}");
        for json in ["{\"name\": \"Ann\", \"age\": 3}", "{\"a\": 1", "{}", "{<tool_call>"] {
            assert_eq!(calls(&whole(format, json)).len(), 0, "{format}");
        }
        let json = "{\"name\": \"Ann\"} and so on";
        assert_eq!(whole(format, json), [Piece::Text(json.to_owned())], "{format}");
    }
    assert_eq!(calls(&whole(ToolCallFormat::Mistral, bare)).len(), 0);
    let long = format!("{{\"a\": \"{}\"", "x".repeat(40 << 10));
    let mut stream = ToolCallStream::new(ToolCallFormat::Json, tools());
    assert_eq!(stream.push(&long), [Piece::Text(long)], "nothing is held back for ever");
}

#[test]
fn ids_are_the_models_own_or_new() {
    let ids = |format: ToolCallFormat| -> Vec<String> {
        let id = |piece| if let Piece::Call(call) = piece { Some(call.id) } else { None };
        whole(format, answer(format)).into_iter().filter_map(id).collect()
    };
    assert_eq!(ids(ToolCallFormat::KimiK2), ["functions.get_weather:0", "functions.now:1"]);
    let mistral = ids(ToolCallFormat::Mistral);
    assert!(mistral[0].len() == 9 && mistral[1] == "abcdefghi", "{mistral:?}");
    let json = ids(ToolCallFormat::Json);
    assert!(json.iter().all(|id| id.len() == 37 && id.starts_with("call_")) && json[0] != json[1], "{json:?}");
}

#[test]
fn harmony_has_channels() {
    let answer = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>";
    let expected = [Piece::Reasoning("Hm.".to_owned()), Piece::Text("Yes.".to_owned())];
    assert_eq!(whole(ToolCallFormat::GptOss, answer), expected);
    let plain = "An answer without any header.";
    assert_eq!(whole(ToolCallFormat::GptOss, plain), [Piece::Text(plain.to_owned())]);
    assert_eq!(whole(ToolCallFormat::GptOss, "<|channel|>ana"), []);
}

#[test]
fn formats_are_inferred_from_templates_and_tokens() {
    use ToolCallFormat::*;
    let none = |_: &str| false;
    for (template, expected) in [
        ("<minimax:tool_call> and <tool_call>", Some(MinimaxM2)),
        ("<|tool_call>..<tool_call|>", Some(Gemma4)),
        ("<start_function_call>", Some(Gemma)),
        ("<tool_call>{{ x }}<arg_key>", Some(Glm4)),
        ("<|tool_list_start|>", Some(Lfm2)),
        ("'<tool_call>\\n<function=' + tool_call.name", Some(XmlFunction)),
        ("<|tool_calls_section_begin|>", Some(KimiK2)),
        ("[TOOL_CALLS]", Some(Mistral)),
        ("<atem:function_calls>", Some(Atem)),
        ("<|channel|>commentary to=", Some(GptOss)),
        ("<tool_call>{{ tool_call.name }}", Some(Json)),
        ("<tool_call> in passing", None),
        ("", None),
    ] {
        assert_eq!(ToolCallFormat::infer(template, none), expected, "{template}");
    }
    assert_eq!(ToolCallFormat::infer("", |t| t == "<|python_tag|>"), Some(Llama3));
    for format in ToolCallFormat::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    assert_eq!("glm47".parse(), Ok(Glm4));
    assert!("smoke".parse::<ToolCallFormat>().unwrap_err().contains("json, xml_function"));
}
