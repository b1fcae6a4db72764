//! Settings that come from the environment, read as `huggingface_hub` reads them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::{Error, Result};

const ENDPOINT: &str = "https://huggingface.co";

/// The access token: `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, or the file that `hf auth login` writes.
pub(super) fn token() -> Result<Option<HeaderValue>> {
    if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return Ok(None);
    }
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(token) = set(name).and_then(|value| clean(&value)) {
            return authorization(name, &token).map(Some);
        }
    }
    let path = set("HF_TOKEN_PATH").map_or_else(|| home().join("token"), |path| expand(&path));
    match std::fs::read_to_string(&path).ok().and_then(|text| clean(&text)) {
        Some(token) => authorization(&path.display().to_string(), &token).map(Some),
        None => Ok(None),
    }
}

/// A token without line breaks and the white space around it, as `_clean_token` in `huggingface_hub/utils/_auth.py` has it;
/// `None` if nothing is left.
pub(super) fn clean(token: &str) -> Option<String> {
    let is_blank = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '\u{feff}' | '\u{200b}');
    let token = token.replace(['\r', '\n'], "");
    let token = token.trim_matches(is_blank);
    (!token.is_empty()).then(|| token.to_owned())
}

/// The header that carries a token; `from` says where the token is from.
pub(super) fn authorization(from: &str, token: &str) -> Result<HeaderValue> {
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    let header = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| is_plain);
    let mut header = header.ok_or_else(|| {
        Error::Hub(format!(
            "{from}: expected an access token of ASCII letters, digits and `_`, found another character in it; copy the token \
             again from {ENDPOINT}/settings/tokens"
        ))
    })?;
    header.set_sensitive(true);
    Ok(header)
}

/// The address of the hub: `given`, or `HF_ENDPOINT`, or the public one. It does not end in a slash.
pub(super) fn endpoint(given: Option<&str>) -> Result<String> {
    let from_environment = set("HF_ENDPOINT");
    let (from, address) = match (given, &from_environment) {
        (Some(given), _) => ("the hub's endpoint", given),
        (None, Some(value)) => ("HF_ENDPOINT", value.as_str()),
        (None, None) => return Ok(ENDPOINT.to_owned()),
    };
    let address = address.trim().trim_end_matches('/');
    let fail = |why: &str| {
        Error::Hub(format!(
            "{from}: expected an address that begins with http:// or https://, such as {ENDPOINT}, found `{address}`{why}"
        ))
    };
    let scheme = address.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !matches!(scheme.as_deref(), Some("http" | "https")) {
        return Err(fail(""));
    }
    match Url::parse(address) {
        Ok(url) if url.query().is_none() && url.fragment().is_none() => Ok(address.to_owned()),
        Ok(_) => Err(fail(", with a query or a fragment")),
        Err(error) => Err(fail(&format!(": {error}"))),
    }
}

/// The folder of the cache.
pub(super) fn cache_dir() -> PathBuf {
    let set = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE"));
    set.map_or_else(|| home().join("hub"), |path| expand(&path))
}

pub(super) fn timeout() -> Option<Duration> {
    let seconds: f64 = set("HF_HUB_DOWNLOAD_TIMEOUT")?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero())
}

/// Whether a variable holds one of the values that `huggingface_hub` takes for true.
pub(super) fn is_true(name: &str) -> bool {
    matches!(set(name).unwrap_or_default().to_lowercase().as_str(), "1" | "on" | "yes" | "true")
}

/// The folder that holds the cache and the token.
fn home() -> PathBuf {
    match (set("HF_HOME"), set("XDG_CACHE_HOME")) {
        (Some(home), _) => expand(&home),
        (None, Some(cache)) => expand(&cache).join("huggingface"),
        (None, None) => expand("~/.cache/huggingface"),
    }
}

/// A path whose `~` stands for the user's folder.
fn expand(path: &str) -> PathBuf {
    let user = || set("HOME").or_else(|| set("USERPROFILE")).unwrap_or_else(|| "/tmp".to_owned());
    match path.strip_prefix('~') {
        Some("") => user().into(),
        Some(rest) if rest.starts_with(['/', '\\']) => Path::new(&user()).join(&rest[1..]),
        _ => path.into(),
    }
}

/// The value of a variable without white space around it, if anything is left.
fn set(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_lose_white_space_of_every_sort() {
        for text in [
            "hf_x",
            "hf_x\n",
            "hf_x\r\n",
            "  hf_x\t",
            "\u{a0}hf_x\u{2003}",
            "\u{feff}hf_x",
            "hf\n_x",
            "hf_x\u{b}\u{1f}",
        ] {
            assert_eq!(clean(text).as_deref(), Some("hf_x"), "{text:?}");
        }
        for text in ["", " ", "\n", "\u{a0}\t"] {
            assert_eq!(clean(text), None, "{text:?}");
        }
        for token in ["hf x", "hf_ä", "hf\u{0}x"] {
            let error = authorization("HF_TOKEN", token).unwrap_err().to_string();
            assert!(error.starts_with("HF_TOKEN: expected an access token") && !error.contains(token), "{error}");
        }
        assert!(!format!("{:?}", authorization("HF_TOKEN", "hf_secret").unwrap()).contains("secret"));
    }

    #[test]
    fn endpoints_are_addresses() {
        for (given, wanted) in [
            ("https://hf.example", "https://hf.example"),
            ("https://hf.example/", "https://hf.example"),
            (" http://127.0.0.1:9/hub// \n", "http://127.0.0.1:9/hub"),
            ("HTTPS://hf.example", "HTTPS://hf.example"),
        ] {
            assert_eq!(endpoint(Some(given)).unwrap(), wanted);
        }
        for given in [
            "127.0.0.1:9",
            "hf.example",
            "localhost:80",
            "//hf.example",
            "https//x",
            "ftp://x",
            "http://",
            "http://a b",
            "https://x?y",
            "file:///x",
        ] {
            let error = endpoint(Some(given)).unwrap_err().to_string();
            assert!(
                error.contains("begins with http:// or https://") && error.contains(given.trim_end_matches('/')),
                "{error}"
            );
        }
    }
}
