//! The XML-like formats of calls, and their tags. They are not XML: values are not escaped, and a name follows `=`.

use super::{schema::Untyped, verbatim::Settled};

/// The tags of a format.
#[derive(Debug)]
pub(super) struct Markup {
    /// The tags around one call or several.
    pub frame: Option<[&'static str; 2]>,
    /// The tags around a call.
    pub call: [&'static str; 2],
    /// The tags around a value. Where keys have tags of their own, the first one is before the key.
    pub value: [&'static str; 2],
    pub style: Style,
    /// What a value becomes if the schema has no type for it.
    pub untyped: Untyped,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Style {
    /// `<function=name>`, `<parameter=key>`.
    Assigned,
    /// `<invoke name="name">`, `<parameter name="key">`.
    Attribute,
    /// `<tool_call>name`, `<arg_key>key</arg_key><arg_value>`.
    Pairs,
}

/// `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`
pub(super) const FUNCTION: Markup = Markup {
    frame: Some(["<tool_call>", "</tool_call>"]),
    call: ["<function=", "</function>"],
    value: ["<parameter=", "</parameter>"],
    style: Style::Assigned,
    untyped: Untyped::Text,
};
/// `<minimax:tool_call><invoke name="name"><parameter name="key">value</parameter></invoke></minimax:tool_call>`
pub(super) const MINIMAX: Markup = Markup {
    frame: Some(["<minimax:tool_call>", "</minimax:tool_call>"]),
    call: ["<invoke", "</invoke>"],
    value: ["<parameter", "</parameter>"],
    style: Style::Attribute,
    untyped: Untyped::Text,
};
/// The same with the prefix `atem:` in all tags.
pub(super) const ATEM: Markup = Markup {
    frame: Some(["<atem:function_calls>", "</atem:function_calls>"]),
    call: ["<atem:invoke", "</atem:invoke>"],
    value: ["<atem:parameter", "</atem:parameter>"],
    style: Style::Attribute,
    untyped: Untyped::Json,
};
/// `<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>`
pub(super) const PAIRS: Markup = Markup {
    frame: None,
    call: ["<tool_call>", "</tool_call>"],
    value: ["<arg_key>", "</arg_value>"],
    style: Style::Pairs,
    untyped: Untyped::Json,
};
const KEY_END: &str = "</arg_key>";
const VALUE_START: &str = "<arg_value>";

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Kind {
    FrameStart,
    FrameEnd,
    /// Contains the tool's name.
    CallStart(String),
    CallEnd,
    /// Contains the parameter's name.
    ValueStart(String),
    ValueEnd,
    /// The beginning of a tag that is not complete.
    Fragment,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) struct Tag {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

impl Markup {
    /// The tag that ends a call.
    pub fn end(&self) -> &'static str {
        self.frame.unwrap_or(self.call)[1]
    }

    /// Where the frame ends that a text begins with, unless it contains values.
    pub fn settled(&self, text: &str) -> Settled {
        let end = if self.frame.is_some() { Kind::FrameEnd } else { Kind::CallEnd };
        let tags = self.tags(text);
        let is_framed = tags.first().is_some_and(|tag| self.frame.is_none() || tag.kind == Kind::FrameStart);
        match tags.iter().find(|tag| tag.kind == end || matches!(tag.kind, Kind::ValueStart(_))) {
            Some(tag) if tag.kind == end && is_framed => Settled::Until(tag.end),
            Some(_) => Settled::Never,
            None => Settled::NotYet,
        }
    }

    /// All tags of a text.
    pub fn tags(&self, text: &str) -> Vec<Tag> {
        let mut tags: Vec<Tag> = Vec::new();
        let mut at = 0;
        while let Some(found) = text[at..].find('<') {
            at += found;
            match self.tag(&text[at..]) {
                Some((kind, len)) => {
                    tags.push(Tag { kind, start: at, end: at + len });
                    at += len;
                }
                None => at += 1,
            }
        }
        tags
    }

    /// The tag at the beginning of a text, and its length.
    fn tag(&self, text: &str) -> Option<(Kind, usize)> {
        let [frame_start, frame_end] = self.frame.unwrap_or_default();
        let fixed = [
            (frame_start, Kind::FrameStart),
            (frame_end, Kind::FrameEnd),
            (self.call[1], Kind::CallEnd),
            (self.value[1], Kind::ValueEnd),
        ];
        if let Some((tag, kind)) = fixed.into_iter().find(|(tag, _)| !tag.is_empty() && text.starts_with(tag)) {
            return Some((kind, tag.len()));
        }
        if let Some(rest) = text.strip_prefix(self.call[0]) {
            return self.named(text, rest, Kind::CallStart);
        }
        if let Some(rest) = text.strip_prefix(self.value[0]) {
            return self.named(text, rest, Kind::ValueStart);
        }
        let halves = [KEY_END, VALUE_START].into_iter().filter(|_| self.style == Style::Pairs);
        halves.into_iter().find(|half| text.starts_with(half)).map(|half| (Kind::Fragment, half.len()))
    }

    /// A tag with a name; `rest` begins with the name.
    fn named(&self, text: &str, rest: &str, kind: fn(String) -> Kind) -> Option<(Kind, usize)> {
        let start = text.len() - rest.len();
        let fragment = Some((Kind::Fragment, start));
        let is_call = matches!(kind(String::new()), Kind::CallStart(_));
        let name_end = rest.find(['<', '>', '\n']).unwrap_or(rest.len());
        let (name, len) = match self.style {
            Style::Assigned | Style::Attribute => {
                if !rest[name_end..].starts_with('>') {
                    return fragment;
                }
                let name = &rest[..name_end];
                let name = match self.style {
                    Style::Assigned => name.trim().trim_matches(['"', '\'']).to_owned(),
                    // `<parameters>` is another tag.
                    _ if !name.is_empty() && !name.starts_with(char::is_whitespace) => return None,
                    _ => attribute(name).unwrap_or_default(),
                };
                (name, start + name_end + 1)
            }
            Style::Pairs if is_call => {
                let name = rest.split('<').next().unwrap_or_default();
                if name.trim().contains(char::is_whitespace) {
                    return fragment;
                }
                (name.trim().to_owned(), start + name.trim_end().len())
            }
            Style::Pairs => {
                let value = rest[name_end..].strip_prefix(KEY_END).map(str::trim_start);
                let Some(value) = value.and_then(|value| value.strip_prefix(VALUE_START)) else { return fragment };
                (rest[..name_end].trim().to_owned(), text.len() - value.len())
            }
        };
        if name.is_empty() && !is_call { fragment } else { Some((kind(name), len)) }
    }
}

/// The value of `name=".."`.
fn attribute(attributes: &str) -> Option<String> {
    let (_, value) = attributes.split_once("name=")?;
    let value = match value.chars().next()? {
        quote @ ('"' | '\'') => value[1..].split(quote).next()?,
        _ => value.split_whitespace().next()?,
    };
    Some(value.to_owned())
}
