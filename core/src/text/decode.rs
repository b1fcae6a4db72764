//! Incremental decoding: text as its tokens arrive.

use super::Tokenizer;

/// Puts together the text of one token sequence, token by token.
///
/// What comes out is whole characters only; an unfinished one waits for its remaining bytes. All
/// that came out, joined, equals [`Tokenizer::decode`] of all tokens. A token costs the same
/// however many came before.
#[derive(Clone, Debug)]
pub struct TextStream {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// Special tokens that are not left out.
    kept: Vec<u32>,
    /// The first bytes of an unfinished character.
    pending: Vec<u8>,
    /// How many of which character still go before the text begins.
    strip: Option<(char, usize)>,
    /// The token before, for decoders that look at neighbours.
    previous: Option<u32>,
}

impl TextStream {
    /// A stream at the beginning of a text. `skip_special` leaves out tokens like `</s>`.
    pub fn new(tokenizer: &Tokenizer, skip_special: bool) -> TextStream {
        let strip = tokenizer.pieces().and_then(|pieces| pieces.strip);
        let tokenizer = tokenizer.clone();
        TextStream { tokenizer, skip_special, kept: Vec::new(), pending: Vec::new(), strip, previous: None }
    }

    /// Special tokens that are part of the text nevertheless.
    pub fn keep(mut self, tokens: impl IntoIterator<Item = u32>) -> TextStream {
        self.kept.extend(tokens);
        self
    }

    /// Takes the next token; returns the text that it completes. Ids that are no tokens add
    /// nothing.
    pub fn push(&mut self, id: u32) -> Option<String> {
        let token = self.tokenizer.id_to_token(id)?;
        if self.skip_special && self.tokenizer.is_special(id) && !self.kept.contains(&id) {
            return None;
        }
        match self.tokenizer.pieces() {
            Some(pieces) => self.pending.extend(pieces.bytes(&token)),
            None => {
                let text = self.next_text(id).unwrap_or(token);
                self.pending.extend(text.as_bytes());
            }
        }
        let text = take_text(&mut self.pending);
        let text = self.strip(text);
        (!text.is_empty()).then_some(text)
    }

    /// Ends the text: what is left of an unfinished character becomes a replacement character.
    pub fn finish(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.pending);
        (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned())
    }

    /// What `id` adds after the token before it, for decoders that put spaces between tokens.
    fn next_text(&mut self, id: u32) -> Option<String> {
        let before = self.previous.replace(id);
        let known = self.tokenizer.decode_all(before.as_slice()).ok()?;
        let both: Vec<u32> = before.into_iter().chain([id]).collect();
        let text = self.tokenizer.decode_all(&both).ok()?;
        text.get(known.len()..).map(str::to_owned)
    }

    fn strip(&mut self, text: String) -> String {
        let Some((strip, count)) = &mut self.strip else { return text };
        let surplus = text.chars().take(*count).take_while(|c| c == strip).count();
        *count -= surplus;
        let text = text.get(surplus * strip.len_utf8()..).unwrap_or_default().to_owned();
        if !text.is_empty() || *count == 0 {
            self.strip = None;
        }
        text
    }
}

/// Takes the characters that are complete at the start of `bytes`. Bytes that cannot be part of
/// any character become replacement characters, as in [`String::from_utf8_lossy`].
fn take_text(bytes: &mut Vec<u8>) -> String {
    let unfinished = match bytes.utf8_chunks().last() {
        Some(last) if is_unfinished(last.invalid()) => last.invalid().len(),
        _ => 0,
    };
    let rest = bytes.split_off(bytes.len() - unfinished);
    String::from_utf8_lossy(&std::mem::replace(bytes, rest)).into_owned()
}

