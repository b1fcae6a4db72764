//! Finds tags and closing brackets outside of strings, in a text that is still being generated.

/// Tracks the strings and brackets of a text in which strings are escaped. Each character is read once, in however many
/// pieces the text arrives.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scanner {
    quotes: &'static [char],
    at: usize,
    /// The quote that ends the current string.
    quote: Option<char>,
    is_escaped: bool,
    depth: usize,
    /// Whether a bracket has been opened. Quotes before the first one do not begin strings.
    has_opened: bool,
}

impl Scanner {
    /// A scanner that starts at byte `at` of its text.
    pub fn new(quotes: &'static [char], at: usize) -> Scanner {
        Scanner { quotes, at, quote: None, is_escaped: false, depth: 0, has_opened: false }
    }

    /// The position of the next tag outside of strings, and which of `tags` it is.
    pub fn find<'t>(&mut self, text: &str, tags: &[&'t str]) -> Option<(usize, &'t str)> {
        while let Some(c) = text[self.at..].chars().next() {
            if self.quote.is_none() {
                let rest = &text[self.at..];
                if let Some(tag) = tags.iter().find(|tag| rest.starts_with(**tag)) {
                    self.at += tag.len();
                    return Some((self.at - tag.len(), tag));
                }
                if tags.iter().any(|tag| tag.starts_with(rest)) {
                    return None;
                }
            }
            self.take(c);
        }
        None
    }

    /// The position after the bracket that closes the first list or object.
    pub fn close(&mut self, text: &str) -> Option<usize> {
        while let Some(c) = text[self.at..].chars().next() {
            self.take(c);
            if self.is_closed() {
                return Some(self.at);
            }
        }
        None
    }

    /// Whether all strings and brackets are closed.
    pub fn is_balanced(&self) -> bool {
        self.depth == 0 && self.quote.is_none()
    }

    fn is_closed(&self) -> bool {
        self.has_opened && self.is_balanced()
    }

    fn take(&mut self, c: char) {
        self.at += c.len_utf8();
        match (self.quote, c) {
            (Some(_), _) if self.is_escaped => self.is_escaped = false,
            (Some(_), '\\') => self.is_escaped = true,
            (Some(quote), c) if c == quote => self.quote = None,
            (Some(_), _) => {}
            (None, '{' | '[' | '(') => {
                self.depth += 1;
                self.has_opened = true;
            }
            (None, '}' | ']' | ')') => self.depth = self.depth.saturating_sub(1),
            (None, c) if self.has_opened && self.quotes.contains(&c) => self.quote = Some(c),
            (None, _) => {}
        }
    }
}
