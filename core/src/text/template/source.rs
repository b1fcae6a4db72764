//! Adapts the source of a template where minijinja's language differs from that of transformers.
//!
//! Whitespace marks stay, and with them trimming and line numbers:
//! - `{% generation %}` (transformers' own tag, it marks what the assistant said) becomes a block
//!   that is always entered;
//! - the iterable of `for` goes through [`ITERABLE`], because Python refuses to iterate over `None`
//!   and minijinja does not. Templates use that as their way to insist on tools or documents;
//! - a printed sum with `|safe` operands goes through [`MARKUP_SUM`], because adding to safe text
//!   escapes the other operand in Python, whether or not escaping is on;
//! - `%` becomes a filter, because it formats texts in Python: see [`modulo`].

use super::modulo;

/// The filter that every iterated value passes.
pub(super) const ITERABLE: &str = "__iterable__";
/// The filter that adds its arguments to safe text.
pub(super) const MARKUP_SUM: &str = "__markup_sum__";

/// `source`, adapted. Line ends become those of Unix, as jinja2 does.
pub(super) fn adapt(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut adapted = String::with_capacity(source.len() + 256);
    let mut rest = source.as_str();
    while let Some(start) = rest.find('{') {
        let (before, at) = rest.split_at(start);
        adapted.push_str(before);
        let end = match at.as_bytes().get(1) {
            Some(b'#') => at.find("#}").map(|end| end + 2),
            Some(b'{') => tag_end(at, "}}"),
            Some(b'%') => tag_end(at, "%}"),
            _ => Some(1),
        };
        // An unclosed tag is left to the compiler to report.
        let (tag, after) = at.split_at(end.unwrap_or(at.len()));
        rest = after;
        if is_closed(tag, "{{", "}}") {
            adapted.push_str(&adapt_expression(&with_modulo(tag)));
        } else if is_closed(tag, "{%", "%}") {
            adapted.push_str(&adapt_block(&with_modulo(tag)));
            if body(tag).1.trim() == "raw" {
                let end = end_of_raw(rest);
                adapted.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        } else {
            adapted.push_str(tag);
        }
    }
    adapted + rest
}

fn is_closed(tag: &str, open: &str, close: &str) -> bool {
    tag.len() >= 4 && tag.starts_with(open) && tag.ends_with(close)
}

/// The length of the tag at the start of `text`, closing mark included. Marks inside of string
/// literals do not close it.
fn tag_end(text: &str, close: &str) -> Option<usize> {
    let mut inside = outside_strings(text).map(|(index, _)| index).skip_while(|&index| index < 2);
    inside.find(|&index| text[index..].starts_with(close)).map(|index| index + close.len())
}

/// The characters of `text` that are not part of a string literal, with their byte positions.
pub(super) fn outside_strings(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    let mut escaped = false;
    text.char_indices().filter(move |&(_, c)| match quote {
        Some(open) => {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == open {
                quote = None;
            }
            false
        }
        None if c == '"' || c == '\'' => {
            quote = Some(c);
            false
        }
        None => true,
    })
}

/// A whole tag as its opening mark, its body and its closing mark.
fn body(tag: &str) -> (&str, &str, &str) {
    let is_mark = |b: Option<&u8>| matches!(b, Some(b'-' | b'+'));
    let bytes = tag.as_bytes();
    let start = if is_mark(bytes.get(2)) { 3 } else { 2 };
    let inner_end = tag.len() - 2;
    let end = if inner_end > start && is_mark(bytes.get(inner_end - 1)) { inner_end - 1 } else { inner_end };
    (&tag[..start], &tag[start..end.max(start)], &tag[end.max(start)..])
}

fn with_modulo(tag: &str) -> String {
    let (open, inner, close) = body(tag);
    [open, &modulo::adapt(inner), close].concat()
}

fn adapt_block(tag: &str) -> String {
    let (open, inner, close) = body(tag);
    let replaced = match inner.trim() {
        "generation" => inner.replace("generation", "if true"),
        "endgeneration" => inner.replace("endgeneration", "endif"),
        words if words.starts_with("for") => match iterable_span(inner) {
            Some((start, end)) => {
                format!("{} ({})|{ITERABLE} {}", &inner[..start], inner[start..end].trim(), &inner[end..])
            }
            None => return tag.to_owned(),
        },
        _ => return tag.to_owned(),
    };
    format!("{open}{replaced}{close}")
}

fn adapt_expression(tag: &str) -> String {
    let (open, inner, close) = body(tag);
    match safe_sum(inner).as_deref() {
        Some([first, others @ ..]) => {
            format!("{open} ({first})|{MARKUP_SUM}({}) {close}", others.join(", "))
        }
        _ => tag.to_owned(),
    }
}

/// The operands of `inner`, if it is a sum and some of them are marked as safe.
fn safe_sum(inner: &str) -> Option<Vec<&str>> {
    let words = top_level_words(inner);
    let safe = words.iter().any(|&(_, word)| word == "safe");
    let other = |word| matches!(word, "if" | "and" | "or" | "not" | "in" | "is");
    if !safe || words.iter().any(|&(_, word)| other(word)) {
        return None;
    }
    let mut operands = Vec::new();
    let mut start = 0;
    for (at, c) in top_level(inner) {
        match c {
            '+' => {
                operands.push(inner[start..at].trim());
                start = at + 1;
            }
            '~' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' | ',' => return None,
            _ => {}
        }
    }
    operands.push(inner[start..].trim());
    (operands.len() > 1 && operands.iter().all(|operand| !operand.is_empty())).then_some(operands)
}

/// Where in the body of a `for` tag its iterable stands: from `in` up to a filter (`if`),
/// `recursive` or the end.
fn iterable_span(inner: &str) -> Option<(usize, usize)> {
    let mut start = None;
    for (at, word) in top_level_words(inner) {
        match (word, start) {
            ("in", None) => start = Some(at + word.len()),
            ("if" | "recursive", Some(start)) => return Some((start, at)),
            _ => {}
        }
    }
    start.map(|start| (start, inner.len()))
}

/// The words of `text` outside of strings and brackets, with their byte positions.
fn top_level_words(text: &str) -> Vec<(usize, &str)> {
    let mut words: Vec<(usize, &str)> = Vec::new();
    for (at, c) in top_level(text).filter(|&(_, c)| c.is_alphanumeric() || c == '_') {
        match words.last_mut() {
            Some((start, word)) if *start + word.len() == at => {
                *word = &text[*start..at + c.len_utf8()];
            }
            _ => words.push((at, &text[at..at + c.len_utf8()])),
        }
    }
    words
}

/// The characters of `text` outside of strings and brackets, with their byte positions.
fn top_level(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut depth = 0_i32;
    outside_strings(text).filter(move |(_, c)| {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => return depth == 0,
        }
        false
    })
}

