//! Images and videos by address.

use super::{Image, Video, VideoSource, decode::MAX_BYTES};
use crate::{Error, Result, web};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::time::Duration;

/// Until a server has to have sent all of a file.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Whether a text is an address, and not a path.
pub(crate) fn is_address(text: &str) -> bool {
    text.starts_with("data:") || is_of_the_web(text)
}

fn is_of_the_web(url: &str) -> bool {
    url.starts_with("https:") || url.starts_with("http:")
}

/// What an address is called in errors: it may be an image in base64.
pub(super) fn name(url: &str) -> String {
    url.chars().take(80).collect()
}

/// What a `data:` URL holds.
pub(super) fn data(url: &str) -> Result<Vec<u8>> {
    let name: String = url.chars().take(40).collect();
    let wrong = |what: String| Error::file(&name, what);
    let Some(rest) = url.strip_prefix("data:") else {
        return Err(wrong("expected an address that begins with data:, https: or http:".to_owned()));
    };
    let (head, data) = rest.split_once(',').ok_or_else(|| wrong("expected data after a comma".to_owned()))?;
    if !head.ends_with(";base64") {
        return Err(wrong("expected data in base64".to_owned()));
    }
    STANDARD.decode(data.trim()).map_err(|e| wrong(format!("expected data in base64: {e}")))
}

/// Gets an image's bytes if it is one of the web.
pub(crate) async fn fetch_image(image: &mut Image) -> Result<()> {
    if let Image::Url(url) = image
        && is_of_the_web(url)
    {
        *image = Image::Named(name(url), fetch(url).await?);
    }
    Ok(())
}

/// The same of a video and its frames.
pub(crate) async fn fetch_video(video: &mut Video) -> Result<()> {
    match &mut video.source {
        VideoSource::Url(url) if is_of_the_web(url) => {
            video.source = VideoSource::Named(name(url), fetch(url).await?);
        }
        VideoSource::Frames(frames) => {
            for frame in frames {
                fetch_image(frame).await?;
            }
        }
        _ => {}
    }
    Ok(())
}

async fn fetch(url: &str) -> Result<Vec<u8>> {
    download(url, TIMEOUT).await.map_err(|e| Error::file(name(url), e))
}

async fn download(url: &str, timeout: Duration) -> Result<Vec<u8>, String> {
    let text = move |e: reqwest::Error| match e.is_timeout() {
        true => format!("expected all of it within {} seconds", timeout.as_secs_f32()),
        false => web::cause(&e.without_url()),
    };
    let client = reqwest::Client::builder().timeout(timeout).build().map_err(text)?;
    let mut response = client.get(url).send().await.and_then(|r| r.error_for_status()).map_err(text)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(text)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("expected a file of at most {} MiB, found more", MAX_BYTES >> 20));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        thread,
        time::Instant,
    };

    /// An address at which one request is answered.
    fn serve(answer: impl FnOnce(TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/cat.png", listener.local_addr().unwrap());
        thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let _ = stream.read(&mut [0; 4096]).unwrap();
            answer(stream);
        });
        address
    }

    /// Neither does a piece now and then keep a download alive.
    #[tokio::test]
    async fn servers_that_say_nothing_or_little_are_given_up() {
        let head = b"HTTP/1.1 200 OK\r\n\r\n";
        let quiet = serve(|stream| {
            thread::sleep(Duration::from_secs(60));
            drop(stream);
        });
        let slow = serve(move |mut stream| {
            stream.write_all(head).unwrap();
            while stream.write_all(b".").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        for url in [quiet, slow] {
            let began = Instant::now();
            let e = download(&url, Duration::from_millis(500)).await.unwrap_err();
            assert_eq!(e, "expected all of it within 0.5 seconds");
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        }
    }

    /// Without a length in its head, as nobody has to tell the truth there.
    #[tokio::test]
    async fn a_server_that_does_not_end_is_cut_off() {
        let url = serve(|mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            while stream.write_all(&[7; 1 << 16]).is_ok() {}
        });
        let e = download(&url, TIMEOUT).await.unwrap_err();
        assert_eq!(e, "expected a file of at most 64 MiB, found more");
    }
}
