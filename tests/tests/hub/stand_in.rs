//! A stand-in for the hub, and for the server that keeps its large files.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tamarack::hub::Hub;
use tamarack_tests::tiny;

/// The SHA-256 of 300,000 sevens, which is the etag of such a file, as the hub has it.
pub const SUM: &str = "08f166476de183f7a1b2874d544d37912aaf8d19b92013e1aafe233ba231024a";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Files of this size are large ones.
const LARGE: usize = 200_000;

/// Answers like a hub with one open repository, `org/tiny`, and several that refuse in their ways. Large files are on another
/// server, with another name and port: the hub redirects to it, and says on the redirect alone which commit that is, how large
/// the file and what its sum.
pub struct StandIn {
    pub url: String,
    state: Arc<State>,
}

struct State {
    requests: Mutex<Vec<String>>,
    /// Where the large files are.
    files: String,
    /// Whether the server of the large files has come back after it broke off.
    is_repaired: AtomicBool,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }
}

/// What is in `org/name`: everywhere the same, but in some that can be loaded, or cannot.
pub fn files_of(name: &str) -> BTreeMap<&'static str, Vec<u8>> {
    match name {
        "model" => {
            let folder = tiny::chat_model();
            let names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
            names.map(|name| (name, std::fs::read(folder.path().join(name)).unwrap())).into()
        }
        "strange" => BTreeMap::from([
            ("config.json", br#"{"model_type": "strange"}"#.to_vec()),
            ("model.safetensors", vec![7; 300_000]),
            ("strange.gguf", gguf(&[("general.architecture", "strange")])),
            ("known.gguf", gguf(&[("general.architecture", "llama"), ("general.description", &"x".repeat(100_000))])),
            ("none.gguf", vec![7; 300_000]),
        ]),
        "templates" => BTreeMap::from([
            ("config.json", b"{}".to_vec()),
            ("hf_quant_config.json", b"{ }".to_vec()),
            ("quantize_config.json", b"{  }".to_vec()),
            ("chat_template.jinja", b"a".to_vec()),
            ("additional_chat_templates/tool_use.jinja", b"b".to_vec()),
            ("other/c.jinja", b"c".to_vec()),
        ]),
        _ => files(),
    }
}

pub fn files() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", vec![7; 300_000]),
        ("pytorch_model.bin", vec![1; 10]),
        ("sub/extra.json", b"[]".to_vec()),
        ("q4.gguf", b"GGUF".to_vec()),
    ])
}

/// A GGUF file with these texts, then the sizes of a small model and the beginning of a vocabulary, then much else.
fn gguf(texts: &[(&str, &str)]) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    let sizes = ["block_count", "embedding_length", "attention.head_count"].map(|key| format!("llama.{key}"));
    file.extend(0u64.to_le_bytes());
    file.extend((texts.len() as u64 + sizes.len() as u64 + 2).to_le_bytes());
    let put = |file: &mut Vec<u8>, text: &str| {
        file.extend((text.len() as u64).to_le_bytes());
        file.extend(text.as_bytes());
    };
    for (key, text) in texts {
        put(&mut file, key);
        file.extend(8u32.to_le_bytes());
        put(&mut file, text);
    }
    for key in &sizes {
        put(&mut file, key);
        file.extend(4u32.to_le_bytes());
        file.extend(2u32.to_le_bytes());
    }
    for (key, size) in [("tokenizer.ggml.model", 4), ("tokenizer.ggml.tokens", 1 << 20)] {
        put(&mut file, key);
        file.extend(8u32.to_le_bytes());
        put(&mut file, &"x".repeat(size));
    }
    file
}

