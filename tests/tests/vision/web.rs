//! Images and videos by address, and servers that are not to be trusted.

use super::{folder, image, load, on_runtime};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use std::{
    env, fs,
    io::{Read, Write},
    net::TcpListener,
    process::Command,
};
use tamarack::{ChatSession, Device, GenerateParameters, Image, LmInput, ModelContainer, Result, UserInput, Video};
use tamarack_tests::tls::TlsServer;

/// Names an image to `child`.
const CHILD: &str = "TAMARACK_TEST_IMAGE";

pub fn data_url(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", STANDARD.encode(bytes))
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A server on this machine that answers one request after the other.
fn serve(answers: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut read = [0; 4096];
            let _ = stream.read(&mut read).unwrap();
            // Who has enough hangs up.
            let _ = stream.write_all(&answer);
        }
    });
    address
}

/// A turn with a part that names an address.
async fn ask(container: &ModelContainer, kind: &str, url: &str) -> Result<LmInput> {
    let mut part = json!({ "type": format!("{kind}_url") });
    part[format!("{kind}_url")] = json!({ "url": url });
    container.prepare(UserInput::messages([json!({ "role": "user", "content": [part] })])).await
}

/// The same turn with a file.
async fn with_file(container: &ModelContainer) -> LmInput {
    let turn = json!({ "role": "user", "content": [] });
    container.prepare(UserInput::messages([turn]).image(image("cat.png"))).await.unwrap()
}

#[test]
fn images_of_the_web_are_fetched() {
    let cat = fs::read(image("cat.png")).unwrap();
    let cut = answer("200 OK", &cat[..cat.len() / 2]);
    let large = answer("200 OK", &vec![0; (64 << 20) + 1]);
    let answers = vec![answer("200 OK", &cat), answer("404 Not Found", b"no"), answer("200 OK", b"no"), cut, large];
    let url = serve(answers) + "/cat.png";
    on_runtime(async {
        let container = load("qwen2_vl", Device::Reference).await;
        assert_eq!(ask(&container, "image", &url).await.unwrap(), with_file(&container).await);
        for expected in ["404 Not Found", "expected a JPEG", "damaged", "expected a file of at most 64 MiB"] {
            let e = ask(&container, "image", &url).await.unwrap_err().to_string();
            assert!(e.starts_with(&format!("{url}: ")) && e.contains(expected), "{e}");
        }
        let e = ask(&container, "image", "http://127.0.0.1:1/cat.png").await.unwrap_err().to_string();
        assert!(e.starts_with("http://127.0.0.1:1/cat.png: Connection refused"), "{e}");
    });
}

#[test]
fn videos_have_addresses_too() {
    let pan = fs::read(folder("films/pan.webp")).unwrap();
    let url = serve(vec![answer("200 OK", &pan), answer("200 OK", &pan), answer("200 OK", b"\0\0\0\x18ftypmp42")]);
    on_runtime(async {
        let container = load("qwen2_vl", Device::Reference).await;
        let video = async |video: Video| container.prepare(UserInput::from("?").video(video)).await;
        let expected = video(folder("films/pan.webp").into()).await.unwrap();
        assert_eq!(video(Video::parse(&url)).await.unwrap(), expected);
        let data = data_url("image/webp", &pan);
        assert_eq!(video(Video::parse(&data)).await.unwrap(), expected);
        let named = ask(&container, "video", &url).await.unwrap();
        assert_eq!(named.media, ask(&container, "video", &data).await.unwrap().media);
        assert_eq!(named.media.unwrap().images.len(), expected.media.unwrap().images.len());
        let e = ask(&container, "video", &url).await.unwrap_err().to_string();
        assert!(e.starts_with(&format!("{url}: ")) && e.contains("other videos become frames by `ffmpeg"), "{e}");
        let e = video(Video::parse("data:image/gif;base64,???")).await.unwrap_err().to_string();
        assert!(e.starts_with("data:image/gif;base64,???: expected data in base64"), "{e}");
    });
}

/// An address is asked once, however many turns follow.
#[test]
fn a_conversation_keeps_what_it_fetched() {
    let url = serve(vec![answer("200 OK", &fs::read(image("cat.png")).unwrap())]);
    on_runtime(async {
        let parameters = GenerateParameters { max_tokens: Some(2), ..GenerateParameters::default() };
        let mut session = ChatSession::new(load("qwen2_vl", Device::Reference).await).parameters(parameters);
        session.add_image(Image::parse(&url));
        session.respond("What is it?").await.unwrap();
        session.respond("And what color?").await.unwrap();
        assert_eq!(session.turns().len(), 4);
    });
}

#[test]
fn a_server_is_trusted_if_someone_vouches_for_it() {
    let server = TlsServer::start(answer("200 OK", &fs::read(image("cat.png")).unwrap()));
    let url = format!("{}/cat.png", server.url);
    on_runtime(async {
        let container = load("qwen2_vl", Device::Reference).await;
        let e = ask(&container, "image", &url).await.unwrap_err().to_string();
        assert!(e.starts_with(&format!("{url}: invalid peer certificate: UnknownIssuer; trusted are the ")), "{e}");
    });
    let child = |trusted: &str| {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "web::child"]).env(CHILD, &url).env("SSL_CERT_FILE", trusted).env_remove("SSL_CERT_DIR");
        let output = child.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // Elsewhere a system's own certificates alone count.
    if cfg!(target_os = "linux") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("certificate.pem");
        fs::write(&path, &server.certificate).unwrap();
        let (fetched, said) = child(path.to_str().unwrap());
        assert!(fetched && said.contains("1 passed"), "{said}");
        let (fetched, said) = child("/nowhere.pem");
        assert!(
            !fetched && said.contains("No CA certificates were loaded from the system; trusted are the "),
            "{said}"
        );
    }
}

/// Not a test: fetches an image in a process with an environment of its own.
#[test]
fn child() {
    let Some(url) = env::var_os(CHILD) else { return };
    on_runtime(async {
        let container = load("qwen2_vl", Device::Reference).await;
        let found = ask(&container, "image", url.to_str().unwrap()).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(found, with_file(&container).await);
    });
}
