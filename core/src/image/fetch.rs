//! Images by address.

use super::{Image, decode::MAX_BYTES};
use crate::{Error, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::time::Duration;

/// Until a server has to have sent all of an image.
const TIMEOUT: Duration = Duration::from_secs(30);

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

/// The same image, its bytes at hand if it is one of the web.
pub(super) async fn fetched(image: Image) -> Result<Image> {
    match &image {
        Image::Url(url) if url.starts_with("https:") || url.starts_with("http:") => {
            download(url).await.map(Image::Bytes).map_err(|e| Error::file(image.name(), e))
        }
        _ => Ok(image),
    }
}

async fn download(url: &str) -> Result<Vec<u8>, String> {
    let text = |e: reqwest::Error| e.without_url().to_string();
    let client = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(text)?;
    let mut response = client.get(url).send().await.and_then(|r| r.error_for_status()).map_err(text)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(text)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("expected an image of at most {} MiB, found more", MAX_BYTES >> 20));
        }
    }
    Ok(bytes)
}
