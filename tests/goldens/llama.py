"""Tiny random llama and mistral models, and what `transformers` computes with them in f32 on the CPU.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0
    venv/bin/python tests/goldens/llama.py [CASE...]

Rewrites every folder of tests/goldens/llama, or the given ones. README.md says what the files hold.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

HERE = Path(__file__).parent / "llama"
PROMPT, GREEDY = 24, 16
MARGIN = 0.05  # no greedy step of a golden is a closer call than this

BASE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "vocab_size": 97,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MISTRAL = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 16}


def longrope(original):
    return {
        "original_max_position_embeddings": original,
        "max_position_embeddings": 8 * original,
        "rope_theta": 1e4,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.0, 2.0, 5.0, 9.0]},
    }


# name: (the config, what is different about it, and the plain value that must give other logits;
# how the weights are stored)
CASES = {
    "tied": (
        {"tie_word_embeddings": True, "num_hidden_layers": 3, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        {"rms_norm_eps": 0.1},
        torch.float32,
    ),
    "biases": (
        {"attention_bias": True, "mlp_bias": True, "hidden_size": 48, "head_dim": 24, "num_attention_heads": 3,
         "num_key_value_heads": 1, "intermediate_size": 56, "num_hidden_layers": 1, "rope_theta": 5e5},
        {"attention_bias": False},
        torch.float32,
    ),
    "llama3_rope": (
        {"num_key_value_heads": 4, "head_dim": 16, "rope_theta": 1e4, "rope_scaling": LLAMA3},
        {"rope_scaling": None},
        torch.float32,
    ),
    "yarn": (
        {"head_dim": 16, "max_position_embeddings": 64, "rope_parameters": YARN},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        torch.float16,
    ),
    "linear": (
        {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_scaling": None},
        torch.float32,
    ),
    "dynamic_short": (
        {"rope_theta": 1e4, "max_position_embeddings": 64, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
        torch.float32,
    ),
    "dynamic_long": (
        {"rope_theta": 1e4, "max_position_embeddings": 8, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
        {"rope_scaling": None},
        torch.float32,
    ),
    "longrope_short": (longrope(64), {"rope_scaling": None}, torch.float32),
    "longrope_long": (longrope(16), {"original_max_position_embeddings": 64}, torch.float32),
    "relu": ({"hidden_act": "relu", "num_hidden_layers": 1, "rope_theta": 1e4}, {"hidden_act": "silu"}, torch.float32),
    "mistral_gelu": ({**MISTRAL, "hidden_act": "gelu", "num_hidden_layers": 1, "rope_theta": 1e4}, {"hidden_act": "silu"}, torch.bfloat16),
    "mistral_window": (
        {**MISTRAL, "rope_theta": 1e4, "sliding_window": 8, "head_dim": 16},
        {"sliding_window": None},
        torch.float32,
    ),
    "mistral_full": (
        {**MISTRAL, "rope_theta": 1e6, "sliding_window": None, "max_position_embeddings": 64},
        {"sliding_window": 8},
        torch.bfloat16,
    ),
}


GAINS = {"q_proj": 1.6, "k_proj": 1.6, "embed_tokens": 2.0, "lm_head": 2.0}


def random_weights(model, generator):
    """Spread so that attention is neither flat nor one-hot and logits differ by several units."""
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith("norm.weight"):
            p.data = 1 + 0.3 * noise
        elif p.dim() == 1:
            p.data = 0.3 * noise
        else:
            gain = next((g for part, g in GAINS.items() if part in name), 1.0)
            p.data = noise * gain / p.shape[1] ** 0.5


def save(model, folder, dtype):
    state = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    if folder.name == "linear":  # as in checkpoints of 2023: two shards, and a buffer that is no weight
        state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        names = sorted(state)
        shards = {"model-00001-of-00002.safetensors": names[: len(names) // 2],
                  "model-00002-of-00002.safetensors": names[len(names) // 2 :]}
        index = {"metadata": {"total_size": sum(v.nbytes for v in state.values())},
                 "weight_map": {n: file for file, names in shards.items() for n in names}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    else:
        shards = {"model.safetensors": list(state)}
    for file, names in shards.items():
        save_file({n: state[n] for n in names}, folder / file, metadata={"format": "pt"})


def load(folder, config):
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def run(model, ids):
    """The logits of every prompt row, then greedy tokens and how far each was ahead of the next best."""
    out = model(torch.tensor([ids]))
    logits = out.logits[0]
    # Frequencies that depend on the length are chosen once, by the prompt: `transformers` would
    # let `dynamic` ones drift from step to step under keys that are already rotated.
    model.model.rotary_emb.rope_type = "chosen"
    last, cache, greedy, margins = logits[-1], out.past_key_values, [], []
    for _ in range(GREEDY):
        best = last.topk(2)
        greedy.append(best.indices[0].item())
        margins.append((best.values[0] - best.values[1]).item())
        out = model(torch.tensor([greedy[-1:]]), past_key_values=cache)
        last, cache = out.logits[0, -1], out.past_key_values
    return logits, greedy, margins


def make(name, change, plain, dtype):
    config = BASE | change
    folder = HERE / name
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = AutoModelForCausalLM.from_config(load_config(folder, config))
        random_weights(model, generator)
        save(model, folder, dtype)
        ids = torch.randint(3, config["vocab_size"], (PROMPT,), generator=generator).tolist()
        logits, greedy, margins = run(load(folder, config), ids)
        if min(margins) >= MARGIN and len(set(greedy)) > GREEDY // 2:
            break
    else:
        raise SystemExit(f"{name}: no seed gives clear greedy tokens")
    other, _, _ = run(load(folder, config | plain), ids)
    moved = (other - logits).abs().max().item()
    spread = logits.std(dim=-1).min().item()
    assert moved > 0.1 and spread >= 1, f"{name}: {plain} moves logits by {moved} of a spread of {spread}"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({"input_ids": torch.tensor(ids, dtype=torch.int32), "logits": logits.contiguous(),
               "greedy": torch.tensor(greedy, dtype=torch.int32), "margins": torch.tensor(margins)},
              folder / "golden.safetensors")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: seed {seed}, spread {spread:.2f}, least margin {min(margins):.3f}, {plain} moves {moved:.2f}, {size} bytes")


def load_config(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    return AutoConfig.from_pretrained(folder)


if __name__ == "__main__":
    torch.manual_seed(0)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name, case in CASES.items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            make(name, *case)
