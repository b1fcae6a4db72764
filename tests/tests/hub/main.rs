//! Downloads from a stand-in for the hub on this machine.

mod stand_in;

use stand_in::{COMMIT, SUM, StandIn, files, files_of};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tamarack::{
    Device, Error, LlmModelFactory, LoadOptions, ModelConfiguration, Phase,
    hub::{Hub, MODEL_FILES, Progress, TOKENIZER_FILES},
    model::fetch,
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
        assert_eq!(blob, repo.canonicalize().unwrap().join(format!("blobs/{:040x}", 0)));
        let link = std::fs::read_link(folder.join("model.safetensors")).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(SUM), "a cache may be moved");
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
        ("org/broken", "main", "config.json: expected 2 bytes, received more: does a proxy"),
        ("org/expired", "main", ", where http://127.0.0.1"),
        ("org/tiny/", "main", "model id: expected `org/name`"),
        ("org/busy", "main", "asks for a pause (too many requests); try again later"),
        ("org/failing", "main", "fails with status 500; try again later"),
    ];
    for (id, revision, wanted) in cases {
        let error = hub.snapshot(id, Some(revision), MODEL_FILES, quiet).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{id}: {error}");
    }
    let blobs = std::fs::read_dir(cache.path().join("models--org--broken/blobs")).unwrap();
    let whole = blobs.flatten().filter(|blob| blob.path().extension().is_none_or(|end| end != "incomplete"));
    assert_eq!(whole.count(), 0, "nothing damaged is taken for whole");
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

/// The ranges that the server of the large files was asked for, a dash for a whole file.
fn ranges(requests: &[String]) -> Vec<&str> {
    let asked = requests.iter().filter(|request| request.starts_with("CDN "));
    asked
        .map(|request| request.rsplit_once("HTTP/1.1").unwrap().1.trim())
        .map(|r| if r.is_empty() { "-" } else { r })
        .collect()
}

fn part(cache: &Path, repo: &str) -> PathBuf {
    cache.join(format!("models--org--{repo}/blobs")).join(format!("{SUM}.incomplete"))
}

fn is_whole(folder: &Path) -> bool {
    std::fs::read(folder.join("model.safetensors")).unwrap() == files()["model.safetensors"]
}

#[tokio::test]
async fn what_breaks_off_is_continued_at_once() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let folder = stand_in.hub(cache.path()).snapshot("org/cut", None, MODEL_FILES, quiet).await.unwrap();
    assert!(is_whole(&folder));
    assert_eq!(ranges(&stand_in.take_requests()), ["-", "100000-299999"]);
}

#[tokio::test]
async fn what_broke_off_is_continued_by_the_next_download() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = stand_in.hub(cache.path());
    let error = hub.snapshot("org/down", None, MODEL_FILES, quiet).await.unwrap_err().to_string();
    assert!(error.starts_with("org/down: "), "{error}");
    assert_eq!(std::fs::metadata(part(cache.path(), "down")).unwrap().len(), 100_000);
    // Other files of the repository come meanwhile.
    hub.snapshot("org/down", None, TOKENIZER_FILES, quiet).await.unwrap();
    hub.snapshot("org/down:q4.gguf", None, MODEL_FILES, quiet).await.unwrap();
    stand_in.take_requests();
    stand_in.repair();
    assert!(is_whole(&hub.snapshot("org/down", None, MODEL_FILES, quiet).await.unwrap()));
    assert_eq!(ranges(&stand_in.take_requests()), ["100000-299999"]);
}

#[tokio::test]
async fn a_server_without_ranges_is_asked_for_all_again() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = stand_in.hub(cache.path());
    assert!(is_whole(&hub.snapshot("org/rangeless", None, MODEL_FILES, quiet).await.unwrap()));
    assert_eq!(ranges(&stand_in.take_requests()), ["-", "100000-299999"]);
}

