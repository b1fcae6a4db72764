//! What users and conversations write for an image or a video: a path, or an address.

use crate::{Error, Result};
use data_url::{DataUrl, DataUrlError};
use reqwest::Url;
use std::path::PathBuf;

/// Where something is.
#[derive(Debug, PartialEq)]
pub(super) enum Address {
    /// A file or folder of this machine.
    Local(PathBuf),
    /// An address of another kind.
    Url(String),
}

/// What a user wrote.
pub(super) fn parse(text: &str) -> Address {
    if has_scheme(text, "file") {
        let path = Url::parse(text.trim()).ok().and_then(|url| url.to_file_path().ok());
        // What names no file of this machine is refused as an address, where it is read.
        return path.map_or_else(|| Address::Url(text.trim().to_owned()), Address::Local);
    }
    if is_address(text) { Address::Url(text.trim().to_owned()) } else { Address::Local(text.into()) }
}

/// Whether a text is the address of an image or a video, and not a path. A `file:` address is not one: conversations may come
/// from elsewhere, and do not say which files of this machine are read.
pub(crate) fn is_address(text: &str) -> bool {
    has_scheme(text, "data") || is_of_the_web(text)
}

pub(super) fn is_of_the_web(url: &str) -> bool {
    has_scheme(url, "https") || has_scheme(url, "http")
}

/// Whether a text begins with a scheme, whose case does not matter (RFC 3986, 3.1).
fn has_scheme(text: &str, scheme: &str) -> bool {
    text.trim_start().split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(scheme))
}

/// What an address is called in errors: it may be an image in base64, broken into lines.
pub(super) fn name(url: &str) -> String {
    let most = if has_scheme(url, "data") { 40 } else { 80 };
    url.chars().filter(|c| !c.is_control()).take(most).collect()
}

/// What a `data:` URL holds, decoded as the standards of the web have it (<https://fetch.spec.whatwg.org/#data-urls>,
/// <https://infra.spec.whatwg.org/#forgiving-base64>): white space and padding are of no account, and any byte may be
/// percent-encoded. The URL-safe alphabet of base64 is understood as well, which the standards leave out.
pub(super) fn data(url: &str) -> Result<Vec<u8>> {
    let wrong = |what: String| Error::file(name(url), what);
    if has_scheme(url, "file") {
        return Err(wrong("expected a file: address with the absolute path of a file of this machine".to_owned()));
    }
    let parsed = DataUrl::process(url).map_err(|e| match e {
        DataUrlError::NotADataUrl => wrong("expected an address that begins with data:, https: or http:".to_owned()),
        DataUrlError::NoComma => wrong("expected data after a comma".to_owned()),
    })?;
    let bytes = |url: DataUrl<'_>| url.decode_to_vec().map(|(bytes, _)| bytes);
    let decoded = bytes(parsed).or_else(|e| {
        let standard = standard_alphabet(url);
        DataUrl::process(&standard).ok().and_then(|url| bytes(url).ok()).ok_or(e)
    });
    decoded.map_err(|e| wrong(format!("expected data in base64: {e}")))
}

/// A `data:` URL with its data in the standard alphabet of base64 in place of the URL-safe one (RFC 4648, 5).
fn standard_alphabet(url: &str) -> String {
    let (head, data) = url.split_once(',').unwrap_or((url, ""));
    format!("{head},{}", data.replace('-', "+").replace('_', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_decoded_as_the_standards_have_it() {
        let bytes = b"\xfb\xef\xbe, \xff\xfe";
        for url in [
            "data:image/png;base64,++++LCD//g==",
            "data:image/png;base64,++++LCD//g",
            "data:image/png;base64,++++\nLCD/\r\n/g==\n",
            "data:image/png;base64, ++++ LCD/\t/g = = ",
            "data:image/png;base64,%2B%2B%2b%2BLCD%2F%2Fg%3D%3D",
            "data:image/png;base64,%20++++LCD//g==%0A",
            "data:image/png;base64,----LCD__g==",
            "data:image/png;base64,----LCD__g",
            "data:image/png;charset=utf-8;base64,++++LCD//g==",
            "data:image/png; charset=\"utf-8\" ; base64,++++LCD//g==",
            "data:;base64,++++LCD//g==",
            "data:nonsense;base64,++++LCD//g==",
            "DATA:IMAGE/PNG;BASE64,++++LCD//g==",
            "  data:image/png;base64,++++LCD//g==#fragment",
            "data:image/png,%fb%ef%be, %ff%FE",
            "data:,%fb%ef%be,%20%ff%fe",
        ] {
            assert_eq!(data(url).unwrap_or_else(|e| panic!("{e}")), bytes, "{url}");
        }
        assert_eq!(data("data:,").unwrap(), b"");
    }

    #[test]
    fn what_is_no_data_is_said() {
        for (url, expected) in [
            ("data:image/png;base64", "expected data after a comma"),
            ("data:image/png;base64,A", "expected data in base64: "),
            ("data:image/png;base64,AA=A", "expected data in base64: "),
            ("data:image/png;base64,AAA*", "expected data in base64: "),
            ("ftp://host/cat.png", "expected an address that begins with data:, https: or http:"),
            ("file:///tmp/cat.png", "expected a file: address with"),
        ] {
            let e = data(url).unwrap_err().to_string();
            assert!(e.contains(expected), "{url}: {e}");
        }
        assert_eq!(name("data:a\nb,c"), "data:ab,c");
    }

    #[test]
    fn addresses_and_paths_are_told_apart() {
        let url = |text: &str| Address::Url(text.to_owned());
        for (text, expected) in [
            ("cat.png", Address::Local("cat.png".into())),
            (" cat.png", Address::Local(" cat.png".into())),
            ("data.png", Address::Local("data.png".into())),
            ("C:\\cats\\cat.png", Address::Local("C:\\cats\\cat.png".into())),
            ("HTTPS://host/cat.png", url("HTTPS://host/cat.png")),
            ("\nhttp://host/cat.png ", url("http://host/cat.png")),
            ("Data:,x", url("Data:,x")),
            ("file://server/cat.png", url("file://server/cat.png")),
        ] {
            // On Windows this is a file of another machine, which the system gets.
            if !(cfg!(windows) && text.contains("server")) {
                assert_eq!(parse(text), expected, "{text}");
            }
        }
        assert!(!is_address("file:///cat.png"), "conversations do not read files");
    }

    #[test]
    fn file_addresses_are_paths() {
        let drive = if cfg!(windows) { "/C:" } else { "" };
        for (authority, written, path) in [
            ("file://", "/cats/cat.png", "/cats/cat.png"),
            ("FILE://", "/cats/cat.png", "/cats/cat.png"),
            ("file:", "/cats/cat.png", "/cats/cat.png"),
            ("file://localhost", "/cats/cat.png", "/cats/cat.png"),
            ("file://", "/cats/a%20cat.png", "/cats/a cat.png"),
            ("file://", "/cats/a cat.png", "/cats/a cat.png"),
            ("file://", "/cats/k%C3%A4tzchen.png", "/cats/kätzchen.png"),
            ("file://", "/cats/kätzchen.png", "/cats/kätzchen.png"),
            ("file://", "/cats/100%25.png", "/cats/100%.png"),
            ("file://", "/dogs/../cats/cat.png", "/cats/cat.png"),
        ] {
            let path = format!("{}{path}", drive.trim_start_matches('/'));
            assert_eq!(
                parse(&format!("{authority}{drive}{written}")),
                Address::Local(path.into()),
                "{authority}{written}"
            );
        }
    }
}
