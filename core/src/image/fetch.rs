//! Images and videos of the web.

use super::{
    Image, Video, VideoSource,
    address::{is_of_the_web, name},
    decode::MAX_BYTES,
};
use crate::{Error, Result, web};
use std::time::Duration;

/// Until a server has to have sent all of a file.
const TIMEOUT: Duration = Duration::from_secs(30);

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
    let client = reqwest::Client::builder().user_agent(web::AGENT).timeout(timeout).build().map_err(text)?;
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

    /// The first request is redirected to a server of its own.
    #[tokio::test]
    async fn every_request_says_whose_it_is() {
        let (send, seen) = std::sync::mpsc::channel();
        let serve = |answer: String| {
            let (listener, send) = (TcpListener::bind("127.0.0.1:0").unwrap(), send.clone());
            let address = format!("http://{}/cat.png", listener.local_addr().unwrap());
            thread::spawn(move || {
                let (mut stream, mut request) = (listener.accept().unwrap().0, [0; 4096]);
                let length = stream.read(&mut request).unwrap();
                send.send(String::from_utf8_lossy(&request[..length]).to_lowercase()).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            address
        };
        let cat = serve("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmeow".to_owned());
        let moved = serve(format!("HTTP/1.1 302 Found\r\nLocation: {cat}\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(download(&moved, TIMEOUT).await.unwrap(), b"meow");
        for request in [seen.recv().unwrap(), seen.recv().unwrap()] {
            assert!(request.contains(&format!("\r\nuser-agent: {}\r\n", web::AGENT)), "{request}");
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
