//! Chat templates render as transformers does, byte for byte.
//!
//! `goldens/chat-templates/NAME.json` holds a template's source, conversations and what
//! `apply_chat_template` made of them. `CHAT_TEMPLATE_GOLDENS` names another folder to run.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use tamarack::text::ChatTemplate;

#[derive(Deserialize)]
struct Golden {
    source: String,
    now: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    case: String,
    messages: Vec<Value>,
    tools: Option<Vec<Value>>,
    documents: Option<Vec<Value>>,
    add_generation_prompt: bool,
    kwargs: Map<String, Value>,
    special_tokens: Map<String, Value>,
    output: Option<String>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
    /// Whether the template itself raised it; other messages are Python's own.
    raise_exception: bool,
}

#[test]
fn templates_render_as_transformers_does() {
    let mut failures = Vec::new();
    let mut count = 0;
    for path in golden_files() {
        let golden: Golden = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy();
        for case in &golden.cases {
            count += 1;
            if let Err(problem) = check(&golden, case) {
                failures.push(format!("{name}, {}: {problem}", case.case));
            }
        }
    }
    assert!(count > 0, "there are no goldens");
    assert!(failures.is_empty(), "{} of {count} fail:\n{}", failures.len(), failures.join("\n"));
}

/// `goldens/jinja.json`: filters, tests, methods, operators and statements, one by one.
#[test]
fn expressions_are_those_of_jinja2() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/jinja.json");
    let pairs: Vec<(String, String)> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(pairs.len() > 200, "there are {} expressions", pairs.len());
    let user = serde_json::json!({ "role": "user", "content": "hi" });
    let wrong = pairs.iter().filter_map(|(source, wanted)| {
        let rendered = ChatTemplate::new(source, &Map::new())
            .and_then(|template| template.render(std::slice::from_ref(&user), None, false, &Map::new()));
        match rendered {
            Ok(text) if text == *wanted => None,
            Ok(text) => Some(format!("{source}: {}", difference(&text, wanted))),
            Err(error) => Some(format!("{source}: {error}")),
        }
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), pairs.len(), wrong.join("\n"));
}

fn golden_files() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/chat-templates");
    let folder = std::env::var_os("CHAT_TEMPLATE_GOLDENS").map_or(own, PathBuf::from);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension() == Some("json".as_ref())).collect();
    files.sort();
    files
}

fn check(golden: &Golden, case: &Case) -> Result<(), String> {
    let template = ChatTemplate::new(&golden.source, &case.special_tokens).map_err(|e| e.to_string())?;
    let mut extra = case.kwargs.clone();
    extra.extend(case.documents.clone().map(|d| ("documents".to_owned(), d.into())));
    let rendered = template.at(golden.now.parse().unwrap()).render(
        &case.messages,
        case.tools.as_deref(),
        case.add_generation_prompt,
        &extra,
    );
    match (rendered, &case.output, &case.error) {
        (Ok(text), Some(wanted), _) if text == *wanted => Ok(()),
        (Ok(text), Some(wanted), _) => Err(difference(&text, wanted)),
        (Ok(text), None, _) => Err(format!("should be refused, rendered {text:?}")),
        (Err(error), Some(_), _) => Err(format!("should render: {error}")),
        (Err(error), None, Some(refusal)) if refusal.raise_exception => {
            let told = error.to_string().contains(&refusal.message);
            told.then_some(()).ok_or(format!("expected {:?} in {error}", refusal.message))
        }
        (Err(_), None, _) => Ok(()),
    }
}

fn difference(text: &str, wanted: &str) -> String {
    let same = text.chars().zip(wanted.chars()).take_while(|(a, b)| a == b).count();
    let from = |s: &str| s.chars().skip(same.saturating_sub(20)).take(80).collect::<String>();
    format!("at character {same}: {:?}, expected {:?}", from(text), from(wanted))
}
