//! Python's ideas about text where Rust's differ.

use minijinja::Error;

use super::python::type_error;

/// Checks that cutting `text` into pieces, each a value, stays within memory.
pub(super) fn check_pieces(text: &str) -> Result<(), Error> {
    const MAX: usize = 8 << 20;
    if text.len() <= MAX {
        return Ok(());
    }
    Err(type_error(format!("a text of {} bytes is too long to be cut up", text.len())))
}

/// The lines of `text`, split where `str.splitlines` does; their ends are kept on demand.
pub(super) fn split_lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let breaks = matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
        if !breaks {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && chars.next_if(|&(_, next)| next == '\n').is_some() {
            end += 1;
        }
        lines.push(&text[start..if keep_ends { end } else { at }]);
        start = end;
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}

/// `str.isspace` of one character: Unicode's white space and four separators of ASCII.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `str.capitalize`: the first character upper, all others lower case.
pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.as_str().to_lowercase().chars()).collect()
}

/// `str.title`: a capital after every character that is not a letter.
pub(super) fn title(text: &str) -> String {
    title_after(text, |c| !c.is_alphabetic())
}

/// The filter `title`, which begins words after white space and `-({[<` only.
pub(super) fn title_filter(text: &str) -> String {
    title_after(text, |c| is_space(c) || "-({[<".contains(c))
}

fn title_after(text: &str, separates: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        start = separates(c);
    }
    out
}

/// `str.swapcase`.
pub(super) fn swap_case(text: &str) -> String {
    let swapped =
        |c: char| -> String { if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() } };
    text.chars().map(swapped).collect()
}

/// `str.istitle`: capitals only behind what has no case, small letters only behind letters.
pub(super) fn is_title(text: &str) -> bool {
    let (mut in_word, mut any) = (false, false);
    for c in text.chars() {
        let fits = if c.is_uppercase() { !in_word } else { !c.is_lowercase() || in_word };
        if !fits {
            return false;
        }
        in_word = c.is_uppercase() || c.is_lowercase();
        any |= in_word;
    }
    any
}

/// `str.isidentifier`, but for the rarer classes of Unicode.
pub(super) fn is_identifier(text: &str) -> bool {
    let is_start = |c: char| c.is_alphabetic() || c == '_';
    text.starts_with(is_start) && text.chars().all(|c| is_start(c) || c.is_alphanumeric())
}

/// `str.expandtabs`.
pub(super) fn expand_tabs(text: &str, size: usize) -> Result<String, Error> {
    let (mut out, mut column) = (String::new(), 0usize);
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let fill = size - column % size;
                super::python::check_length(out.len().saturating_add(fill))?;
                out.extend(std::iter::repeat_n(' ', fill));
                column = 0;
            }
            '\t' => {}
            c => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(out)
}

/// The filter `indent`: every line but the first after `indention`, empty ones only if `blank`;
/// the first one too if `first`. A final line break stays.
pub(super) fn indent(text: &str, indention: &str, first: bool, blank: bool) -> String {
    let closed = format!("{text}\n");
    let mut out = String::with_capacity(text.len() + indention.len());
    for (index, line) in split_lines(&closed, false).into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(indention);
        }
        out.push_str(line);
    }
    out
}

/// `str.ljust`, `str.rjust` and `str.center`: `text` in the middle of as many `fill`s as make it
/// `width` characters long; `left` says how many of a number of them come first.
pub(super) fn pad(text: &str, width: usize, fill: char, left: fn(usize) -> usize) -> Result<String, Error> {
    const MAX: usize = 10_000;
    if width > MAX {
        return Err(type_error(format!("expected a width of at most {MAX}, found {width}")));
    }
    let fills = width.saturating_sub(text.chars().count());
    let fill = |count| std::iter::repeat_n(fill, count);
    Ok(fill(left(fills)).chain(text.chars()).chain(fill(fills - left(fills))).collect())
}

/// `markupsafe.escape`.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_titles_are_pythons() {
        assert_eq!(split_lines("a\r\nb\u{2028}\nc\n", false), ["a", "b", "", "c"]);
        assert_eq!(split_lines("a\r\nb\r", true), ["a\r\n", "b\r"]);
        assert_eq!(title("they're bill's"), "They'Re Bill'S");
        assert_eq!(title_filter("they're a-b (cD)"), "They're A-B (Cd)");
        assert_eq!(capitalize("éCOLE"), "École");
        assert_eq!(indent("a\n\nb\n", "  ", false, false), "a\n\n  b\n");
        assert_eq!(indent("a\n\nb", "  ", true, true), "  a\n  \n  b");
    }
}
