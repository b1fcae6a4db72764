//! Conversations over a model whose answers are known.

use super::{
    thread::container_of,
    toy::{EOS, Log, Next, configuration},
};
use crate::{
    ChatSession, GenerateParameters, Generation, StopReason, Tool,
    checkpoint::gguf::Value as Gguf,
    text::{Message, ReasoningFormat, Tokenizer, fixtures},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}\
    <tool_call>{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}</tool_call>{% endfor %}\
    {% endfor %}<assistant>";

fn tokenizer() -> Tokenizer {
    let mut metadata = fixtures::byte_level();
    metadata.0.insert("tokenizer.chat_template".to_owned(), Gguf::String(TEMPLATE.to_owned()));
    fixtures::tokenizer(&metadata)
}

/// Answers the last turn as a table says.
fn replies(table: &'static [(&str, &str)]) -> Next {
    let tokenizer = tokenizer();
    Arc::new(move |tokens, _, _| {
        let text = tokenizer.decode(tokens, true).unwrap();
        let (before, said) = text.rsplit_once("<assistant>").unwrap_or((&text, ""));
        let asked = before.rsplit_once('>').map_or(before, |(_, asked)| asked);
        let answer = table.iter().find(|(question, _)| *question == asked).map_or("What?", |(_, answer)| answer);
        let rest = answer.strip_prefix(said).unwrap_or_default();
        tokenizer.encode(rest, false).unwrap().first().copied().unwrap_or(EOS)
    })
}

async fn session(table: &'static [(&str, &str)]) -> (ChatSession, Arc<Mutex<Log>>) {
    session_of(64, table).await
}

async fn session_of(pages: usize, table: &'static [(&str, &str)]) -> (ChatSession, Arc<Mutex<Log>>) {
    let mut configuration = configuration();
    configuration.reasoning_format = Some(ReasoningFormat::new("<think>", "</think>"));
    let (container, log) = container_of(pages, replies(table), tokenizer(), configuration).await;
    let greedy = GenerateParameters { temperature: 0.0, ..Default::default() };
    (ChatSession::new(container).parameters(greedy), log)
}

/// All events but tokens, and the info apart.
async fn events(session: &mut ChatSession, prompt: &str) -> (Vec<Generation>, crate::GenerateCompletionInfo) {
    let mut stream = session.stream_response(prompt).await.unwrap();
    let mut events: Vec<Generation> = Vec::new();
    while let Some(event) = stream.next().await {
        match (event.unwrap(), events.last_mut()) {
            (Generation::Token(_), _) => {}
            (Generation::Info(info), _) => return (events, info),
            (Generation::Chunk(text), Some(Generation::Chunk(before))) => *before += &text,
            (Generation::Reasoning(text), Some(Generation::Reasoning(before))) => *before += &text,
            (event, _) => events.push(event),
        }
    }
    panic!("no info came")
}

#[tokio::test]
async fn no_turn_is_computed_twice() {
    let (session, log) = session(&[("How?", "Thus."), ("Why?", "Because."), ("And?", "No more.")]).await;
    let mut session = session.instructions("Be brief.");
    let mut before = 0;
    for (question, answer) in [("How?", "Thus."), ("Why?", "Because."), ("And?", "No more.")] {
        let cached = session.prompt_cache().len();
        let (found, info) = events(&mut session, question).await;
        assert_eq!(found, [Generation::Chunk(answer.to_owned())]);
        assert_eq!(info.cached_prompt_tokens, cached, "{question}");
        let rows: usize = log.lock().unwrap().steps.iter().map(|s| s.rows.len()).sum();
        let computed = info.prompt_tokens - info.cached_prompt_tokens;
        // The answer's tokens, and a row that ran ahead of its end.
        let answered = rows - before - computed;
        assert!(
            (info.generation_tokens - 1..=info.generation_tokens + 1).contains(&answered),
            "{question}: {answered}"
        );
        if cached > 0 {
            let marks = "<user><assistant>".len() + question.len() + 1;
            assert!(computed <= marks, "{computed} tokens for {question}");
        }
        before = rows;
    }
    assert_eq!(session.turns().len(), 6);
    assert_eq!(session.turns()[1], Value::from(Message::assistant("Thus.")));
    session.clear();
    let (_, info) = events(&mut session, "How?").await;
    assert_eq!((session.turns().len(), info.cached_prompt_tokens), (2, 0));
}

