"""One tiny random llama, quantized by `mlx-lm` in each of MLX's modes, and MLX's own logits.

    python3 -m venv venv && venv/bin/pip install 'mlx[cpu]==0.32.4' mlx-lm==0.32.2 numpy
    venv/bin/python tests/goldens/mlx_modes.py [NAME ...]

Rewrites every folder of tests/goldens/mlx, or those named. README.md says what the files hold.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_map_with_path
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model, quantize_model, save_config, save_model

HERE = Path(__file__).parent / "mlx"
PROMPT, GREEDY = 24, 16
MARGIN = 0.05  # no greedy step of a golden is a closer call than this

# Every row is a whole number of the largest groups.
CONFIG = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "vocab_size": 101,
    "tie_word_embeddings": True,
}


def mixed(path, _):
    """The head in 8 bits, one projection in 3, one not quantized at all, the rest as the default says."""
    if path.endswith("embed_tokens"):
        return {"group_size": 32, "bits": 8}
    if path.endswith("v_proj"):
        return {"group_size": 128, "bits": 3}
    return not path.endswith("o_proj")


def mixed_modes(path, _):
    """Each projection in another mode."""
    modes = {"q_proj": ("mxfp8", 8, 32), "v_proj": ("nvfp4", 4, 16), "up_proj": ("affine", 5, 64)}
    named = [mode for name, mode in modes.items() if path.endswith(name)]
    return {"mode": named[0][0], "bits": named[0][1], "group_size": named[0][2]} if named else True


# name: (bits, group, what the weights are stored as before they are quantized, overrides, mode)
CASES = {
    "2bit_g32": (2, 32, mx.float16, None),
    "3bit_g64": (3, 64, mx.bfloat16, None),
    "4bit_g64": (4, 64, mx.bfloat16, None),
    "5bit_g128": (5, 128, mx.float16, None),
    "6bit_g32": (6, 32, mx.bfloat16, None),
    "8bit_g128": (8, 128, mx.float32, None),
    "mixed": (4, 64, mx.bfloat16, mixed),
    "mxfp4": (4, 32, mx.bfloat16, None, "mxfp4"),
    "mxfp8": (8, 32, mx.bfloat16, None, "mxfp8"),
    "nvfp4": (4, 16, mx.float16, None, "nvfp4"),
    "mixed_modes": (4, 32, mx.bfloat16, mixed_modes, "mxfp4"),
}


def random_weights(path, weight):
    noise = mx.random.normal(weight.shape)
    if path.endswith("norm.weight"):
        return 1 + 0.3 * noise
    gain = 1.6 if "q_proj" in path or "k_proj" in path else 2.0 if "embed_tokens" in path else 1.0
    return noise * gain / weight.shape[-1] ** 0.5


def load(folder):
    return load_model(folder, strict=False)[0]


def run(folder, ids):
    """As `llama.py` has it. The quantized weights are what the file holds, the arithmetic is f32."""
    model = load(folder)
    model.set_dtype(mx.float32)
    cache = make_prompt_cache(model)
    logits = model(mx.array([ids]), cache=cache)[0]
    last, greedy, margins = logits[-1], [], []
    for _ in range(GREEDY):
        greedy.append(mx.argmax(last).item())
        runner_up, best = mx.sort(last)[-2:].tolist()
        margins.append(best - runner_up)
        last = model(mx.array([greedy[-1:]]), cache=cache)[0, -1]
    return logits, greedy, margins


def quantize(folder, dense, bits, group, dtype, overrides, mode="affine"):
    model = load(dense)
    model.update(tree_map_with_path(random_weights, model.parameters()))
    model.set_dtype(dtype)
    model, config = quantize_model(model, dict(CONFIG), group, bits, mode=mode, quant_predicate=overrides)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_model(folder, model)
    save_config(config, folder / "config.json")


def make(name, dense, *case):
    folder = HERE / name
    for seed in range(1000):
        mx.random.seed(seed)
        quantize(folder, dense, *case)
        ids = mx.random.randint(3, CONFIG["vocab_size"], (PROMPT,)).tolist()
        logits, greedy, margins = run(folder, ids)
        if min(margins) >= MARGIN and len(set(greedy)) > GREEDY // 2:
            break
    else:
        raise SystemExit(f"{name}: no seed gives clear greedy tokens")
    mx.save_safetensors(str(folder / "golden.safetensors"), {
        "input_ids": mx.array(ids, dtype=mx.int32), "logits": logits,
        "greedy": mx.array(greedy, dtype=mx.int32), "margins": mx.array(margins)})
    spread = mx.std(logits, axis=-1).min().item()
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: seed {seed}, spread {spread:.2f}, least margin {min(margins):.3f}, {size} bytes")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as dense:
        dense = Path(dense)
        (dense / "config.json").write_text(json.dumps(CONFIG))
        mx.save_safetensors(str(dense / "model.safetensors"), {"model.norm.weight": mx.ones((CONFIG["hidden_size"],))})
        for name in sys.argv[1:] or CASES:
            make(name, dense, *CASES[name])