/// Whether more bytes could make `bytes` a character.
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::take_text;
    use crate::text::Tokenizer;
    use crate::text::fixtures::{byte_level, sentencepiece, tokenizer};

    #[test]
    fn tokenizers_and_streams_go_between_threads() {
        fn shared<T: Clone + Send + Sync + 'static>() {}
        shared::<Tokenizer>();
        shared::<super::TextStream>();
        shared::<crate::text::ChatTemplate>();
    }

    #[test]
    fn characters_stay_whole() {
        let cases: [(&[u8], &str, &[u8]); 6] = [
            (b"ab", "ab", b""),
            (b"a\xe2\x82", "a", b"\xe2\x82"),
            (b"\xe2\x82\xac", "€", b""),
            (b"\x80\xf0\x9f\x91", "\u{fffd}", b"\xf0\x9f\x91"),
            (b"\xe2\x82a", "\u{fffd}a", b""),
            (b"\xff\xff", "\u{fffd}\u{fffd}", b""),
        ];
        for (bytes, text, rest) in cases {
            let mut pending = bytes.to_vec();
            assert_eq!((take_text(&mut pending).as_str(), pending.as_slice()), (text, rest));
        }
    }

    /// The bytes behind a token of the fixtures, found without the code under test.
    fn bytes(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
        let token = tokenizer.id_to_token(id).unwrap();
        match token.strip_prefix("<0x") {
            Some(digits) => vec![u8::from_str_radix(&digits[..2], 16).unwrap()],
            None if tokenizer.bos() == Some(1) => token.replace('▁', " ").into(),
            None if id < 2 => token.into(),
            None => {
                let printable = |b: &u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
                let hidden: Vec<u8> = (0..=255).filter(|b| !printable(b)).collect();
                let byte = |c: char| hidden.get((c as usize).wrapping_sub(0x100)).copied().unwrap_or(c as u8);
                token.chars().map(byte).collect()
            }
        }
    }

    #[test]
    fn streamed_text_is_the_text_of_all_tokens() {
        let mut rng = StdRng::seed_from_u64(3);
        for metadata in [byte_level(), sentencepiece()] {
            let tokenizer = tokenizer(&metadata);
            let strips = tokenizer.bos() == Some(1);
            for _ in 0..3000 {
                let ids: Vec<u32> =
                    (0..rng.random_range(0..12)).map(|_| rng.random_range(0..tokenizer.vocab_size() as u32)).collect();
                let skip = rng.random_bool(0.5);
                let mut stream = tokenizer.stream(skip);
                let mut streamed: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
                streamed.extend(stream.finish());
                assert_eq!(streamed, tokenizer.decode(&ids, skip).unwrap(), "{ids:?}");
                let kept = ids.iter().filter(|&&id| !(skip && tokenizer.is_special(id)));
                let all: Vec<u8> = kept.flat_map(|&id| bytes(&tokenizer, id)).collect();
                let all = String::from_utf8_lossy(&all);
                assert_eq!(streamed, all.strip_prefix(if strips { " " } else { "" }).unwrap_or(&all), "{ids:?}");
            }
        }
    }

    #[test]
    fn valid_text_survives_in_whole_characters() {
        let text = " the thé 🦀 €5 — ▁ Ġ\u{fffd}!\n";
        for metadata in [byte_level(), sentencepiece()] {
            let tokenizer = tokenizer(&metadata);
            let ids = tokenizer.encode(text, false).unwrap();
            let library = tokenizer.decode_all(&ids).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), library);
            let mut stream = tokenizer.stream(true);
            let pieces: Vec<String> = ids.iter().filter_map(|&id| stream.push(id)).collect();
            assert_eq!(pieces.concat(), library);
            assert!(pieces.len() > 10 && pieces.contains(&"🦀".to_owned()), "{pieces:?}");
            assert_eq!(stream.finish(), None);
        }
    }

    #[test]
    fn decoders_that_look_at_neighbours_stream_too() {
        let json = serde_json::json!({
            "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": { "[UNK]": 0, "play": 1, "##ing": 2, "time": 3, "!": 4 } },
            "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
        let tokenizer = Tokenizer::from_dir(folder.path()).unwrap();
        let mut stream = tokenizer.stream(true);
        let pieces: Vec<_> = [1, 2, 3, 4].map(|id| stream.push(id)).into_iter().flatten().collect();
        assert_eq!(pieces, ["play", "ing", " time", "!"]);
        assert_eq!(tokenizer.decode(&[1, 2, 3, 4], true).unwrap(), "playing time!");
    }
}