#[tokio::test]
async fn a_cancelled_turn_leaves_no_trace() {
    let long = "An answer that is long enough to be cancelled in the middle of it, whatever the machine is busy with.";
    let table: &[(&str, &str)] = Box::leak(Box::new([("Long?", long), ("How?", "Thus."), ("Why?", "Because.")]));
    let (mut session, _) = session(table).await;
    session.respond("How?").await.unwrap();
    let turns = session.turns().to_vec();

    let mut stream = session.stream_response("Long?").await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    assert_eq!(session.turns(), turns);

    let mut stream = session.stream_response("Long?").await.unwrap();
    stream.next().await.unwrap().unwrap();
    stream.cancel();
    let mut last = None;
    while let Some(event) = stream.next().await {
        last = Some(event.unwrap());
    }
    drop(stream);
    // It may have been done before it heard of it.
    match last {
        Some(Generation::Info(info)) if info.stop_reason == StopReason::Cancelled => assert_eq!(session.turns(), turns),
        Some(Generation::Info(_)) => session = session.history(turns.clone()),
        other => panic!("{other:?}"),
    }
    let (found, info) = events(&mut session, "Why?").await;
    assert_eq!(found, [Generation::Chunk("Because.".to_owned())]);
    assert!(info.cached_prompt_tokens > 0, "what was there before the cancelled turn is kept");
    assert_eq!(session.turns().len(), 4);
}

#[tokio::test]
async fn tools_are_called_until_the_answer_is_there() {
    #[derive(Deserialize)]
    struct Place {
        city: String,
        days: u32,
    }
    const TABLE: &[(&str, &str)] = &[
        (
            "Weather?",
            "<think>A tool.</think>\nWait.<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \
             \"days\": \"2\"}}</tool_call>",
        ),
        ("Oslo: rain for 2 days", "It rains."),
        ("Time?", "<tool_call>{\"name\": \"clock\", \"arguments\": {}}</tool_call>"),
        ("noon", "It is noon."),
        ("Break?", "<tool_call>{\"name\": \"nobody\"}</tool_call>"),
    ];
    let parameters = json!({ "properties": { "city": { "type": "string" }, "days": { "type": "integer" } } });
    let weather = Tool::new("weather", "How it is", parameters, async |place: Place| {
        Ok::<_, String>(format!("{}: rain for {} days", place.city, place.days))
    });
    let clock = Tool::declared(json!({ "name": "clock", "parameters": {} }));
    let (session, _) = session(TABLE).await;
    let mut session = session.tool(weather).tool(clock);

    let (found, info) = events(&mut session, "Weather?").await;
    let [
        Generation::Reasoning(thought),
        Generation::Chunk(wait),
        Generation::ToolCall(call),
        Generation::Chunk(answer),
    ] = &found[..]
    else {
        panic!("{found:?}")
    };
    assert_eq!((thought.as_str(), wait.as_str(), answer.as_str()), ("A tool.", "Wait.", "It rains."));
    assert_eq!((call.name.as_str(), &call.arguments["days"]), ("weather", &json!(2)));
    assert!(info.cached_prompt_tokens > 0);
    let turns = session.turns();
    assert_eq!(turns.len(), 4);
    assert_eq!(
        (&turns[1]["reasoning_content"], &turns[1]["tool_calls"][0]["function"]["name"]),
        (&json!("A tool."), &json!("weather"))
    );
    assert_eq!((&turns[2]["role"], &turns[2]["tool_call_id"]), (&json!("tool"), &json!(call.id)));

    // A tool without a handler ends the turn; the program gives what came out.
    let (found, _) = events(&mut session, "Time?").await;
    assert!(matches!(&found[..], [Generation::ToolCall(call)] if call.name == "clock"), "{found:?}");
    let mut stream = session.stream_turns([Message::tool("noon")]).await.unwrap();
    while let Some(event) = stream.next().await {
        event.unwrap();
    }
    assert_eq!(stream.into_text(), "It is noon.");

    let (found, info) = events(&mut session, "Break?").await;
    assert!(matches!(&found[..], [Generation::RejectedToolCall(_)]), "{found:?}");
    assert_eq!(info.rejected_tool_calls, 1);
}

