//! The bytes behind each token.
//!
//! A token's text need not be whole characters: byte-level BPE and byte fallback cut characters
//! apart. Where the tokenizer's decoder works token by token, and those of nearly all language
//! models do, this knows each token's bytes, so that text can be put together as tokens arrive.

use serde_json::Value;

/// What turns one token into bytes; read from the `decoder` of a `tokenizer.json`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pieces {
    /// Characters stand for bytes, in GPT-2's alphabet.
    byte_level: bool,
    /// `<0x41>` stands for the byte 0x41.
    byte_fallback: bool,
    replacements: Vec<(String, String)>,
    /// How many of which character go at the start of a text.
    pub strip: Option<(char, usize)>,
}

impl Pieces {
    /// `None` for decoders that do more than look at each token.
    pub(super) fn new(decoder: &Value) -> Option<Pieces> {
        let mut pieces = Pieces::default();
        pieces.add(decoder)?;
        Some(pieces)
    }

    fn add(&mut self, decoder: &Value) -> Option<()> {
        match decoder.get("type")?.as_str()? {
            "Sequence" => decoder.get("decoders")?.as_array()?.iter().try_for_each(|d| self.add(d))?,
            "ByteLevel" => self.byte_level = true,
            "ByteFallback" => self.byte_fallback = true,
            // Joins what came before; the bytes are joined anyway.
            "Fuse" => {}
            "Replace" => {
                let pattern = decoder.get("pattern")?.get("String")?.as_str()?;
                self.replacements.push((pattern.into(), decoder.get("content")?.as_str()?.into()));
            }
            "Strip" if decoder.get("stop")?.as_u64()? == 0 => {
                let mut content = decoder.get("content")?.as_str()?.chars();
                let count = usize::try_from(decoder.get("start")?.as_u64()?).ok()?;
                self.strip = Some((content.next()?, count));
            }
            _ => return None,
        }
        Some(())
    }

    /// The bytes of `token`.
    pub(super) fn bytes(&self, token: &str) -> Vec<u8> {
        if self.byte_level {
            // Added tokens may hold characters from outside of the alphabet: they are plain text.
            return token.chars().map(alphabet_byte).collect::<Option<_>>().unwrap_or_else(|| token.into());
        }
        if let Some(byte) = self.fallback_byte(token) {
            return vec![byte];
        }
        let replace = |text: String, (from, to): &(String, String)| text.replace(from.as_str(), to);
        self.replacements.iter().fold(token.to_owned(), replace).into()
    }

    fn fallback_byte(&self, token: &str) -> Option<u8> {
        let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
        (self.byte_fallback && digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
    }
}

/// The byte that `c` stands for in GPT-2's alphabet: printable characters of Latin-1 for
/// themselves, the other 68 bytes as the characters from U+0100 on.
fn alphabet_byte(c: char) -> Option<u8> {
    match c as u32 {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    #[test]
    fn the_alphabet_is_that_of_the_library() {
        let alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        let bytes: HashSet<u8> = alphabet.iter().filter_map(|&c| alphabet_byte(c)).collect();
        assert_eq!((alphabet.len(), bytes.len()), (256, 256));
        assert_eq!(alphabet_byte('Ġ'), Some(b' '));
        assert_eq!(alphabet_byte(' '), None);
    }

    #[test]
    fn decoders_are_understood_or_left_alone() {
        let llama = json!({ "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" }, { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ]});
        let pieces = Pieces::new(&llama).unwrap();
        assert_eq!(pieces.bytes("▁of▁"), b" of ");
        assert_eq!(pieces.bytes("<0xE2>"), [0xe2]);
        assert_eq!(pieces.bytes("<0xXY>"), b"<0xXY>");
        assert_eq!(pieces.strip, Some((' ', 1)));
        let gpt2 = Pieces::new(&json!({ "type": "ByteLevel", "add_prefix_space": true })).unwrap();
        assert_eq!(gpt2.bytes("ĠÃ©"), " é".as_bytes());
        assert_eq!(gpt2.bytes("<a b>"), b"<a b>");
        for other in [json!({ "type": "WordPiece", "prefix": "##", "cleanup": true }), Value::Null] {
            assert_eq!(Pieces::new(&other), None);
        }
    }
}