/// How far the text after `{% raw %}` stays as it is.
fn end_of_raw(text: &str) -> usize {
    let mut from = 0;
    while let Some(start) = text[from..].find("{%").map(|at| from + at) {
        let Some(end) = text[start..].find("%}").map(|at| start + at + 2) else { break };
        if end - start >= 4 && body(&text[start..end]).1.trim() == "endraw" {
            return end;
        }
        from = start + 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::adapt;

    #[test]
    fn tags_are_adapted_and_nothing_else() {
        let cases = [
            ("{%- generation -%}x{%+ endgeneration %}", "{%- if true -%}x{%+ endif %}"),
            ("{% for x in xs %}", "{% for x in (xs)|__iterable__ %}"),
            ("{%- for a, b in m.items() if a -%}", "{%- for a, b in (m.items())|__iterable__ if a -%}"),
            ("{% for x in f(1 if y else 2) recursive %}", "{% for x in (f(1 if y else 2))|__iterable__ recursive %}"),
            ("{% for x in ' if ' %}", "{% for x in (' if ')|__iterable__ %}"),
            ("{% for x in a['%}'] %}", "{% for x in (a['%}'])|__iterable__ %}"),
            ("{# {% for x in y %} #}{{ '{% for x in y %}' }}", "{# {% for x in y %} #}{{ '{% for x in y %}' }}"),
            ("{% raw %}{% for x in y %}{%- endraw %}", "{% raw %}{% for x in y %}{%- endraw %}"),
            ("{% set format = 1 %}{ {% open", "{% set format = 1 %}{ {% open"),
            ("{{- 'a'|safe + b.c -}}", "{{- ('a'|safe)|__markup_sum__(b.c) -}}"),
            ("{{ a|safe + b if c }}{{ a|safe }}", "{{ a|safe + b if c }}{{ a|safe }}"),
            ("{% for %}{%%}{%-%}{%", "{% for %}{%%}{%-%}{%"),
            ("{% for x in y", "{% for x in y"),
            ("{{}}{{ '", "{{}}{{ '"),
            ("a\r\nb\rc", "a\nb\nc"),
        ];
        for (source, wanted) in cases {
            assert_eq!(adapt(source).replace("  ", " "), wanted, "{source}");
        }
    }
}