/// Of another version, of a program that wrote in another order, or damaged on the disk.
#[tokio::test]
async fn a_part_that_is_wrong_is_begun_anew_once() {
    let right = &files()["model.safetensors"];
    let cases: [(&str, Vec<u8>, &[&str]); 5] = [
        ("damaged", vec![8; 1000], &["1000-299999", "-"]),
        ("damaged and of the right size", vec![8; 300_000], &["-"]),
        ("too long", vec![7; 300_001], &["-"]),
        ("empty", Vec::new(), &["-"]),
        ("whole", right.clone(), &[]),
    ];
    for (what, content, wanted) in cases {
        let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
        let part = part(cache.path(), "tiny");
        std::fs::create_dir_all(part.parent().unwrap()).unwrap();
        std::fs::write(&part, content).unwrap();
        std::fs::write(part.with_file_name(format!("{:064}.incomplete", 1)), "another version").unwrap();
        let folder = stand_in.hub(cache.path()).snapshot("org/tiny", None, MODEL_FILES, quiet).await.unwrap();
        assert!(is_whole(&folder), "{what}");
        assert_eq!(ranges(&stand_in.take_requests()), wanted, "{what}");
        assert!(!part.exists(), "{what}");
    }
}

/// What an interrupted process of a copy of the cache leaves: the pointer's file is there, and short.
#[tokio::test]
async fn a_file_of_the_wrong_size_is_fetched_again() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = stand_in.hub(cache.path());
    let folder = hub.snapshot("org/tiny", None, MODEL_FILES, quiet).await.unwrap();
    std::fs::write(folder.join("model.safetensors"), "short").unwrap();
    assert!(is_whole(&hub.snapshot("org/tiny", None, MODEL_FILES, quiet).await.unwrap()));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_given_up() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = Hub::builder().endpoint(&stand_in.url).cache_dir(cache.path()).token("t0ken").offline(false);
    let hub = hub.timeout(Duration::from_millis(500)).build().unwrap();
    let began = Instant::now();
    let folder = hub.snapshot("org/stalled", None, MODEL_FILES, quiet).await.unwrap();
    assert!(is_whole(&folder) && began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    // What had come is not asked for again.
    assert_eq!(ranges(&stand_in.take_requests()), ["-", "100000-299999"]);
}

#[tokio::test]
async fn a_listing_may_have_pages() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = stand_in.hub(cache.path());
    let folder = hub.snapshot("org/pages", None, &["*", "sub/*"], quiet).await.unwrap();
    for (name, content) in files() {
        assert_eq!(std::fs::read(folder.join(name)).unwrap(), content, "{name}");
    }
}

#[tokio::test]
async fn templates_and_quantization_configs_are_part_of_a_model() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    for globs in [MODEL_FILES, TOKENIZER_FILES] {
        let folder = stand_in.hub(cache.path()).snapshot("org/templates", None, globs, quiet).await.unwrap();
        for (name, content) in files_of("templates") {
            assert_eq!(
                std::fs::read(folder.join(name)).ok(),
                Some(content).filter(|_| name != "other/c.jinja"),
                "{name}"
            );
        }
    }
}

/// Every path below a folder, with what it is and when it was written.
fn tree(folder: &Path) -> Vec<(PathBuf, SystemTime)> {
    let mut all = vec![(folder.to_owned(), folder.symlink_metadata().unwrap().modified().unwrap())];
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(tree(&entry.path())),
            false => all.push((entry.path(), entry.metadata().unwrap().modified().unwrap())),
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn a_whole_model_is_used_without_writing() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = stand_in.hub(cache.path());
    let folder = hub.snapshot("org/model", None, MODEL_FILES, quiet).await.unwrap();
    let before = tree(cache.path());
    for revision in [None, Some(COMMIT)] {
        assert_eq!(hub.snapshot("org/model", revision, MODEL_FILES, quiet).await.unwrap(), folder);
    }
    hub.snapshot("org/model", None, TOKENIZER_FILES, quiet).await.unwrap();
    assert_eq!(tree(cache.path()), before);
}

