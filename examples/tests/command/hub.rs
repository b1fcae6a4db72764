//! The command and a hub: what it asks of it, and what it does not.

use crate::support::{Outcome, run, tamarack, text, tiny};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What was asked, and with which token.
type Requests = Mutex<Vec<(String, Option<String>)>>;
/// Variables of the environment.
type Variables<'a> = &'a [(&'a str, &'a str)];

/// A hub with one repository, `org/name`. It runs for as long as the process.
struct StandIn {
    url: String,
    requests: Arc<Requests>,
}

impl StandIn {
    fn start(files: BTreeMap<&'static str, Vec<u8>>) -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::default());
        let log = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &files, &log);
            }
        });
        StandIn { url, requests }
    }

    /// Whether a file was asked for since the last time.
    fn was_asked_for(&self, file: &str) -> bool {
        self.requests.lock().unwrap().drain(..).any(|(request, _)| request.contains(file))
    }
}

fn answer(mut stream: TcpStream, files: &BTreeMap<&'static str, Vec<u8>>, log: &Requests) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let request = lines.next()?;
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let token = headers.iter().find_map(|header| header.strip_prefix("authorization: ")).map(str::to_owned);
    log.lock().unwrap().push((request.clone(), token));
    let path = request.split([' ', '?']).nth(1)?;
    let body = match path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/")) {
        Some(file) => files.get(file)?.clone(),
        None if path.starts_with("/api/models/org/name/tree/") => {
            let entry = |(i, (path, content)): (usize, (&&str, &Vec<u8>))| serde_json::json!({ "type": "file", "path": path, "oid": format!("{i:040x}"), "size": content.len() });
            serde_json::to_vec(&files.iter().enumerate().map(entry).collect::<Vec<_>>()).ok()?
        }
        None => format!("{{\"sha\": \"{COMMIT}\"}}").into_bytes(),
    };
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).ok()
}

fn with_hub(hub: &str, cache: &str, variables: Variables<'_>, arguments: &[&str]) -> Outcome {
    let mut command = tamarack(arguments);
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE"] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", hub).env("HF_HOME", cache).env("HF_HUB_OFFLINE", "0").envs(variables.iter().copied());
    run(command)
}

#[test]
fn what_nothing_serves_is_not_downloaded() {
    let weights = fs::read(tiny("tied").join("model.safetensors")).unwrap();
    let config = fs::read_to_string(tiny("tied").join("config.json")).unwrap().replace("\"llama\"", "\"strange\"");
    let hub = StandIn::start(BTreeMap::from([("config.json", config.into_bytes()), ("model.safetensors", weights)]));
    let cache = tempfile::tempdir().unwrap();
    let with_hub = |arguments: &[&str]| with_hub(&hub.url, text(cache.path()), &[], arguments);
    let (pull, bench) = (["pull", "org/name"], ["bench", "--device", "cpu", "--model", "org/name"]);
    for arguments in [&pull[..], &["inspect", "org/name"], &bench, &["chat", "hi", "--model", "org/name"]] {
        let outcome = with_hub(arguments);
        assert_eq!(outcome.code, Some(1), "{arguments:?}");
        assert!(outcome.stderr.contains("`strange`"), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.contains("--force"), arguments == pull, "{arguments:?}: {}", outcome.stderr);
        assert!(!hub.was_asked_for("model.safetensors"), "{arguments:?}");
    }
    with_hub(&["pull", "org/name", "--force"]).expect("pull --force");
    assert!(hub.was_asked_for("model.safetensors"));
    // What is there already is shown as far as it tells.
    let inspected = with_hub(&["inspect", "org/name"]);
    assert!(inspected.code == Some(1) && inspected.stdout.contains("parameters"), "{}", inspected.stdout);
}

#[test]
fn tokens_are_sent_without_white_space() {
    let folder = tempfile::tempdir().unwrap();
    let (home, file) = (folder.path().join("home"), folder.path().join("elsewhere"));
    fs::create_dir(&home).unwrap();
    fs::write(home.join("token"), "hf_home\n").unwrap();
    fs::write(&file, "\thf_file\r\n").unwrap();
    let cases: [(Variables<'_>, Option<&str>); 7] = [
        (&[("HF_TOKEN", "hf_x\n"), ("HUGGING_FACE_HUB_TOKEN", "hf_y")], Some("Bearer hf_x")),
        (&[("HF_TOKEN", " \thf_x\r\n\u{a0}")], Some("Bearer hf_x")),
        (&[("HF_TOKEN", ""), ("HUGGING_FACE_HUB_TOKEN", " hf_y ")], Some("Bearer hf_y")),
        (&[("HF_TOKEN", "\n")], Some("Bearer hf_home")),
        (&[("HF_TOKEN_PATH", text(&file))], Some("Bearer hf_file")),
        (&[("HF_TOKEN", " \n"), ("HF_TOKEN_PATH", "/no/such/file")], None),
        (&[("HF_TOKEN", "hf_x"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], None),
    ];
    let hub = StandIn::start(BTreeMap::from([("config.json", b"{}".to_vec())]));
    for (variables, wanted) in cases {
        with_hub(&hub.url, text(&home), variables, &["pull", "--force", "org/name"]).expect("pull");
        let requests = std::mem::take(&mut *hub.requests.lock().unwrap());
        assert!(!requests.is_empty());
        assert!(requests.iter().all(|(_, token)| token.as_deref() == wanted), "{variables:?}: {requests:?}");
    }
    let outcome = with_hub(&hub.url, text(&home), &[("HF_TOKEN", "hf_\u{e9}")], &["pull", "org/name"]);
    assert!(outcome.stderr.contains("HF_TOKEN: expected an access token"), "{}", outcome.stderr);
}

#[test]
fn an_endpoint_is_an_address() {
    let hub = StandIn::start(BTreeMap::from([("config.json", b"{}".to_vec())]));
    let cache = tempfile::tempdir().unwrap();
    let with_hub = |endpoint: &str| with_hub(endpoint, text(cache.path()), &[], &["pull", "--force", "org/name"]);
    for endpoint in [format!("{}/", hub.url), format!(" {}\n", hub.url)] {
        with_hub(&endpoint).expect("pull");
    }
    for endpoint in [hub.url.trim_start_matches("http://"), "127.0.0.1:9", "huggingface.co", "http://", "ftp://x"] {
        let outcome = with_hub(endpoint);
        assert_eq!(outcome.code, Some(1), "{endpoint}");
        assert!(outcome.stderr.contains("HF_ENDPOINT: expected an address"), "{endpoint}: {}", outcome.stderr);
    }
}
