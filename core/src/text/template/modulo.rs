//! Python's `%`, which formats texts: `a % b` becomes `(a)|__modulo__(b)`, because minijinja's operator takes numbers only.
//!
//! The operands follow from Jinja's precedences: on its left `%` takes whatever `*` and `/` have made so far, on its right one
//! operand with its sign, power, calls and filters.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::python::{self, type_error, type_name};
use super::source::outside_strings;

/// The filter that stands for the operator.
pub(super) const MODULO: &str = "__modulo__";

/// Tags with more of them, or more deeply nested, stay as they are: no template was written so.
const MAX_OPERATORS: usize = 200;
const MAX_DEPTH: usize = 100;

/// Words between operands.
const WORDS: [&str; 15] =
    ["and", "or", "not", "in", "is", "if", "else", "elif", "set", "for", "recursive", "call", "filter", "with", "do"];

/// The body of a tag, with the filter for its operators `%`.
pub(super) fn adapt(text: &str) -> String {
    let operators = outside_strings(text).filter(|(_, c)| *c == '%').count();
    if operators == 0 || operators > MAX_OPERATORS {
        return text.to_owned();
    }
    let mut levels: Vec<Vec<Part>> = vec![Vec::new()];
    for part in parts(text) {
        let opens = matches!(part.text.as_str(), "(" | "[" | "{") && part.kind == Kind::Bracket;
        if opens {
            levels.push(Vec::new());
        }
        let Some(level) = levels.last_mut() else { return text.to_owned() };
        let closes = part.kind == Kind::Bracket && !opens;
        level.push(part);
        if closes {
            let whole = Part { kind: Kind::Operand, text: rewritten(levels.pop().unwrap_or_default()) };
            match levels.last_mut() {
                Some(level) => level.push(whole),
                None => return text.to_owned(),
            }
        }
        if levels.len() > MAX_DEPTH {
            return text.to_owned();
        }
    }
    match (levels.pop(), levels.is_empty()) {
        (Some(parts), true) => rewritten(parts),
        // Brackets that do not close are for the compiler to report.
        _ => text.to_owned(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Space,
    /// Names, literals, and what joins them: dots, filters, brackets with what is in them, signs, powers.
    Operand,
    /// `*`, `/` and `//`.
    Product,
    Modulo,
    /// Operators and words that bind less tightly.
    Loose,
    Bracket,
}

struct Part {
    kind: Kind,
    text: String,
}

fn parts(text: &str) -> Vec<Part> {
    let outside: Vec<(usize, char)> = outside_strings(text).collect();
    let mut parts: Vec<Part> = Vec::new();
    let mut end = 0;
    for (i, &(at, c)) in outside.iter().enumerate() {
        if at < end {
            continue;
        }
        if at > end {
            // What lies between is a string.
            parts.push(Part { kind: Kind::Operand, text: text[end..at].to_owned() });
        }
        let run = |fits: fn(char) -> bool| {
            let mut run =
                outside[i..].iter().scan(at, |next, &(at, c)| (*next == at).then(|| (*next += c.len_utf8(), c).1));
            at + run.by_ref().take_while(|c| fits(*c)).map(char::len_utf8).sum::<usize>()
        };
        let last = parts.iter().rev().find(|part| part.kind != Kind::Space);
        let after_operand = last.is_some_and(|p| p.kind == Kind::Operand || matches!(p.text.as_str(), ")" | "]" | "}"));
        let after_joint = last.is_some_and(|part| matches!(part.text.as_str(), "." | "|"));
        let (kind, stop) = match c {
            c if c.is_whitespace() => (Kind::Space, run(char::is_whitespace)),
            c if c.is_alphanumeric() || c == '_' => {
                let stop = run(|c| c.is_alphanumeric() || c == '_');
                let is_word = WORDS.contains(&&text[at..stop]) && !after_joint;
                (if is_word { Kind::Loose } else { Kind::Operand }, stop)
            }
            '(' | '[' | '{' | ')' | ']' | '}' => (Kind::Bracket, at + 1),
            '%' => (Kind::Modulo, at + 1),
            '*' if text[at..].starts_with("**") => (Kind::Operand, at + 2),
            '*' => (Kind::Product, at + 1),
            '/' => (Kind::Product, run(|c| c == '/')),
            '.' | '|' => (Kind::Operand, at + 1),
            '-' | '+' if !after_operand || last.is_some_and(|part| part.text == "**") => (Kind::Operand, at + 1),
            c => (Kind::Loose, at + c.len_utf8()),
        };
        parts.push(Part { kind, text: text[at..stop].to_owned() });
        end = stop;
    }
    if end < text.len() {
        parts.push(Part { kind: Kind::Operand, text: text[end..].to_owned() });
    }
    parts
}

/// One level of brackets, whose first and last parts are those.
fn rewritten(mut parts: Vec<Part>) -> String {
    let join = |parts: &[Part]| parts.iter().map(|part| part.text.as_str()).collect::<String>();
    while let Some(at) = parts.iter().position(|part| part.kind == Kind::Modulo) {
        let ends = |part: &Part| matches!(part.kind, Kind::Loose | Kind::Bracket);
        let start = parts[..at].iter().rposition(ends).map_or(0, |before| before + 1);
        let stops = |part: &Part| ends(part) || matches!(part.kind, Kind::Modulo | Kind::Product);
        let end = parts[at + 1..].iter().position(stops).map_or(parts.len(), |more| at + 1 + more);
        let (left, right) = (join(&parts[start..at]), join(&parts[at + 1..end]));
        let lead = &left[..left.len() - left.trim_start().len()];
        let trail = &right[right.trim_end().len()..];
        let text = format!("{lead}({})|{MODULO}({}){trail}", left.trim(), right.trim());
        parts.splice(start..end, [Part { kind: Kind::Operand, text }]);
    }
    join(&parts)
}

/// `left % right`.
pub(super) fn modulo(state: &mut State, left: &Value, right: Value) -> Result<Value, Error> {
    if left.as_str().is_some() {
        return format(state, left, right);
    }
    let both = [left, &right].map(|value| value.kind() == ValueKind::Number || value.kind() == ValueKind::Bool);
    if both != [true, true] {
        let (left, right) = (type_name(left), type_name(&right));
        return Err(type_error(format!("unsupported operand type(s) for %: '{left}' and '{right}'")));
    }
    let whole = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    };
    let zero = || type_error("modulo by zero");
    // The result has the divisor's sign.
    match (whole(left), whole(&right)) {
        (Some(a), Some(b)) => a.checked_rem_euclid(b).ok_or_else(zero).map(|r| {
            let r = if b < 0 && r != 0 { r + b } else { r };
            i64::try_from(r).map_or_else(|_| Value::from(r), Value::from)
        }),
        _ => {
            let float = |value: &Value| whole(value).map_or_else(|| f64::try_from(value.clone()), |n| Ok(n as f64));
            let (a, b) = (float(left)?, float(&right)?);
            if b == 0.0 { Err(zero()) } else { Ok(Value::from(a - b * (a / b).floor())) }
        }
    }
}

/// `text % values`: a tuple holds several values, a dict named ones, anything else is the only one. minijinja's filter `format`
/// does the work, with values that print as Python prints them.
fn format(state: &mut State, text: &Value, values: Value) -> Result<Value, Error> {
    let mut given: Box<dyn Iterator<Item = Value>> = match values.is_tuple() {
        true => Box::new(values.try_iter()?),
        false => Box::new(std::iter::once(values.clone())),
    };
    let mut next = || given.next().ok_or_else(|| type_error("not enough arguments for format string"));
    let mut arguments = vec![Value::UNDEFINED];
    let mut plain = String::new();
    let mut rest = text.as_str().unwrap_or_default();
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        let mut value = None;
        if let Some((key, after)) = rest.strip_prefix('(').and_then(|named| named.split_once(')')) {
            value = Some(values.get_item(&Value::from(key))?);
            rest = after;
        }
        // Flags, width and precision, of which `*` is one of the values, and a length that means nothing.
        while let Some(c) = rest.chars().next().filter(|c| "-#0 +*.123456789hlL".contains(*c)) {
            match c {
                '*' => plain.push_str(&python::str(&next()?)?),
                'h' | 'l' | 'L' => {}
                c => plain.push(c),
            }
            rest = &rest[1..];
        }
        let Some(conversion) = rest.chars().next() else { return Err(type_error("incomplete format")) };
        rest = &rest[conversion.len_utf8()..];
        if conversion == '%' {
            plain.push('%');
            continue;
        }
        let value = value.map_or_else(&mut next, Ok)?;
        let (conversion, value) = match conversion {
            's' => ('s', Value::from(python::str(&value)?)),
            'r' | 'a' => ('s', Value::from(python::repr(&value)?)),
            c if value.kind() == ValueKind::Bool => (c, Value::from(u8::from(value.is_true()))),
            c => (c, value),
        };
        plain.push(conversion);
        arguments.push(value);
    }
    if values.is_tuple() && given.next().is_some() {
        return Err(type_error("not all arguments converted during string formatting"));
    }
    plain.push_str(rest);
    arguments[0] = if text.is_safe() { Value::from_safe_string(plain) } else { Value::from(plain) };
    state.apply_filter("format", &arguments)
}

#[cfg(test)]
mod tests {
    use super::adapt;

    #[test]
    fn operands_follow_the_precedences() {
        for (source, wanted) in [
            ("'%s' % a", "('%s')|__modulo__(a)"),
            (" a * b % -c ** 2 + d ", " (a * b)|__modulo__(-c ** 2) + d "),
            ("a - b % c", "a - (b)|__modulo__(c)"),
            ("-7 % 3 == 2", "(-7)|__modulo__(3) == 2"),
            ("if loop.index0 % 2 and x", "if (loop.index0)|__modulo__(2) and x"),
            ("f(a % b)[c % d] % e.f|g", "(f((a)|__modulo__(b))[(c)|__modulo__(d)])|__modulo__(e.f|g)"),
            ("'%s %s' % ('a', x % 2)", "('%s %s')|__modulo__(('a', (x)|__modulo__(2)))"),
            ("a % b % c * d", "((a)|__modulo__(b))|__modulo__(c) * d"),
            ("{'a': b % c}", "{'a': (b)|__modulo__(c)}"),
            ("'100%' ~ a", "'100%' ~ a"),
            ("(a % b", "(a % b"),
        ] {
            assert_eq!(adapt(source), wanted, "{source}");
        }
    }
}