/// Locks that another user made, or that cannot be made at all.
#[tokio::test]
async fn locks_that_cannot_be_had_are_done_without() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let locks = cache.path().join(".locks");
    std::fs::write(&locks, "no folder").unwrap();
    let hub = stand_in.hub(cache.path());
    assert!(is_whole(&hub.snapshot("org/tiny", None, MODEL_FILES, quiet).await.unwrap()));
    std::fs::remove_file(&locks).unwrap();
    // A folder cannot be opened for writing, as another user's file cannot.
    std::fs::create_dir_all(locks.join("models--org--cut").join(format!("{SUM}.lock"))).unwrap();
    assert!(is_whole(&hub.snapshot("org/cut", None, MODEL_FILES, quiet).await.unwrap()));
}

/// A copy without `refs`, and weights whose index is a left-over.
#[tokio::test]
async fn a_whole_model_is_found_however_it_came() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("models--org--copied/snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    let hub = Hub::builder().cache_dir(cache.path()).offline(true).build().unwrap();
    let index = |file: &str| format!(r#"{{ "weight_map": {{ "a": "{file}" }} }}"#);
    let put = |name: &str, content: &str| std::fs::write(snapshot.join(name), content).unwrap();
    put("model.safetensors.index.json", &index("model-00001-of-00002.safetensors"));
    put("model-00001-of-00001.safetensors", "x");
    for revision in [None, Some(COMMIT)] {
        assert_eq!(hub.cached("org/copied", revision, MODEL_FILES).unwrap(), snapshot);
    }
    std::fs::remove_file(snapshot.join("model-00001-of-00001.safetensors")).unwrap();
    put("model-00001-of-00003.safetensors", "x");
    assert!(hub.cached("org/copied", None, MODEL_FILES).is_err(), "two parts are missing");
    put("model.safetensors", "x");
    assert_eq!(hub.cached("org/copied", None, MODEL_FILES).unwrap(), snapshot);
    put("q-00001-of-00002.gguf", "x");
    let error = hub.cached("org/copied:q-00001-of-00002.gguf", None, MODEL_FILES).unwrap_err().to_string();
    assert!(error.contains("`q-00002-of-00002.gguf` is missing"), "{error}");
    put("q-00002-of-00002.gguf", "x");
    hub.cached("org/copied:q-00001-of-00002.gguf", None, MODEL_FILES).unwrap();
    // Of two snapshots none is the one that was meant.
    std::fs::create_dir_all(cache.path().join("models--org--copied/snapshots/another")).unwrap();
    assert!(hub.cached("org/copied", None, MODEL_FILES).is_err());
}

/// A GGUF file of an architecture that nothing serves costs the beginning of its metadata.
#[tokio::test]
async fn a_gguf_that_nothing_serves_is_refused_before_its_weights_arrive() {
    let _ = tamarack_plugins::LINKED;
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let options = LoadOptions::default().hub(stand_in.hub(cache.path()));
    let cases: [(&str, Registry, &str, &[&str]); 4] = [
        (
            "strange",
            Registry::linked(),
            "general.architecture: `strange` is not supported; supported are ",
            &["0-65535"],
        ),
        ("none", Registry::linked(), "the file does not begin with `GGUF`", &["0-65535"]),
        ("known", Registry::default(), "llama", &["0-65535", "65536-524287"]),
        ("known", Registry::linked(), "", &["0-65535", "65536-524287", "-"]),
    ];
    for (name, registry, wanted, asked) in cases {
        let id = format!("org/strange:{name}.gguf");
        let fetched = fetch(&registry, &ModelConfiguration::hub(&id), &options).await;
        assert_eq!(ranges(&stand_in.take_requests()), asked, "{name}");
        let error = fetched.unwrap_err();
        match wanted {
            // It was fetched, and is not what its sum says.
            "" => assert!(error.to_string().contains("expected the SHA-256"), "{error}"),
            _ => {
                assert!(
                    matches!(error, Error::UnsupportedModelType(_)) && error.to_string().contains(wanted),
                    "{error}"
                );
                assert!(error.to_string().starts_with(&id), "{error}");
            }
        }
    }
    let fetched = fetch(&Registry::linked(), &ModelConfiguration::hub("org/strange"), &options).await;
    let error = fetched.unwrap_err();
    assert!(matches!(error, Error::UnsupportedModelType(_)) && error.to_string().contains("strange"), "{error}");
    assert_eq!(ranges(&stand_in.take_requests()), [""; 0]);
}

/// One, say, that takes questions about files and does not answer.
#[tokio::test]
async fn a_hub_that_does_not_answer_is_given_up() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let hub = Hub::builder().endpoint(&stand_in.url).cache_dir(cache.path()).token("t0ken").offline(false);
    let hub = hub.timeout(Duration::from_millis(300)).build().unwrap();
    let began = Instant::now();
    let error = hub.snapshot("org/silent", None, MODEL_FILES, quiet).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("org/silent: cannot reach {}: ", stand_in.url)), "{error}");
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    let asked = stand_in.take_requests();
    assert!(asked.iter().any(|request| request.starts_with("GET /org/silent/resolve/")), "{asked:?}");
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
    child
        .args(["--exact", "child"])
        .env(CHILD, "")
        .env("HF_ENDPOINT", format!("{}/ ", stand_in.url))
        .env("HF_HUB_CACHE", cache);
    child.env("HF_TOKEN", " t0ken\r\n").env("HF_HUB_OFFLINE", "0").stdout(std::process::Stdio::null()).spawn().unwrap()
}