impl StandIn {
    pub fn start() -> StandIn {
        let [hub, files] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let url = format!("http://{}", hub.local_addr().unwrap());
        let state = Arc::new(State {
            requests: Mutex::default(),
            files: format!("http://localhost:{}", files.local_addr().unwrap().port()),
            is_repaired: AtomicBool::new(false),
        });
        for (listener, is_hub) in [(hub, true), (files, false)] {
            let state = state.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    thread::spawn(move || serve(stream, &state, is_hub));
                }
            });
        }
        StandIn { url, state }
    }

    pub fn hub(&self, cache: &Path) -> Hub {
        Hub::builder().endpoint(&self.url).cache_dir(cache).token("t0ken").offline(false).build().unwrap()
    }

    /// What was asked, `CDN` before what the server of the large files was, and the range behind it.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }

    /// Has the server of the large files answer again.
    pub fn repair(&self) {
        self.state.is_repaired.store(true, Ordering::Relaxed);
    }
}

fn serve(mut stream: TcpStream, state: &State, is_hub: bool) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let range = headers.iter().find_map(|h| h.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let token = headers.iter().find(|header| header.to_lowercase().starts_with("authorization:"));
    let authorized = token.is_some_and(|token| token.eq_ignore_ascii_case("authorization: Bearer t0ken"));
    let request = if is_hub { request } else { format!("CDN {request}") };
    let first = {
        let mut log = state.requests.lock().unwrap();
        let first = !log.iter().any(|before| before.starts_with(&request));
        log.push(range.as_ref().map_or(request.clone(), |range| format!("{request} {range}")));
        first
    };
    let mut words = request.trim_start_matches("CDN ").split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let path = target.split('?').next()?;
    let is = |name: &str| path.contains(&format!("/{name}/"));
    if is_hub && is("silent") && path.contains("/resolve/") {
        thread::sleep(Duration::from_secs(60));
    }
    let mut answer = match (is_hub, token) {
        (true, _) => answer(target, path, authorized, &state.files),
        // As S3 does it.
        (false, Some(_)) => Answer::new(400, "Only one auth mechanism allowed"),
        (false, None) => large_file(path),
    };
    let is_whole = answer.status == 200;
    if let Some((start, end)) = range.as_ref().and_then(|range| range.split_once('-'))
        && is_whole
        && !is("rangeless")
    {
        let (start, end): (usize, usize) = (start.parse().ok()?, end.parse().ok()?);
        let (len, end) = (answer.body.len(), end.min(answer.body.len().saturating_sub(1)));
        answer = match start <= end {
            true => {
                let mut part = Answer::new(206, &answer.body[start..=end]);
                part.headers = answer.headers;
                part.with("content-range", format!("bytes {start}-{end}/{len}"))
            }
            false => Answer::new(416, ""),
        };
    }
    let mut head =
        format!("HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let is_repaired = state.is_repaired.load(Ordering::Relaxed);
    if !is_hub && is("down") && !first && !is_repaired {
        return None;
    }
    stream.write_all((head + "\r\n").as_bytes()).ok()?;
    let breaks = !is_hub && first && !is_repaired;
    match method {
        "HEAD" => {}
        // The first time, the connection breaks off.
        _ if breaks && (is("cut") || is("down") || is("rangeless")) => {
            stream.write_all(&answer.body[..100_000]).ok()?
        }
        _ if !is_hub && range.is_none() && is("slow") => {
            for piece in answer.body.chunks(5_000) {
                stream.write_all(piece).ok()?;
                thread::sleep(Duration::from_millis(50));
            }
        }
        // Nothing more comes, and nobody hangs up.
        _ if breaks && is("stalled") => {
            stream.write_all(&answer.body[..100_000]).ok()?;
            thread::sleep(Duration::from_secs(60));
        }
        _ => stream.write_all(&answer.body).ok()?,
    }
    Some(())
}

/// What the other server answers: it knows of no commits, and has etags of its own.
fn large_file(path: &str) -> Answer {
    let (name, file) = path.trim_start_matches("/org/").split_once('/').unwrap();
    match files_of(name).remove(file) {
        _ if name == "expired" => Answer::new(403, "<Error>Request has expired</Error>"),
        // One of them has been tampered with.
        Some(content) if name == "damaged" => Answer::new(200, vec![8; content.len()]).with("etag", "\"5\""),
        Some(content) => Answer::new(200, content).with("etag", "\"5\""),
        None => Answer::new(404, ""),
    }
}

/// What the hub calls the content of a file: here, a number in place of git's.
fn oid(name: &str, file: &str) -> String {
    let number = files_of(name).keys().position(|key| *key == file).unwrap();
    format!("{number:040x}")
}

fn answer(target: &str, path: &str, authorized: bool, large_files: &str) -> Answer {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        _ if !authorized => Answer::new(401, "").with("x-error-message", "Invalid credentials in Authorization header"),
        [.., "org", "private", _, _] => {
            Answer::new(401, "").with("x-error-code", "RepoNotFound").with("x-error-message", "Repository not found")
        }
        [.., "org", "missing", _, _] => Answer::new(404, "").with("x-error-code", "RepoNotFound"),
        [.., "org", "forbidden", _, _] => Answer::new(403, "{\"error\": \"no scope\"}"),
        ["api", "models", "org", name, "tree", COMMIT] => {
            let entry = |(path, content): (&str, Vec<u8>)| {
                let mut entry =
                    serde_json::json!({ "type": "file", "oid": oid(name, path), "path": path, "size": content.len() });
                if content.len() > LARGE {
                    let sum = if content[0] == 7 { SUM.to_owned() } else { format!("{}{:024}", oid(name, path), 0) };
                    entry["lfs"] = serde_json::json!({ "oid": sum, "size": content.len(), "pointerSize": 134 });
                }
                entry
            };
            let mut entries: Vec<_> = files_of(name).into_iter().map(entry).collect();
            if *name != "pages" {
                entries.insert(0, serde_json::json!({ "type": "directory", "oid": "0", "path": "sub", "size": 0 }));
                return Answer::new(200, serde_json::to_vec(&entries).unwrap());
            }
            // In pages of two.
            let page: usize = target.rsplit_once("page=").map_or(0, |(_, page)| page.parse().unwrap());
            let answer = Answer::new(200, serde_json::to_vec(entries.chunks(2).nth(page).unwrap()).unwrap());
            let next = format!("<{path}?recursive=true&page={}>; rel=\"next\"", page + 1);
            if page + 1 < entries.len().div_ceil(2) { answer.with("link", next) } else { answer }
        }
        ["api", "models", "org", name, "revision", "main" | COMMIT] => {
            Answer::new(200, format!("{{\"id\": \"org/{name}\", \"sha\": \"{COMMIT}\"}}"))
        }
        ["org", "busy", ..] => Answer::new(429, ""),
        ["org", "failing", ..] => Answer::new(500, ""),
        // Where the files lie, elsewhere.
        ["org", "moved", "resolve", rest @ ..] => {
            Answer::new(307, "").with("location", format!("/org/tiny/resolve/{}", rest.join("/")))
        }
        ["org", "gated", "resolve", ..] => Answer::new(403, "").with("x-error-code", "GatedRepo"),
        ["org", name, "resolve", COMMIT | "main", file @ ..] => match files_of(name).remove(file.join("/").as_str()) {
            // A proxy that lets everybody know about files and hands out something else.
            Some(_) if *name == "broken" => Answer::new(200, "<html>").with("x-repo-commit", COMMIT),
            Some(content) if content.len() > LARGE => {
                let elsewhere = format!("{large_files}/org/{name}/{}", file.join("/"));
                let answer = Answer::new(302, "").with("location", elsewhere).with("x-repo-commit", COMMIT);
                answer.with("x-linked-size", content.len().to_string()).with("x-linked-etag", format!("\"{SUM}\""))
            }
            Some(content) => {
                let etag = format!("\"{}\"", oid(name, &file.join("/")));
                Answer::new(200, content).with("etag", etag).with("x-repo-commit", COMMIT)
            }
            None => Answer::new(404, "").with("x-error-code", "EntryNotFound"),
        },
        _ => Answer::new(404, "").with("x-error-code", "RevisionNotFound"),
    }
}
