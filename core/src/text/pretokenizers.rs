//! How byte-level BPE tokenizers cut text before merging, by the names that GGUF files use
//! (`tokenizer.ggml.pre`). The patterns are those of the models' own `tokenizer.json`.

/// How one family of tokenizers cuts text.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreTokenizer {
    /// Patterns that run one after the other, each splitting the pieces that are left. What a
    /// pattern does not match stays a piece.
    pub patterns: &'static [&'static str],
    /// Whether a piece that is a token as a whole is taken without merging.
    pub ignore_merges: bool,
    /// Whether text is composed first (Unicode NFC).
    pub nfc: bool,
    /// Whether a begin-of-sequence token is added where the file does not say.
    pub bos: bool,
}

/// GPT-2's pattern: contractions, words, numbers and punctuation with their space, white space.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Words with what precedes them, numbers of up to three digits (cl100k's pattern).
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN3_5: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const SEED_CODER: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Words are cut where lower case turns into upper case (o200k's pattern).
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const DEEPSEEK_V3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Chinese characters, hiragana and katakana.
const CJK: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";
const CJK_AND_HANGUL: &str = "[一-龥\u{800}-一가-\u{d7ff}]+";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

const fn pre(patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer { patterns, ignore_merges: false, nfc: false, bos: false }
}

/// What files without a name get, and with one that is not in the table.
pub(super) const DEFAULT: PreTokenizer = pre(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"]);

const LLAMA_BPE: PreTokenizer = PreTokenizer { ignore_merges: true, bos: true, ..pre(&[LLAMA3]) };
const QWEN: PreTokenizer = PreTokenizer { nfc: true, ..pre(&[QWEN2]) };
const DIGITS: PreTokenizer = pre(&[r"\p{N}", GPT2]);
const DEEPSEEK: PreTokenizer = pre(&[r"\p{N}{1,3}", CJK, DEEPSEEK_V3]);
const PLAIN: PreTokenizer = pre(&[GPT2]);
const BIGSCIENCE: PreTokenizer = pre(&[BLOOM]);

const TABLE: &[(&str, PreTokenizer)] = &[
    ("llama-bpe", LLAMA_BPE),
    ("llama3", LLAMA_BPE),
    ("llama-v3", LLAMA_BPE),
    ("falcon3", LLAMA_BPE),
    ("pixtral", LLAMA_BPE),
    ("lfm2", LLAMA_BPE),
    ("dbrx", pre(&[LLAMA3])),
    ("smaug-bpe", pre(&[LLAMA3])),
    ("glm4", pre(&[LLAMA3])),
    ("chatglm-bpe", pre(&[LLAMA3])),
    ("qwen2", QWEN),
    ("deepseek-r1-qwen", QWEN),
    ("megrez", QWEN),
    ("stablelm2", pre(&[QWEN2])),
    ("qwen35", PreTokenizer { nfc: true, ..pre(&[QWEN3_5]) }),
    ("gpt-4o", pre(&[GPT4O])),
    ("llama4", pre(&[GPT4O])),
    ("minimax-m2", pre(&[GPT4O])),
    ("tekken", PreTokenizer { ignore_merges: true, bos: true, ..pre(&[TEKKEN]) }),
    ("gpt-2", PLAIN),
    ("mpt", PLAIN),
    ("olmo", PLAIN),
    ("jais", PLAIN),
    ("jina-es", PLAIN),
    ("jina-de", PLAIN),
    ("jina-v2-es", PLAIN),
    ("jina-v2-de", PLAIN),
    ("jina-v2-code", PLAIN),
    ("roberta-bpe", PLAIN),
    ("starcoder", DIGITS),
    ("refact", DIGITS),
    ("command-r", DIGITS),
    ("smollm", DIGITS),
    ("codeshell", DIGITS),
    ("exaone", DIGITS),
    ("falcon", pre(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"])),
    ("deepseek-v3", DEEPSEEK),
    ("hunyuan-dense", DEEPSEEK),
    ("deepseek-coder", pre(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK_AND_HANGUL, r"\p{N}"])),
    ("bloom", BIGSCIENCE),
    ("poro-chat", BIGSCIENCE),
    ("gpt3-finnish", BIGSCIENCE),
    ("viking", pre(&[BLOOM, r"\p{N}"])),
    ("seed-coder", pre(&[SEED_CODER])),
];

/// All names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// The pre-tokenizer that GGUF files call `name`.
pub(super) fn find(name: &str) -> Option<PreTokenizer> {
    TABLE.iter().find(|(known, _)| *known == name).map(|(_, found)| *found)
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, SplitDelimiterBehavior};

    use super::*;

    fn pieces(pre: &PreTokenizer, text: &str) -> Vec<String> {
        use tokenizers::PreTokenizer as _;
        let mut pieces = PreTokenizedString::from(text);
        for pattern in pre.patterns {
            let pattern = SplitPattern::Regex((*pattern).into());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap();
            split.pre_tokenize(&mut pieces).unwrap();
        }
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        pieces.into_iter().map(|(piece, ..)| piece.to_owned()).collect()
    }

    #[test]
    fn every_pattern_compiles_and_cuts() {
        for (name, pre) in TABLE {
            assert_eq!(pieces(pre, "Hi, you're 12!\n").concat(), "Hi, you're 12!\n", "{name}");
        }
    }

    #[test]
    fn families_differ_where_they_should() {
        let text = "I'LL pay 1234 €  HTTPServer\n\n";
        let cases: [(&str, &[&str]); 5] = [
            ("gpt-2", &["I", "'", "LL", " pay", " 1234", " €", " ", " HTTPServer", "\n\n"]),
            ("smollm", &["I", "'", "LL", " pay", " ", "1", "2", "3", "4", " €", " ", " HTTPServer", "\n\n"]),
            ("llama-bpe", &["I", "'LL", " pay", " ", "123", "4", " €", " ", " HTTPServer", "\n\n"]),
            ("qwen2", &["I", "'LL", " pay", " ", "1", "2", "3", "4", " €", " ", " HTTPServer", "\n\n"]),
            ("gpt-4o", &["I'LL", " pay", " ", "123", "4", " €", " ", " HTTPServer", "\n\n"]),
        ];
        for (name, wanted) in cases {
            assert_eq!(pieces(&find(name).unwrap(), text), wanted, "{name}");
        }
    }
}