/// By the system, or as a service is stopped. Ctrl-C ends a program likewise, but shells have it ignored in the background, where
/// tests may run.
#[tokio::test]
async fn a_killed_download_loses_nothing_and_leaves_nothing_half_written() {
    for signal in ["-KILL", "-TERM"] {
        let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
        let mut child = download_in_a_process(&stand_in, cache.path());
        let part = part(cache.path(), "slow");
        while std::fs::metadata(&part).map_or(0, |found| found.len()) < 20_000 {
            assert!(child.try_wait().unwrap().is_none(), "the download ended before it could be killed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match cfg!(unix) {
            true => drop(std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap()),
            false => child.kill().unwrap(),
        }
        child.wait().unwrap();
        let there = std::fs::metadata(&part).unwrap().len();

        let offline = Hub::builder().cache_dir(cache.path()).offline(true).build().unwrap();
        let error = offline.snapshot("org/slow", None, MODEL_FILES, quiet).await.unwrap_err().to_string();
        assert!(error.contains("in the cache"), "{error}");
        stand_in.take_requests();
        assert!(is_whole(&stand_in.hub(cache.path()).snapshot("org/slow", None, MODEL_FILES, quiet).await.unwrap()));
        assert_eq!(ranges(&stand_in.take_requests()), [format!("{there}-299999")]);
    }
}

/// The variable is named that holds no address.
#[test]
fn an_endpoint_that_is_no_address_is_named() {
    for endpoint in ["127.0.0.1:9", "localhost", "huggingface.co/", "ftp://huggingface.co", "http://"] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "child"]).env(CHILD, "").env("HF_ENDPOINT", endpoint).env("HF_HUB_OFFLINE", "0");
        let output = child.output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(!output.status.success() && text.contains("HF_ENDPOINT: expected an address"), "{endpoint}: {text}");
    }
}

#[tokio::test]
async fn processes_that_download_the_same_model_do_it_once() {
    let (stand_in, cache) = (StandIn::start(), tempfile::tempdir().unwrap());
    let mut children = [(); 2].map(|()| download_in_a_process(&stand_in, cache.path()));
    let folder = stand_in.hub(cache.path()).snapshot("org/slow", None, MODEL_FILES, quiet).await.unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), files()["model.safetensors"]);
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    let is_large = |request: &&String| request.starts_with("CDN GET /org/slow/model.safetensors");
    assert_eq!(stand_in.take_requests().iter().filter(is_large).count(), 1);
}
