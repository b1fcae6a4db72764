//! Downloads from a stand-in for the hub on this machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tamarack::{
    Device, LlmModelFactory, LoadOptions, ModelConfiguration, Phase,
    hub::{Hub, MODEL_FILES, Progress, TOKENIZER_FILES},
    plugins::Registry,
};
use tamarack_tests::tiny;

/// The SHA-256 of 300,000 sevens, which is the etag of such a file, as the hub has it.
const SUM: &str = "08f166476de183f7a1b2874d544d37912aaf8d19b92013e1aafe233ba231024a";
/// Has a process only download, from the hub that its environment names.
const CHILD: &str = "TAMARACK_TEST_HUB";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Answers like a hub with one open repository, `org/tiny`, and several that refuse in their ways.
struct StandIn {
    url: String,
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
fn files_of(name: &str) -> BTreeMap<&'static str, Vec<u8>> {
    if name != "model" {
        return files();
    }
    let folder = tiny::chat_model();
    let names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    names.map(|name| (name, std::fs::read(folder.path().join(name)).unwrap())).into()
}

fn files() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", vec![7; 300_000]),
        ("pytorch_model.bin", vec![1; 10]),
        ("sub/extra.json", b"[]".to_vec()),
        ("q4.gguf", b"GGUF".to_vec()),
    ])
}

impl StandIn {
    fn start() -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = log.clone();
                std::thread::spawn(move || serve(stream, &log));
            }
        });
        StandIn { url, requests }
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub::builder().endpoint(&self.url).cache_dir(cache).token("t0ken").offline(false).build().unwrap()
    }

    fn take_requests(&self) -> Vec<String> {
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
                std::thread::sleep(std::time::Duration::from_millis(25));
            }
        }
        // Nothing more comes, and nobody hangs up.
        _ if large && first && range.is_none() && path.contains("/stalled/") => {
            stream.write_all(&answer.body[..100_000]).ok()?;
            std::thread::sleep(std::time::Duration::from_secs(60));
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

fn quiet(_: Progress) {}

#[tokio::test]
async fn files_arrive_in_the_common_cache_and_stay_usable_offline() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = stand_in.hub(cache.path());
    let steps = Arc::new(Mutex::new(Vec::new()));
    let log = steps.clone();
    let report = move |step| log.lock().unwrap().push(step);
    let folder = hub.snapshot("org/tiny", None, &["*.safetensors", "*.json"], report).await.unwrap();

    let repo = cache.path().join("models--org--tiny");
    assert_eq!(folder, repo.join("snapshots").join(COMMIT));
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), files()["model.safetensors"]);
    assert!(!folder.join("pytorch_model.bin").exists() && !folder.join("sub").exists());
    if cfg!(unix) {
        let blob = folder.join("config.json").canonicalize().unwrap();
        assert_eq!(blob, repo.canonicalize().unwrap().join("blobs/etag-config.json"));
    }

    let steps = std::mem::take(&mut *steps.lock().unwrap());
    assert!(steps.windows(2).all(|pair| pair[0].bytes < pair[1].bytes), "{steps:?}");
    let last = steps.last().unwrap();
    assert_eq!((last.bytes, last.total), (300_002, 300_002));

    stand_in.take_requests();
    assert_eq!(hub.snapshot("org/tiny", None, &["*.json"], quiet).await.unwrap(), folder);
    let requests = stand_in.take_requests();
    assert!(requests.iter().all(|request| request.starts_with("GET /api/")), "nothing is fetched twice: {requests:?}");

    let offline = Hub::builder().endpoint(&stand_in.url).cache_dir(cache.path()).offline(true).build().unwrap();
    for revision in [None, Some(COMMIT)] {
        assert_eq!(offline.snapshot("org/tiny", revision, MODEL_FILES, quiet).await.unwrap(), folder);
    }
    assert_eq!(stand_in.take_requests(), Vec::<String>::new());

    let gone = Hub::builder().endpoint("http://127.0.0.1:1").cache_dir(cache.path()).offline(false).build().unwrap();
    assert_eq!(gone.snapshot("org/tiny", None, TOKENIZER_FILES, quiet).await.unwrap(), folder);
}

