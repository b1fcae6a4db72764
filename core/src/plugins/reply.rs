//! A bound on what a plugin replies, before anything is made of it: a few bytes of JSON can become many of memory.

/// Bytes of a reply: twice what the largest graph takes that is allowed.
const MAX_BYTES: usize = 64 << 20;
/// Numbers, strings, arrays and objects of a reply. The largest graph that is allowed has half as many.
const MAX_VALUES: usize = 1 << 23;
/// Arrays and objects within each other.
const MAX_DEPTH: usize = 64;
/// Characters of an error message.
const MAX_MESSAGE: usize = 1000;

/// How errors about a reply begin.
pub const REPLY: &str = "its reply to ";

/// Checks the size of a reply to an entry, and how much its JSON holds. Whether it is JSON, its reader will find.
///
/// # Errors
/// What there is too much of.
pub fn check(entry: &str, reply: &[u8]) -> Result<(), String> {
    let over = |most: usize, what: &str, found: String| {
        Err(format!(
            "{REPLY}`{entry}`: expected at most {most} {what}, found {found}: ask the plugin's author to mend it"
        ))
    };
    if reply.len() > MAX_BYTES {
        return over(MAX_BYTES, "bytes", reply.len().to_string());
    }
    // The reply of a plain form is numbers.
    if entry == "plain" {
        return Ok(());
    }
    let (mut values, mut depth, mut is_text, mut is_escaped) = (0, 0usize, false, false);
    for byte in reply {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            _ if is_text => {}
            b'[' | b'{' => (values, depth) = (values + 1, depth + 1),
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return over(MAX_DEPTH, "levels of arrays and objects", "more".to_owned());
        }
        if values > MAX_VALUES {
            return over(MAX_VALUES, "values", "more".to_owned());
        }
    }
    Ok(())
}

/// An error message that quotes a plugin, cut where it is too long to read.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}.. ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_bounded_in_size_depth_and_number() {
        let check = |reply: &str| check("record", reply.as_bytes());
        for fine in ["", "{}", "]]]]", "\"[[[[\\\"", &format!("[\"{}\"]", "[{,\\\"".repeat(5000))] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        for (reply, expected) in [
            ("[".repeat(65), "`record`: expected at most 64 levels of arrays and objects, found more: ask"),
            ("{\"a\":".repeat(1 << 20), "`record`: expected at most 64 levels of arrays and objects, found more: ask"),
            (format!("[{}0]", "0,".repeat(1 << 23)), "`record`: expected at most 8388608 values, found more: ask"),
            (" ".repeat((64 << 20) + 1), "`record`: expected at most 67108864 bytes, found 67108865: ask"),
        ] {
            let e = check(&reply).unwrap_err();
            assert!(e.strip_prefix(REPLY).is_some_and(|e| e.starts_with(expected)), "{e}");
        }
        assert_eq!(super::check("plain", &b"[".repeat(100)), Ok(()), "numbers are no JSON");
        assert_eq!(cut("no"), "no");
        let long = cut(&"ü".repeat(1 << 20));
        assert!(long.len() < 3000 && long.ends_with("ü.. (2097152 bytes)"), "{}", long.len());
    }
}
