//! Tokenizers of GGUF files, against llama.cpp where it has an opinion: see tests/goldens/gguf_tokenizers.py.

use super::*;
use crate::text::fixtures::{byte_level, metadata, numbers, sentencepiece, texts, tokenizer};

fn spelled(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let ids = tokenizer.encode(text, true).unwrap();
    ids.into_iter().map(|id| tokenizer.id_to_token(id).unwrap()).collect()
}

#[test]
fn byte_level_tokens_are_cut_and_merged() {
    let tokenizer = tokenizer(&byte_level());
    assert_eq!(spelled(&tokenizer, "the hé<s>"), ["t", "he", "Ġ", "h", "Ã©", "<s>"]);
    assert_eq!(spelled(&tokenizer, "he he"), ["he", "Ġhe"]);
    assert_eq!(spelled(&tokenizer, "€"), ["âĤ", "¬"]);
    assert_eq!((tokenizer.bos(), tokenizer.eos_ids()), (Some(0), &[1].into()));
    assert_eq!(tokenizer.special_tokens()["eos_token"], "<|end of turn|>");
}

#[test]
fn sentencepiece_merges_by_score_and_falls_back_to_bytes() {
    let tokenizer = tokenizer(&sentencepiece());
    assert_eq!(spelled(&tokenizer, "the her!"), ["<s>", "▁the", "▁", "he", "r", "!"]);
    assert_eq!(spelled(&tokenizer, "é€"), ["<s>", "▁", "é", "<0xE2>", "<0x82>", "<0xAC>"]);
    assert_eq!(spelled(&tokenizer, "t</s>t"), ["<s>", "▁t", "</s>", "▁t"]);
    assert_eq!(tokenizer.eos_ids(), &[2, 262].into());
    assert!(tokenizer.is_special(0) && !tokenizer.is_special(10));
}

#[test]
fn runs_of_spaces_that_users_define_match_first() {
    let mut metadata = sentencepiece();
    let ids = metadata.0["tokenizer.ggml.tokens"].clone();
    let Value::Array(mut tokens) = ids else { panic!("a list") };
    let count = tokens.len();
    tokens.push(Value::String("   ".into()));
    let mut kinds: Vec<u64> = vec![1; count];
    kinds.push(kind::USER_DEFINED);
    let scores = (0..=count).map(|id| Value::F64(-(id as f64))).collect();
    metadata.0.insert("tokenizer.ggml.tokens".into(), Value::Array(tokens));
    metadata.0.insert("tokenizer.ggml.token_type".into(), numbers(kinds));
    metadata.0.insert("tokenizer.ggml.scores".into(), Value::Array(scores));
    metadata.0.insert("tokenizer.ggml.add_space_prefix".into(), Value::Bool(false));
    let tokenizer = tokenizer(&metadata);
    let all = spelled(&tokenizer, "t   the");
    assert_eq!(all, ["<s>", "t", "   ", "t", "he"]);
}

#[test]
fn templates_come_with_the_file() {
    let mut metadata = sentencepiece();
    let mut put = |key: &str, source: &str| metadata.0.insert(key.into(), Value::String(source.into()));
    put("tokenizer.chat_template", "{{ bos_token }}{{ messages[0].content }}");
    put("tokenizer.chat_template.tool_use", "tools");
    let tokenizer = tokenizer(&metadata);
    let user = json!({ "role": "user", "content": "t" });
    let ids = tokenizer.apply_chat_template(&[user], None, true, &Map::new()).unwrap();
    assert_eq!(ids, tokenizer.encode("t", true).unwrap());
    assert_eq!(tokenizer.chat_template().unwrap().unwrap().source(true), Some("tools"));
}

