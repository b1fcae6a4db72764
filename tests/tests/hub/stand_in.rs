//! A stand-in for the hub.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tamarack::hub::Hub;
use tamarack_tests::tiny;

/// The SHA-256 of 300,000 sevens, which is the etag of such a file, as the hub has it.
pub const SUM: &str = "08f166476de183f7a1b2874d544d37912aaf8d19b92013e1aafe233ba231024a";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Answers like a hub with one open repository, `org/tiny`, and several that refuse in their ways.
pub struct StandIn {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
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

/// What is in `org/name`: everywhere the same, but in one that can be loaded.
pub fn files_of(name: &str) -> BTreeMap<&'static str, Vec<u8>> {
    if name != "model" {
        return files();
    }
    let folder = tiny::chat_model();
    let names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    names.map(|name| (name, std::fs::read(folder.path().join(name)).unwrap())).into()
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

impl StandIn {
    pub fn start() -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = log.clone();
                thread::spawn(move || serve(stream, &log));
            }
        });
        StandIn { url, requests }
    }

    pub fn hub(&self, cache: &Path) -> Hub {
        Hub::builder().endpoint(&self.url).cache_dir(cache).token("t0ken").offline(false).build().unwrap()
    }

    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let range = headers.iter().find_map(|h| h.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let authorized = headers.iter().any(|header| header.eq_ignore_ascii_case("authorization: Bearer t0ken"));
    let first = {
        let mut log = log.lock().unwrap();
        let first = !log.contains(&request);
        log.push(range.as_ref().map_or(request.clone(), |range| format!("{request} {range}")));
        first
    };
    let mut words = request.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let path = target.split('?').next()?;
    if method == "HEAD" && path.contains("/silent/") {
        thread::sleep(Duration::from_secs(60));
    }
    let mut answer = answer(method, path, authorized);
    if let Some((start, end)) = range.as_ref().and_then(|range| range.split_once('-')) {
        let (start, end): (usize, usize) = (start.parse().ok()?, end.parse().ok()?);
        answer.body = answer.body[start..=end].to_vec();
        answer.status = 206;
    }
    let mut head =
        format!("HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).ok()?;
    let large = answer.body.len() > 200_000;
    match method {
        "HEAD" => {}
        // The first time, the connection breaks off.
        _ if large && first && range.is_none() && path.contains("/cut/") => {
            stream.write_all(&answer.body[..100_000]).ok()?
        }
        _ if large && range.is_none() && path.contains("/slow/") => {
            for piece in answer.body.chunks(5_000) {
                stream.write_all(piece).ok()?;
                thread::sleep(Duration::from_millis(25));
            }
        }
        // Nothing more comes, and nobody hangs up.
        _ if large && first && range.is_none() && path.contains("/stalled/") => {
            stream.write_all(&answer.body[..100_000]).ok()?;
            thread::sleep(Duration::from_secs(60));
        }
        _ => stream.write_all(&answer.body).ok()?,
    }
    Some(())
}

fn answer(method: &str, path: &str, authorized: bool) -> Answer {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        _ if !authorized => Answer::new(401, "").with("x-error-message", "Invalid credentials in Authorization header"),
        [.., "org", "private", _, _] => {
            Answer::new(401, "").with("x-error-code", "RepoNotFound").with("x-error-message", "Repository not found")
        }
        [.., "org", "missing", _, _] => Answer::new(404, "").with("x-error-code", "RepoNotFound"),
        [.., "org", "forbidden", _, _] => Answer::new(403, "{\"error\": \"no scope\"}"),
        ["api", "models", "org", name, "tree", "main" | COMMIT] => {
            let entry = |(path, content): (&str, Vec<u8>)| serde_json::json!({ "type": "file", "oid": "0", "path": path, "size": content.len() });
            let entries: Vec<_> = files_of(name).into_iter().map(entry).collect();
            Answer::new(200, serde_json::to_vec(&entries).unwrap())
        }
        ["api", "models", "org", name, "revision", "main"] => {
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
            Some(_) if *name == "broken" && method == "GET" => Answer::new(403, "<html>"),
            Some(content) => {
                // Large files are known by their sums, and one of them has been tampered with.
                let is_sum = content.len() == 300_000 && *name != "tiny";
                let etag = if is_sum { SUM.to_owned() } else { format!("etag-{}", file.join("-")) };
                let content = if is_sum && *name == "damaged" { vec![8; 300_000] } else { content };
                Answer::new(200, content).with("etag", format!("\"{etag}\"")).with("x-repo-commit", COMMIT)
            }
            None => Answer::new(404, "").with("x-error-code", "EntryNotFound"),
        },
        _ => Answer::new(404, "").with("x-error-code", "RevisionNotFound"),
    }
}
