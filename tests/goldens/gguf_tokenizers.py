"""What llama.cpp makes of the tokenizers of GGUF files: gguf_tokenizers.json.

Run it as libllama.py says, with `python -P`, since gguf.py beside it has the name of a package. The file has

- `tokens`, `merges`, `texts`: a vocabulary of bytes that merges every run of up to five bytes of the texts from the left, so that
  nearly every place where a text is cut shows; `pre`: names of `tokenizer.ggml.pre`, and the ids of all texts. For names whose
  pattern llama.cpp's own engine can't express (cases of letters, marks), the ids are those of the package tokenizers with the
  pattern of the models' tokenizer.json, which agree with llama.cpp's on plain texts; `bos`: the names that begin texts with a token;
- `ends`: vocabularies, and which of their tokens end a generation and which are control tokens;
- `phi3`: names of models, and the ids of a conversation.
"""

import itertools
import json
import sys
import tempfile
from pathlib import Path

import gguf
import tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

HERE = Path(__file__).parent
sys.path.append(str(HERE))

from libllama import Vocabulary, adds_bos, is_control, is_eog

PRE = """
a.x-4.0 afmoe bailingmoe bailingmoe2 bloom chameleon chatglm-bpe codeshell cohere2moe command-r dbrx deepseek-coder deepseek-llm
deepseek-r1-qwen deepseek-v3 default exaone exaone-moe exaone4 f2llmv2 falcon falcon-h1 falcon3 gigachat glm4 gpt-2 gpt-4o gpt3-finnish
granite-docling granite-embed-multi-97m grok-2 hunyuan hunyuan-dense hy_v4 jais jais-2 jina-de jina-es jina-v1-en jina-v2-code jina-v2-de
jina-v2-es jina-v5-nano joyai-llm kanana2 kimi-k2 kormo laguna lfm2 llada-moe llama-bpe llama-v3 llama3 llama4 megrez mellum mellum2
midm-2.0 minerva-7b minicpm5 minimax-m2 modern-bert mpt olmo phi-2 pixtral poro-chat qwen2 qwen35 refact roberta-bpe seed-coder smaug-bpe
smollm solar-open spark2_5 stablelm2 starcoder superbpe talkie tekken tiny_aya trillion ufakzeka viking youtu
""".split()

TEXTS = [
    "I'LL pay 1234567 €  HTTPServer\n\n",
    "they'd DON'T we've  you're I'm",
    "a  b   c    d\te\t\tf ",
    "line1\nline2\r\n\r\nline3 \n\n  in",
    "안녕하세요 세계 2024년",
    "日本語のテキスト、カタカナ。漢字123",
    "مرحبا بالعالم ١٢٣",
    "x=1;y+=22;foo(bar[3],'a')!=\"b\"//c\n/d",
    "3.14159e-10 0xFFEE 1,000,000",
    "¡Olé! «naïve» Straße ½ ² Ⅳ",
    "“quotes” —dash… #tag @me $5 `code`",
    "🙂 🙂👍 a🙂b",
    "camelCaseWords ABCdef",
    "Привет, мир! Ёлка",
    "hello world of words 'tis o'clock",
    "end);\n}\n\nAnkara'dan it'sMORE 'LLa",
    "हिन्दी में नमस्ते ภาษาไทย é",
    "ÉCOLE élanÉ ΑΒγδ naÏve",
    "12345678 1234,5 ١٢٣٤ 中文English混 ÀB",
]


# The patterns that llama.cpp approximates, as models' tokenizer.json (Kimi K2's tokenization_kimi.py) have them.
O200K = r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
TEKKEN = O200K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace("\\p{N}{1,3}|", "\\p{N}|")
KIMI = r"\p{Han}+|" + O200K.replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]").replace("[\\r\\n/]*", "[\\r\\n]*")
YOUTU = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"
ORIGINAL = {
    "gpt-4o kanana2 llama4 minimax-m2 talkie granite-embed-multi-97m": [O200K],
    "cohere2moe tiny_aya": [r"\d{1,3}(?=(?:\d{3})*\b)", O200K],
    "kimi-k2": [KIMI],
    "tekken": [TEKKEN],
    "youtu": [YOUTU, O200K.replace("\\p{N}{1,3}|", "\\p{N}|")],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
}
WHOLE = ["granite-embed-multi-97m", "tekken", "youtu"]