/// From the first byte to the last kernel, on a device that compiles some.
#[tokio::test]
async fn progress_goes_through_all_phases() {
    let _ = tamarack_plugins::LINKED;
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let options = LoadOptions::default().hub(stand_in.hub(cache.path())).device(Device::Named("0".to_owned()));
    let (options, mut progress) = options.context(64).progress_stream();
    let factory = LlmModelFactory::new(Registry::linked());
    let container = factory.load_container(&ModelConfiguration::hub("org/model"), options).await.unwrap();
    drop(container);
    let mut all = Vec::new();
    while let Some(p) = progress.next().await {
        all.push(p);
    }
    let mut phases: Vec<Phase> = all.iter().map(|p| p.phase).collect();
    phases.dedup();
    assert_eq!(phases, [Phase::Download, Phase::Load, Phase::Compile]);
    for phase in phases {
        let of: Vec<_> = all.iter().filter(|p| p.phase == phase).collect();
        assert!(of.is_sorted_by_key(|p| p.done) && of.iter().all(|p| !p.file.is_empty() && p.total > 0), "{of:?}");
        assert_eq!(of.last().unwrap().fraction_completed(), 1.0, "{of:?}");
    }
    let bytes: usize = files_of("model").values().map(Vec::len).sum();
    let download = all.iter().rfind(|p| p.phase == Phase::Download).unwrap();
    assert_eq!(download.total as usize, bytes);
}

/// A model that no plugin serves costs its configuration, not its weights.
#[tokio::test]
async fn what_nothing_serves_is_refused_before_its_weights_arrive() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let options = LoadOptions::default().hub(stand_in.hub(cache.path()));
    let factory = LlmModelFactory::new(Registry::default());
    let loaded = factory.load_container(&ModelConfiguration::hub("org/tiny"), options).await;
    assert!(loaded.unwrap_err().to_string().contains("expected a `model_type`"));
    let requests = stand_in.take_requests();
    assert!(requests.iter().any(|r| r.contains("config.json")), "{requests:?}");
    assert!(!requests.iter().any(|r| r.contains("safetensors")), "{requests:?}");
}

#[tokio::test]
async fn one_gguf_file_can_be_asked_for() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    for id in ["org/tiny:q4.gguf", "org/tiny/q4.gguf"] {
        let path = stand_in.hub(cache.path()).snapshot(id, None, MODEL_FILES, quiet).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"GGUF");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn incomplete_snapshots_do_not_count() {
    let cache = tempfile::tempdir().unwrap();
    let repo = cache.path().join("models--org--half");
    let snapshot = repo.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
    std::fs::write(
        snapshot.join("model.safetensors.index.json"),
        r#"{ "weight_map": { "a": "model-1.safetensors" } }"#,
    )
    .unwrap();
    let hub = Hub::builder().cache_dir(cache.path()).offline(true).build().unwrap();
    let error = hub.snapshot("org/half", None, MODEL_FILES, quiet).await.unwrap_err().to_string();
    assert!(error.contains("`model-1.safetensors` is missing, looked for revision `main`"), "{error}");
    std::fs::write(snapshot.join("model-1.safetensors"), "x").unwrap();
    assert_eq!(hub.snapshot("org/half", None, MODEL_FILES, quiet).await.unwrap(), snapshot);
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = stand_in.hub(cache.path());
    let cases = [
        ("org/private", "main", "org/private: not found at http://127.0.0.1"),
        ("org/missing", "main", "check the spelling, and if it is private set HF_TOKEN"),
        ("org/forbidden", "main", "the access token may not read this repository (no scope)"),
        ("org/gated", "main", "org/gated is gated: accept its terms at http://127.0.0.1"),
        ("org/tiny", "v9", "no revision or file like that, `v9`"),
        ("org/tiny:absent.gguf", "main", "expected files like absent.gguf, found: config.json, "),
        ("org/broken", "main", "it was removed, try again"),
        ("org/tiny/", "main", "model id: expected `org/name`"),
        ("org/busy", "main", "asks for a pause (too many requests); try again later"),
        ("org/failing", "main", "fails with status 500; try again later"),
    ];
    for (id, revision, wanted) in cases {
        let error = hub.snapshot(id, Some(revision), MODEL_FILES, quiet).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{id}: {error}");
    }
    let blobs = cache.path().join("models--org--broken/blobs");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0, "nothing damaged stays");
    let stranger = Hub::builder().endpoint(&stand_in.url).cache_dir(cache.path()).token("other").offline(false);
    let error = stranger.build().unwrap().snapshot("org/tiny", None, MODEL_FILES, quiet).await.unwrap_err();
    assert!(error.to_string().contains("does not accept the access token"), "{error}");
    let offline = Hub::builder().cache_dir(cache.path()).offline(true).build().unwrap();
    let error = offline.snapshot("org/tiny", None, MODEL_FILES, quiet).await.unwrap_err();
    assert!(error.to_string().contains("connect to the network (and unset HF_HUB_OFFLINE)"), "{error}");
    assert!(Hub::builder().endpoint("no url").build().is_err());
}

