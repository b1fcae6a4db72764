//! Downloads from a stand-in for the hub on this machine.

mod stand_in;

use stand_in::{COMMIT, SUM, StandIn, files, files_of};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tamarack::{
    Device, LlmModelFactory, LoadOptions, ModelConfiguration, Phase,
    hub::{Hub, MODEL_FILES, Progress, TOKENIZER_FILES},
    plugins::Registry,
};
use tamarack_tests::tls::TlsServer;

/// Has a process only download, from the hub that its environment names.
const CHILD: &str = "TAMARACK_TEST_HUB";

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
    let hub = hub.timeout(Duration::from_millis(500)).build().unwrap();
    let began = Instant::now();
    let error = hub.snapshot("org/stalled", None, MODEL_FILES, quiet).await.unwrap_err().to_string();
    assert!(error.starts_with("org/stalled: ") && began.elapsed().as_secs() < 30, "{error}");
    // What had come is not asked for again.
    stand_in.take_requests();
    let folder = hub.snapshot("org/stalled", None, MODEL_FILES, quiet).await.unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), files()["model.safetensors"]);
    assert_eq!(ranges(&stand_in.take_requests()).len(), 1);
}

/// One, say, that takes questions about files and does not answer.
#[tokio::test]
async fn a_hub_that_does_not_answer_is_given_up() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = Hub::builder().endpoint(&stand_in.url).cache_dir(cache.path()).token("t0ken").offline(false);
    let hub = hub.timeout(Duration::from_millis(300)).build().unwrap();
    let began = Instant::now();
    let error = hub.snapshot("org/silent", None, MODEL_FILES, quiet).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("org/silent: {} says nothing, for 0.9 seconds", stand_in.url)), "{error}");
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    let asked = stand_in.take_requests();
    assert!(asked.iter().any(|request| request.starts_with("HEAD /org/silent/resolve/")), "{asked:?}");
}

#[tokio::test]
async fn a_hub_that_nobody_vouches_for_is_refused() {
    let (server, cache) = (TlsServer::start(Vec::new()), tempfile::tempdir().unwrap());
    let hub = Hub::builder().endpoint(&server.url).cache_dir(cache.path()).offline(false).build().unwrap();
    let error = hub.snapshot("org/tiny", None, MODEL_FILES, quiet).await.unwrap_err().to_string();
    let expected =
        format!("org/tiny: cannot reach {}: invalid peer certificate: UnknownIssuer; trusted are", server.url);
    assert!(error.starts_with(&expected), "{error}");
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
        tokio::time::sleep(Duration::from_millis(5)).await;
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