def original(name, tokens, merges):
    """The ids of all texts by tokenizers, for a name whose pattern llama.cpp approximates."""
    for names, patterns in ORIGINAL.items():
        if name in names.split():
            bpe = BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges], ignore_merges=name in WHOLE)
            tokenizer = tokenizers.Tokenizer(bpe)
            splits = [Split(tokenizers.Regex(p), "isolated") for p in patterns]
            tokenizer.pre_tokenizer = Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])
            return [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]


def byte_level():
    """A character for each byte, as GPT-2 spells them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = itertools.count(256)
    return {b: chr(b if b in plain else next(others)) for b in range(256)}


def vocabulary():
    spell = byte_level()
    tokens, merges, known = ["<s>", "</s>", *spell.values()], [], set(spell.values())
    for text in TEXTS:
        text = "".join(spell[b] for b in text.encode())
        for start, length in itertools.product(range(len(text)), range(2, 6)):
            token = text[start : start + length]
            if len(token) == length and token not in known:
                known.add(token)
                tokens.append(token)
                merges.append(token[:-1] + " " + token[-1])
    # The longer prefix goes on before another pair begins.
    merges.sort(key=lambda merge: -len(merge))
    return tokens, merges


def write(path, tokens, types, name="tiny", model="gpt2", **more):
    writer = gguf.GGUFWriter(path, "llama")
    for key, n in {"context_length": 64, "embedding_length": 32, "block_count": 1, "feed_forward_length": 32, "head_count": 1}.items():
        getattr(writer, "add_" + key)(n)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_name(name)
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if model == "llama":
        writer.add_token_scores([-float(i) for i in range(len(tokens))])
    for key, value in more.items():
        if isinstance(value, list):
            writer.add_array("tokenizer.ggml." + key, value)
        elif isinstance(value, str):
            writer.add_string("tokenizer.ggml." + key, value)
        elif isinstance(value, bool):
            writer.add_bool("tokenizer.ggml." + key, value)
        else:
            writer.add_uint32("tokenizer.ggml." + key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def pre_tokenizers(path):
    tokens, merges = vocabulary()
    types = [3, 3] + [1] * (len(tokens) - 2)
    found, bos = {}, []
    for name in PRE:
        write(path, tokens, types, pre=name, merges=merges, bos_token_id=0, eos_token_id=1)
        loaded = Vocabulary(path)
        assert loaded, f"llama.cpp does not know {name}"
        bos += [name] * adds_bos(loaded.vocab)
        ids = [loaded.tokenize(text) for text in TEXTS]
        if by_tokenizers := original(name, tokens, merges):
            same = sum(a == b for a, b in zip(ids, by_tokenizers))
            print(f"{name}: llama.cpp has {len(TEXTS) - same} of {len(TEXTS)} texts otherwise")
            assert len(TEXTS) > same >= len(TEXTS) - 5
            ids = by_tokenizers
        found.setdefault(json.dumps(ids), []).append(name)
    write(path, tokens, types, pre="no-such-name", merges=merges, bos_token_id=0, eos_token_id=1)
    assert not Vocabulary(path)
    return {"tokens": tokens, "merges": merges, "texts": TEXTS, "bos": bos,
            "pre": [{"names": names, "ids": json.loads(ids)} for ids, names in found.items()]}


NORMAL, CONTROL, USER = 1, 3, 4
ENDS = """<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> <|eom_id|> <EOT> _<EOT>
[EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜> [e~[""".split()
FILL = """<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame> <|file_sep|> <|fim_prefix|> <fim-prefix>
<fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|> <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF>
<|code_suffix|> <|suffix|> <|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>""".split()
OTHERS = "<|note|> <|im_start|> <|EOT|> <|END_OF_TURN_TOKEN|> <|end_of_turn|> <eot> EOS".split()


def ends(path):
    """Of each of `ENDS` and of what stands beside them, alone and together, in every type."""
    cases = [([text], kind, {}) for text in ENDS + FILL + OTHERS for kind in (NORMAL, CONTROL, USER)]
    together = [
        "<|end|> <|return|> <|call|>", "<|end|> <|return|>", "<|end|> <|call|>", "<|end|> <|calls|> <|flush|>", "<|end|> <|call|> <|flush|>",
        "<|end|> <|return|> <|calls|>", "</s> <|tool_response>", "<turn|> <|tool_response> </s> <eos>", "<|end|> <|im_end|>",
    ]
    cases += [(texts.split(), kind, {}) for texts in together for kind in (NORMAL, CONTROL)]
    keys = ["eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep", "fim_pre", "fim_mid", "bos", "padding", "seperator"]
    cases += [(["<turn>", "<|note|>"], CONTROL, {key + "_token_id": 5}) for key in keys]
    cases += [(["<|end|>", "<|return|>", "<|call|>"], CONTROL, {key: 4}) for key in ("eos_token_id", "eot_token_id")]
    cases += [(["</s>", "<|tool_response>"], CONTROL, {"eos_token_id": 4})]
    cases += [(["[PAD]", "<|fim_pad|>"], CONTROL, {"fim_pad_token_id": 5})]
    out = []
    for texts, kind, more in cases:
        keys = {"eos_token_id": 3, **more}
        tokens, types = ["<unk>", "<s>", "a", "<fin>", *texts], [2, CONTROL, NORMAL, CONTROL, *[kind] * len(texts)]
        write(path, tokens, types, model="llama", **keys)
        loaded = Vocabulary(path)
        out.append({"tokens": tokens, "types": types, "keys": keys, "ends": loaded.ids(is_eog), "control": loaded.ids(is_control)})
    return out


def phi3(path):
    special = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
    letters = ["▁", *sorted(set("Hellothereyouy?\n ") - {" ", "\n"})]
    tokens = ["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)], *letters, *special, "<mine>", "[MASK]", "<mask>"]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(letters) + [3] * len(special) + [USER, CONTROL, CONTROL]
    texts = ["<|user|>\nHello <|end|>\n\t <|assistant|> \nyou?<|end|>\n", "<s> \ny</s> y<unk> y<|endoftext|>\ny", "y <mine> y <|system|>y",
             "y [MASK] y <mask> y"]
    out = []
    for name in ["Phi3", "phi-3", "Phi 3 Mini", "Microsoft PHI-3 mini", "my-phi3.5-vision", "phi_3", "Phi-4", "Modern-BERT", "other"]:
        write(path, tokens, kinds, name=name, model="llama", bos_token_id=1, eos_token_id=2, add_space_prefix=False)
        out.append({"name": name, "ids": [Vocabulary(path).tokenize(text) for text in texts]})
    return {"tokens": tokens, "types": kinds, "texts": texts, "names": out}


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "vocabulary.gguf"
    golden = {**pre_tokenizers(path), "ends": ends(path), "phi3": phi3(path)}
dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
lines = lambda rows: "[\n" + ",\n".join(map(dump, rows)) + "]"
text = ",\n".join(f"{dump(key)}:{lines(v) if key in ('pre', 'ends') else dump(v)}" for key, v in golden.items())
(HERE / "gguf_tokenizers.json").write_text("{" + text + "}\n")
print(len(text), "bytes,", len(golden["tokens"]), "tokens,", len(golden["pre"]), "ways to cut")
for row in golden["pre"]:
    print(*row["names"])