#[test]
fn damaged_files_are_refused() {
    let with = |mut base: Metadata, key: &'static str, value: Value| {
        base.0.extend(metadata([(key, value)]).0);
        base
    };
    let cases = [
        (Metadata::default(), "tokenizer.ggml.tokens: missing"),
        (with(byte_level(), "model", Value::String("rwkv".into())), "found `rwkv`"),
        (with(byte_level(), "tokens", numbers([1])), "a list of texts"),
        (with(byte_level(), "token_type", numbers([1])), "expected one for each of 263 tokens, found 1"),
        (with(byte_level(), "merges", texts(["ab"])), "expected two tokens, found `ab`"),
        (with(byte_level(), "merges", texts(["a no"])), "tokenizer.ggml.merges: "),
        (with(byte_level(), "merges", texts(["<|end of turn|>"; 1])), "tokenizer.ggml.merges: "),
        (with(sentencepiece(), "scores", numbers([])), "tokenizer.ggml.scores: "),
    ];
    for (metadata, wanted) in cases {
        let error = Tokenizer::from_gguf(&metadata).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

fn golden() -> Json {
    serde_json::from_str(include_str!("../../../../tests/goldens/gguf_tokenizers.json")).unwrap()
}

fn list(json: &Json) -> Vec<&str> {
    json.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn ids(json: &Json) -> Vec<u32> {
    json.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// A vocabulary of the goldens, with more keys below `tokenizer.ggml.`.
fn vocabulary(model: &str, tokens: &Json, types: Option<&Json>) -> Metadata {
    let tokens = list(tokens);
    let types = types.map_or(vec![3, 3], |types| ids(types).into_iter().map(u64::from).collect());
    let types = types.iter().copied().chain(std::iter::repeat(1)).take(tokens.len());
    metadata([
        ("model", Value::String(model.into())),
        ("scores", Value::Array((0..tokens.len()).map(|id| Value::F64(-(id as f64))).collect())),
        ("token_type", numbers(types)),
        ("tokens", texts(tokens)),
    ])
}

#[test]
fn every_pre_tokenizer_gives_llama_cpps_tokens() {
    let golden = golden();
    let mut base = vocabulary("gpt2", &golden["tokens"], None);
    base.0.extend(metadata([("merges", texts(list(&golden["merges"]))), ("bos_token_id", Value::U64(0))]).0);
    let mut wrong = vec![];
    for group in golden["pre"].as_array().unwrap() {
        for name in list(&group["names"]) {
            base.0.insert("tokenizer.ggml.pre".into(), Value::String(name.into()));
            let tokenizer = tokenizer(&base);
            let begins = tokenizer.encode("a", true).unwrap().len() > tokenizer.encode("a", false).unwrap().len();
            assert_eq!(begins, list(&golden["bos"]).contains(&name), "{name}");
            for (text, wanted) in list(&golden["texts"]).into_iter().zip(group["ids"].as_array().unwrap()) {
                let (found, wanted) = (tokenizer.encode(text, false).unwrap(), ids(wanted));
                if found != wanted {
                    let spell = |ids: &[u32]| {
                        ids.iter().map(|id| tokenizer.id_to_token(*id).unwrap()).collect::<Vec<_>>().join("|")
                    };
                    wrong.push(format!("{name} {text:?}:\n  {}\n  {}", spell(&found), spell(&wanted)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Of the names that the table has, only SentencePiece's spelling is not among the goldens: a vocabulary of bytes has none.
#[test]
fn every_name_of_the_table_has_a_golden() {
    let golden = golden();
    let mut known: Vec<&str> =
        golden["pre"].as_array().unwrap().iter().flat_map(|group| list(&group["names"])).collect();
    known.extend(["gemma4", "granite-embed-multi-311m", "sarvam-moe"]);
    known.sort_unstable();
    let mut names: Vec<&str> = pretokenizers::names().collect();
    names.sort_unstable();
    assert_eq!(names, known);
}

#[test]
fn names_of_pre_tokenizers_that_are_not_known_are_refused() {
    let mut metadata = byte_level();
    metadata.0.insert("tokenizer.ggml.pre".into(), Value::String("no-such-pre".into()));
    let error = Tokenizer::from_gguf(&metadata).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.ggml.pre: `no-such-pre` is not known here"), "{error}");
    assert!(error.contains("override_tokenizer") && error.contains("llama-bpe"), "{error}");
    // Another kind may be asked for, and without a name there is a rule.
    assert!(Tokenizer::from_gguf_as(&metadata, Some("gpt-2")).is_ok());
    metadata.0.remove("tokenizer.ggml.pre");
    let by_default = tokenizer(&metadata);
    metadata.0.insert("tokenizer.ggml.pre".into(), Value::String("default".into()));
    assert_eq!(
        by_default.encode("he's $5, 12", false).unwrap(),
        tokenizer(&metadata).encode("he's $5, 12", false).unwrap()
    );
}

#[test]
fn byte_level_files_may_spell_spaces_as_sentencepiece_does() {
    for (pre, model, bos) in [
        ("gemma4", "gpt2", true),
        ("granite-embed-multi-311m", "gpt2", true),
        ("sarvam-moe", "gpt2", false),
        ("", "gemma4", true),
    ] {
        let mut metadata = sentencepiece();
        metadata.0.extend([
            ("tokenizer.ggml.pre".to_owned(), Value::String(pre.into())),
            ("tokenizer.ggml.model".to_owned(), Value::String(model.into())),
            ("tokenizer.ggml.merges".to_owned(), texts(["h e", "▁ t", "▁t he"])),
        ]);
        let spelled = spelled(&tokenizer(&metadata), "the the\né");
        let bos = if bos { &["<s>"][..] } else { &[] };
        assert_eq!(spelled, [bos, &["t", "he", "▁the", "<0x0A>", "é"]].concat(), "{pre} {model}");
    }
}

/// llama.cpp makes `<|end|>` text where it does not end a generation; here it stays what it is for gpt-oss, a control token.
#[test]
fn tokens_that_end_a_generation_are_llama_cpps() {
    for case in golden()["ends"].as_array().unwrap() {
        let mut metadata = vocabulary("llama", &case["tokens"], Some(&case["types"]));
        for (key, id) in case["keys"].as_object().unwrap() {
            metadata.0.insert(format!("tokenizer.ggml.{key}"), Value::U64(id.as_u64().unwrap()));
        }
        let tokenizer = tokenizer(&metadata);
        assert_eq!(tokenizer.eos_ids(), &ids(&case["ends"]).into_iter().collect(), "{case}");
        let tokens = list(&case["tokens"]);
        let control = |id: &u32| tokens[*id as usize] == "<|end|>" || tokenizer.is_special(*id);
        // The unknown token is special here.
        let special: Vec<u32> = (1..tokens.len() as u32).filter(control).collect();
        let wanted = |id: &u32| tokens[*id as usize] == "<|end|>" || ids(&case["control"]).contains(id);
        assert_eq!(special, (1..tokens.len() as u32).filter(wanted).collect::<Vec<_>>(), "{case}");
    }
}

#[test]
fn special_tokens_of_phi3_take_the_space_behind_them() {
    let golden = &golden()["phi3"];
    for case in golden["names"].as_array().unwrap() {
        let mut metadata = vocabulary("llama", &golden["tokens"], Some(&golden["types"]));
        let name = case["name"].as_str().unwrap();
        metadata.0.insert("general.name".into(), Value::String(name.into()));
        metadata.0.insert("tokenizer.ggml.add_space_prefix".into(), Value::Bool(false));
        let tokenizer = tokenizer(&metadata);
        for (text, wanted) in list(&golden["texts"]).into_iter().zip(case["ids"].as_array().unwrap()) {
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids(wanted), "{name} {text:?}");
        }
    }
}