/// A model that calls a tool whatever it is told.
#[tokio::test]
async fn a_turn_that_only_calls_tools_is_given_up() {
    const TABLE: &[(&str, &str)] = &[
        ("How?", "Thus."),
        ("Loop?", "<tool_call>{\"name\": \"again\", \"arguments\": {}}</tool_call>"),
        ("again", "<tool_call>{\"name\": \"again\", \"arguments\": {}}</tool_call>"),
        ("Why?", "Because."),
    ];
    let again = |calls: Arc<Mutex<usize>>| {
        Tool::new("again", "Does it again", json!({ "properties": {} }), move |_: Value| {
            *calls.lock().unwrap() += 1;
            async { Ok::<_, String>("again") }
        })
    };
    let calls = Arc::new(Mutex::new(0));
    let (session, _) = session_of(512, TABLE).await;
    let mut session = session.tool(again(calls.clone()));
    session.respond("How?").await.unwrap();
    let turns = session.turns().to_vec();

    let e = session.respond("Loop?").await.unwrap_err().to_string();
    assert!(e.contains("16 times") && e.contains("again"), "{e}");
    assert_eq!(*calls.lock().unwrap(), 16);
    // No call is left without its result, which templates would refuse.
    assert_eq!(session.turns(), turns);
    let mut stream = session.stream_response("Loop?").await.unwrap();
    let mut errors = 0;
    while let Some(event) = stream.next().await {
        errors += usize::from(event.is_err());
    }
    assert_eq!(errors, 1);
    drop(stream);
    assert_eq!(session.respond("Why?").await.unwrap(), "Because.");
    assert_eq!(session.turns().len(), 4);
}

#[tokio::test]
async fn conversations_are_saved_with_what_was_computed() {
    const TABLE: &[(&str, &str)] = &[("How?", "Thus."), ("Why?", "Because.")];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chat.safetensors");
    let (session_, _) = session(TABLE).await;
    let mut first = session_.instructions("Be brief.");
    first.respond("How?").await.unwrap();
    first.save(&file).await.unwrap();
    let tokens = first.prompt_cache().tokens();
    assert_eq!(first.respond("Why?").await.unwrap(), "Because.");

    // Another process would do as well.
    let (mut second, log) = session(TABLE).await;
    second.load(&file).await.unwrap();
    assert_eq!((second.prompt_cache().tokens(), second.turns().len()), (tokens.clone(), 2));
    let (found, info) = events(&mut second, "Why?").await;
    assert_eq!(found, [Generation::Chunk("Because.".to_owned())]);
    assert_eq!(info.cached_prompt_tokens, tokens.len());
    assert!(log.lock().unwrap().steps.iter().all(|s| s.rows.iter().all(|r| r.position[0] as usize >= tokens.len())));
    assert_eq!(second.turns(), first.turns());

    std::fs::write(&file, b"nothing of the kind").unwrap();
    let e = second.load(&file).await.unwrap_err().to_string();
    assert!(e.starts_with(&file.display().to_string()), "{e}");
    assert_eq!(second.turns().len(), 4, "what cannot be loaded changes nothing");
    let (other, _) = session(TABLE).await;
    let e = other.container().save_prompt_cache(second.prompt_cache(), &file, &Default::default()).await.unwrap_err();
    assert!(e.to_string().contains("belongs to another model"), "{e}");
}
