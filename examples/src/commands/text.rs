//! Text that users give in files and pipes.

use anyhow::anyhow;
use std::{fs, path::Path};

/// The text of a file.
pub fn read(path: &Path) -> anyhow::Result<String> {
    fs::read(path).map_err(anyhow::Error::from).and_then(decoded).map_err(|e| anyhow!("{}: {e}", path.display()))
}

/// Text in UTF-8, or in UTF-16 as editors and shells of Windows write it. The byte order mark, which tells that, is no part of it
/// (<https://www.unicode.org/faq/utf_bom.html>).
pub fn decoded(bytes: Vec<u8>) -> anyhow::Result<String> {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, odd) = rest.as_chunks();
        let text = String::from_utf16(&pairs.iter().map(|pair| unit(*pair)).collect::<Vec<u16>>());
        text.ok()
            .filter(|_| odd.is_empty())
            .ok_or_else(|| anyhow!("expected text in UTF-16, as its byte order mark says"))
    };
    match &bytes[..] {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => Ok(std::str::from_utf8(rest)?.to_owned()),
        _ => String::from_utf8(bytes).map_err(|e| anyhow!("expected text in UTF-8: {}", e.utf8_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_text() {
        let text = |bytes: &[u8]| decoded(bytes.to_vec()).map_err(|e| e.to_string());
        for bytes in [
            "hi, ä".as_bytes(),
            "\u{feff}hi, ä".as_bytes(),
            b"\xff\xfeh\0i\0,\0 \0\xe4\0",
            b"\xfe\xff\0h\0i\0,\0 \0\xe4",
        ] {
            assert_eq!(text(bytes).as_deref(), Ok("hi, ä"), "{bytes:?}");
        }
        assert_eq!(text(b"").as_deref(), Ok(""));
        // One that comes later is a character like others.
        assert_eq!(text("\u{feff}\u{feff}hi".as_bytes()).as_deref(), Ok("\u{feff}hi"));
        assert_eq!(
            text(b"ok \xff").unwrap_err(),
            "expected text in UTF-8: invalid utf-8 sequence of 1 bytes from index 3"
        );
        for broken in [&b"\xff\xfeh"[..], b"\xff\xfe\0\xd8"] {
            assert_eq!(text(broken).unwrap_err(), "expected text in UTF-16, as its byte order mark says");
        }
    }
}