#[tokio::test]
async fn redirects_are_followed() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let folder = stand_in.hub(cache.path()).snapshot("org/moved", None, MODEL_FILES, quiet).await.unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), files()["model.safetensors"]);
}

fn ranges(requests: &[String]) -> Vec<&str> {
    requests.iter().filter_map(|request| request.rsplit_once(" HTTP/1.1 ")).map(|(_, range)| range).collect()
}

#[tokio::test]
async fn what_broke_off_is_continued() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = stand_in.hub(cache.path());
    let error = hub.snapshot("org/cut", None, MODEL_FILES, quiet).await.unwrap_err().to_string();
    assert!(error.starts_with("org/cut: "), "{error}");
    stand_in.take_requests();
    let folder = hub.snapshot("org/cut", None, MODEL_FILES, quiet).await.unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), files()["model.safetensors"]);
    let requests = stand_in.take_requests();
    let asked = ranges(&requests);
    let start = asked[0].split_once('-').unwrap().0.parse::<u64>().unwrap();
    assert!(asked.len() == 1 && start > 0 && start <= 100_000, "{requests:?}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_given_up() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = Hub::builder().endpoint(&stand_in.url).cache_dir(cache.path()).token("t0ken").offline(false);
    let hub = hub.timeout(std::time::Duration::from_millis(500)).build().unwrap();
    let began = std::time::Instant::now();
    let error = hub.snapshot("org/stalled", None, MODEL_FILES, quiet).await.unwrap_err().to_string();
    assert!(error.starts_with("org/stalled: ") && began.elapsed().as_secs() < 30, "{error}");
    // What had come is not asked for again.
    stand_in.take_requests();
    let folder = hub.snapshot("org/stalled", None, MODEL_FILES, quiet).await.unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), files()["model.safetensors"]);
    assert_eq!(ranges(&stand_in.take_requests()).len(), 1);
}

#[tokio::test]
async fn what_was_tampered_with_does_not_stay() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = stand_in.hub(cache.path());
    let error = hub.snapshot("org/damaged", None, MODEL_FILES, quiet).await.unwrap_err().to_string();
    assert!(error.contains(&format!("expected the SHA-256 {SUM}, received ")), "{error}");
    assert!(!cache.path().join("models--org--damaged/blobs").join(SUM).exists());
    let offline = Hub::builder().cache_dir(cache.path()).offline(true).build().unwrap();
    let error = offline.snapshot("org/damaged", None, MODEL_FILES, quiet).await.unwrap_err().to_string();
    assert!(error.contains("in the cache"), "{error}");
}

/// Not a test: what `download_in_a_process` runs.
#[tokio::test]
async fn child() {
    if std::env::var_os(CHILD).is_some() {
        Hub::new().unwrap().snapshot("org/slow", None, MODEL_FILES, quiet).await.unwrap();
    }
}

fn download_in_a_process(stand_in: &StandIn, cache: &Path) -> std::process::Child {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "child"]).env(CHILD, "").env("HF_ENDPOINT", &stand_in.url).env("HF_HUB_CACHE", cache);
    child.env("HF_TOKEN", "t0ken").env("HF_HUB_OFFLINE", "0").stdout(std::process::Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn a_killed_download_loses_nothing_and_leaves_nothing_half_written() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let mut child = download_in_a_process(&stand_in, cache.path());
    let part = cache.path().join("models--org--slow/blobs").join(format!("{SUM}.incomplete"));
    while std::fs::metadata(&part).map_or(0, |found| found.len()) < 50_000 {
        assert!(child.try_wait().unwrap().is_none(), "the download ended before it could be killed");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let there = std::fs::metadata(&part).unwrap().len();

    let offline = Hub::builder().cache_dir(cache.path()).offline(true).build().unwrap();
    let error = offline.snapshot("org/slow", None, MODEL_FILES, quiet).await.unwrap_err().to_string();
    assert!(error.contains("in the cache"), "{error}");
    stand_in.take_requests();
    let folder = stand_in.hub(cache.path()).snapshot("org/slow", None, MODEL_FILES, quiet).await.unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), files()["model.safetensors"]);
    assert_eq!(ranges(&stand_in.take_requests()), [format!("{there}-299999")]);
}

#[tokio::test]
async fn processes_that_download_the_same_model_do_it_once() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let mut children = [(); 2].map(|()| download_in_a_process(&stand_in, cache.path()));
    let folder = stand_in.hub(cache.path()).snapshot("org/slow", None, MODEL_FILES, quiet).await.unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), files()["model.safetensors"]);
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    let is_large = |request: &&String| request.starts_with("GET /org/slow") && request.contains("model.safetensors");
    assert_eq!(stand_in.take_requests().iter().filter(is_large).count(), 1);
}
