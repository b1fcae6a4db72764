"""Tiny GGUF files with what llama.cpp reads in its own way, and its logits: gguf_llama_cpp/.

Run it as libllama.py says, with `python -P`, since gguf.py beside it has the name of a package. Writes CASE.gguf and CASE.golden
(a safetensors file: `input_ids`, `logits`) for

- scales: `X.scale` beside matrices of several types and beside experts, with `X.input_scale` or without. llama.cpp quantizes
  activations for such products, which costs some hundredths of the largest logit;
- ropes: what it makes of keys of `rope.scaling`.

That each case means something is made sure of: its logits are far from those of the same model without it.
"""

import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from safetensors.numpy import save_file

HERE = Path(__file__).parent
sys.path.append(str(HERE))

from libllama import logits

OUT = HERE / "gguf_llama_cpp"
VOCAB = 24


def bytes_of(rng, kind, rows, cols):
    """Random blocks of a type, of values about 0.1."""
    if kind in (T.F32, T.F16):
        return (rng.normal(0, 0.4, (rows, cols))).astype(np.float32 if kind == T.F32 else np.float16)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (rows, cols // block, size), dtype=np.uint8)
    half = lambda low, high: rng.uniform(low, high, (rows, cols // block, 1)).astype(np.float16).view(np.uint8)
    if kind == T.NVFP4:
        data[..., :4] = rng.integers(0x12, 0x20, data[..., :4].shape)
    elif kind == T.MXFP4:
        data[..., 0] = rng.integers(123, 126, data[..., 0].shape)
    elif kind == T.Q8_0:
        data[..., :2] = half(0.002, 0.005)
    elif kind == T.Q4_1:
        data[..., :2], data[..., 2:4] = half(0.03, 0.06), half(-0.5, -0.3)
    elif kind == T.Q5_1:
        data[..., :2], data[..., 2:4] = half(0.02, 0.03), half(-0.5, -0.3)
    else:
        raise ValueError(kind)
    return data.reshape(rows, -1)


def write(path, width, types, scales, keys, arch="llama", experts=0, tensors=()):
    """`types`: of each matrix, F32 where it is not named. `scales`: numbers beside matrices."""
    rng, heads = np.random.default_rng(5), 2
    writer = gguf.GGUFWriter(path, arch)
    for key, n in {"context_length": 64, "embedding_length": width, "block_count": 1, "feed_forward_length": width,
                   "head_count": heads, "head_count_kv": heads, "vocab_size": VOCAB}.items():
        getattr(writer, "add_" + key)(n)
    if arch == "qwen3moe":
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(width)
        writer.add_key_length(width // heads)
        writer.add_value_length(width // heads)
    else:
        writer.add_rope_dimension_count(width // heads)
    writer.add_rope_freq_base(100.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("none")
    for key, value in keys.items():
        put = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        put(f"{arch}.{key}", value)
    norm = lambda name, n=width: writer.add_tensor(name + ".weight", rng.uniform(0.5, 1.5, n).astype(np.float32))
    def matrix(name, rows, of=0):
        kind = types.get(name.split(".")[-1], T.F32)
        data = bytes_of(rng, kind, max(of, 1) * rows, width)
        data = data.reshape(of, rows, -1) if of else data
        writer.add_tensor(name + ".weight", data, raw_dtype=kind)
        for end in (".scale", ".input_scale"):
            if (value := scales.get(name.split(".")[-1] + end)) is not None:
                writer.add_tensor(name + end, np.array(value, np.float32))
    matrix("token_embd", VOCAB)
    norm("output_norm")
    matrix("output", VOCAB)
    norm("blk.0.attn_norm")
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        matrix("blk.0." + name, width)
    norm("blk.0.ffn_norm")
    if experts:
        norm("blk.0.attn_q_norm", width // heads)
        norm("blk.0.attn_k_norm", width // heads)
        matrix("blk.0.ffn_gate_inp", experts)
        for name in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"):
            matrix("blk.0." + name, width, experts)
    else:
        for name in ("ffn_gate", "ffn_up", "ffn_down"):
            matrix("blk.0." + name, width)
    for name, values in tensors:
        writer.add_tensor(name, np.array(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


MATRICES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
EXPERTS = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"]
NUMBERS = [0.37, 2.5, 0.8, 1.7, 0.25, 3.0, 1.3]
SCALES = {
    "nvfp4": dict(types=dict.fromkeys(MATRICES, T.NVFP4),
                  scales={**{f"{m}.scale": [x] for m, x in zip(MATRICES, NUMBERS)}, "ffn_down.input_scale": [0.5], "attn_q.input_scale": [3.0]}),
    "types": dict(types={"attn_q": T.Q8_0, "attn_k": T.Q4_1, "attn_v": T.F16, "ffn_gate": T.MXFP4, "ffn_up": T.Q5_1, "ffn_down": T.Q8_0},
                  scales={f"{m}.scale": [x] for m, x in zip(MATRICES, NUMBERS)}),
    "experts": dict(arch="qwen3moe", experts=4, types=dict.fromkeys(EXPERTS, T.NVFP4),
                    scales={**{f"{m}.scale": list(np.roll(NUMBERS[:4], i)) for i, m in enumerate(EXPERTS)},
                            **{f"{m}.input_scale": [0.5] * 4 for m in EXPERTS}}),
}
ROPES = {
    "factor_alone": {"rope.scaling.factor": 4.0},
    "none": {"rope.scaling.type": "none", "rope.scaling.factor": 4.0},
    "first_name": {"rope.scale_linear": 4.0},
    "both_names": {"rope.scale_linear": 8.0, "rope.scaling.factor": 2.0},
    "zero": {"rope.scaling.type": "linear", "rope.scaling.factor": 0.0},
    "linear_magnitude": {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0, "rope.scaling.attn_factor": 1.5},
    "magnitude_alone": {"rope.scaling.attn_factor": 1.5},
    "longrope_without_lists": {"rope.scaling.type": "longrope", "rope.scaling.factor": 3.0},
    "yarn": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16},
    "yarn_of_context": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0},
    "yarn_magnitude": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16,
                       "rope.scaling.attn_factor": 1.5},
    "yarn_betas": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16,
                   "rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 2.0},
    "yarn_log_multiplier": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16,
                            "rope.scaling.yarn_log_multiplier": 0.7},
    "yarn_without_factor": {"rope.scaling.type": "yarn", "rope.scaling.original_context_length": 16},
    "freqs_and_factor": {"rope.scaling.factor": 2.0},
}
PLAIN = ("none", "zero", "yarn_without_factor")
FREQS = {"freqs_and_factor": [("rope_freqs.weight", [1.0, 1.5, 2.0, 4.0])]}
PROMPT = [3, 17, 5, 5, 20, 9, 1, 14, 8, 22, 2, 11, 6, 19, 4, 13]


def case(name, plain, same=False, **model):
    path = OUT / f"{name}.gguf"
    write(path, **model)
    found = np.array(logits(path, PROMPT), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "plain.gguf"
        write(other, **{**model, **plain})
        away = np.abs(found - np.array(logits(other, PROMPT), np.float32)).max() / np.abs(found).max()
    print(f"{name}: {path.stat().st_size} bytes, largest {np.abs(found).max():.3}, {away:.3} of that from the plain model")
    assert away < 1e-3 if same else away > 0.1, name
    save_file({"input_ids": np.array(PROMPT, np.int32), "logits": found}, OUT / f"{name}.golden")


OUT.mkdir(exist_ok=True)
for name, model in SCALES.items():
    case(f"scale_{name}", {"scales": {}}, width=64, keys={}, **model)
for name, keys in ROPES.items():
    same = name in PLAIN
    case(f"rope_{name}", {"keys": {}, "tensors": ()}, same, width=16, types={}, scales={}, keys=keys, tensors=FREQS.get(name, ()))
