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
    /// Whether tokens are spelled as text with `▁` for a space, as in SentencePiece, and not as bytes.
    pub spaces: bool,
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
/// Letters that have a case, but for Georgian's lower case.
const CASED: &str = r"\s?[\p{Lu}\p{Ll}\p{Lt}&&[^\u{10d0}-\u{10ff}]]+";
const PUNCTUATION: &str = "\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+";
const CJK_AND_HANGUL: &str = "[一-龥\u{800}-一가-\u{d7ff}]+";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const O200K_OF_DIGITS: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// o200k's pattern where Chinese characters are pieces of their own.
const KIMI: &str = concat!(
    r"\p{Han}+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Llama 3's pattern, where runs of white space are cut into powers of two.
const JAIS2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s"
);
const BAILING: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
);
/// Several words with one space between them are one piece.
const EXAONE_MOE: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
);
const UFAKZEKA: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const MINICPM5: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const SPARK: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
);
/// The scripts of Asia that Arcee's AFMoE keeps apart.
const ASIAN: &str = concat!(
    "[一-\u{9fff}\u{3400}-\u{4dbf}\u{f900}-\u{faff}\u{3040}-ゟ゠-ヿ\u{ff65}-ﾟ\u{2f00}-\u{2fdf}",
    "\u{e40}-\u{e7f}\u{e80}-\u{eff}\u{1780}-\u{17ff}\u{1000}-\u{109f}\u{aa60}-\u{aa7f}\u{a9e0}-\u{a9ff}",
    "가-\u{d7af}\u{1100}-\u{11ff}]+"
);
const YOUTU: &str =
    "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，\u{3001}-\u{303f}\u{fe30}-\u{fe4f}]+|[\u{3105}-\u{312f}]+|[一-龥\u{3040}-ゟ゠-ヿ]+";

const fn pre(patterns: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer { patterns, ignore_merges: false, nfc: false, bos: false, spaces: false }
}

const fn whole(pre: PreTokenizer) -> PreTokenizer {
    PreTokenizer { ignore_merges: true, ..pre }
}

/// SentencePiece's spelling, in a file of byte-level BPE.
const SPACES: PreTokenizer = PreTokenizer { spaces: true, ..pre(&[r"[^\n]+|\n+"]) };

const LLAMA_BPE: PreTokenizer = PreTokenizer { bos: true, ..whole(pre(&[LLAMA3])) };
const QWEN: PreTokenizer = PreTokenizer { nfc: true, ..pre(&[QWEN2]) };

/// What files without a name get.
pub(super) const DEFAULT: PreTokenizer = pre(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"]);

/// All names that llama.cpp has (`llama_vocab::impl::load` in src/llama-vocab.cpp), but for `whitespace`, which only an
/// embedding model uses. Where llama.cpp spells a pattern as its own engine can, the tokenizer.json's is here.
const TABLE: &[(&[&str], PreTokenizer)] = &[
    (&["default"], DEFAULT),
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
        LLAMA_BPE,
    ),
    (&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], pre(&[LLAMA3])),
    (&["minicpm5"], whole(pre(&[r"\p{N}{1,3}", MINICPM5]))),
    (&["jais-2"], pre(&[JAIS2])),
    (&["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"], QWEN),
    (&["stablelm2", "hunyuan", "solar-open", "grok-2"], pre(&[QWEN2])),
    (&["qwen35"], PreTokenizer { nfc: true, ..pre(&[QWEN3_5]) }),
    (&["ufakzeka"], pre(&[UFAKZEKA])),
    (&["seed-coder"], pre(&[SEED_CODER])),
    (&["bailingmoe", "bailingmoe2", "llada-moe"], pre(&[BAILING])),
    (&["exaone-moe"], pre(&[EXAONE_MOE])),
    (&["laguna"], pre(&[r"[^\n]+|\n+", QWEN2])),
    (&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], pre(&[GPT4O])),
    (&["granite-embed-multi-97m"], whole(pre(&[GPT4O]))),
    (&["tiny_aya", "cohere2moe"], pre(&[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O])),
    (&["kimi-k2"], pre(&[KIMI])),
    (&["youtu"], whole(pre(&[YOUTU, O200K_OF_DIGITS]))),
    (&["tekken"], PreTokenizer { bos: true, ..whole(pre(&[TEKKEN])) }),
    (
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
        ],
        pre(&[GPT2]),
    ),
    (
        &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        pre(&[r"\p{N}", GPT2]),
    ),
    (&["falcon"], pre(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"])),
    (&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], pre(&[r"\p{N}{1,3}", CJK, DEEPSEEK_V3])),
    (&["spark2_5"], pre(&[r"\p{N}{1,3}", CJK, SPARK, r"\p{N}"])),
    (&["afmoe"], pre(&[r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", ASIAN, DEEPSEEK_V3])),
    (&["deepseek-coder"], pre(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK_AND_HANGUL, r"\p{N}"])),
    (&["deepseek-llm"], pre(&[r"[\r\n]", CASED, PUNCTUATION, r"\s+$", CJK_AND_HANGUL, r"\p{N}+"])),
    (&["bloom", "poro-chat", "gpt3-finnish"], pre(&[BLOOM])),
    (&["viking"], pre(&[BLOOM, r"\p{N}"])),
    (&["superbpe"], pre(&[r"\p{N}+", r"(?=(\d{3})+(?!\d))"])),
    (
        &["chameleon"],
        PreTokenizer {
            bos: true,
            ..pre(&[
                "<sentinel:[0-9]+>",
                "IMGIMG[A-I]{1,4}Z",
                r"[\t\n]|    |  ",
                r"\p{N}",
                r"[\p{P}!-/:-@\[-`{-~]",
                GPT2,
            ])
        },
    ),
    // llama.cpp adds the token that begins a text whatever the file says.
    (&["gemma4", "granite-embed-multi-311m"], PreTokenizer { bos: true, ..SPACES }),
    (&["sarvam-moe"], SPACES),
];

/// All names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|(names, _)| *names).copied()
}

/// The pre-tokenizer that GGUF files call `name`.
pub(super) fn find(name: &str) -> Option<PreTokenizer> {
    TABLE.iter().find(|(names, _)| names.contains(&name)).map(|(_, found)| *found)
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
        for name in names() {
            assert_eq!(pieces(&find(name).unwrap(), "Hi, you're 12!\n").concat(), "Hi, you're 12!\n", "{name}");
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
