"""Tiny random models whose greedy answers pass the length at which their ropes change.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.24.0
    venv/bin/python tests/goldens/longrope.py

Rewrites longrope/CASE. LongRoPE's answers are computed without a cache: beyond the original length the long factors count for
all positions. Those of phi3 and phimoe are the same with transformers' own cache, which is computed anew there.
"""

import json
import shutil

import torch
from safetensors.torch import save_file
from transformers.utils import logging

from architectures import BASE, GREEDY, HERE, Transformers, greedy, random_value

PROMPT, LIMIT = 20, 26
FACTORS = {"short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.0, 2.5, 7.0, 15.0]}
LONG = FACTORS | {"type": "longrope", "original_max_position_embeddings": LIMIT}
SCALES = {"short_mscale": 1.2, "long_mscale": 0.6}

CASES = {
    "phi3": {"model_type": "phi3", "original_max_position_embeddings": LIMIT, "max_position_embeddings": 256, "rope_scaling": LONG,
             "sliding_window": None, "num_key_value_heads": 4},
    "phimoe": {"model_type": "phimoe", "original_max_position_embeddings": LIMIT, "num_local_experts": 4, "intermediate_size": 24,
               "rope_scaling": LONG | SCALES},
    "llama": {"model_type": "llama", "original_max_position_embeddings": LIMIT, "rope_scaling": LONG | {"factor": 4.0}},
    "llama_attention_factor": {"model_type": "llama", "original_max_position_embeddings": LIMIT, "rope_scaling": LONG | {"attention_factor": 1.4}},
}


def generated(model, ids):
    """What transformers generates with its cache."""
    answer = model.model.generate(torch.tensor([ids]), max_new_tokens=GREEDY, do_sample=False, use_cache=True, eos_token_id=None)
    return answer[0, len(ids):].tolist()


@torch.no_grad()
def make(name, case):
    config = BASE | case
    model = Transformers(config)
    never = Transformers(config | {"original_max_position_embeddings": 512, "rope_scaling": config["rope_scaling"] | {"original_max_position_embeddings": 512}})
    start = {n: t.clone() for n, t in model.tensors().items()}
    for seed in range(2000):
        generator = torch.Generator().manual_seed(seed)
        for n, tensor in model.tensors().items():
            tensor.copy_(random_value(n, start[n], generator, {}).to(torch.float16))
            never.tensors()[n].copy_(tensor)
        ids = torch.randint(3, BASE["vocab_size"], (PROMPT,), generator=generator).tolist()
        logits, tokens, margins = greedy(model, ids)
        if tokens and len(set(tokens)) > GREEDY // 3 and greedy(never, ids)[1] not in (None, tokens):
            break
    else:
        raise SystemExit(f"{name}: no seed gives clear greedy tokens")
    if name in ("phi3", "phimoe"):
        assert generated(model, ids) == tokens, name
    folder = HERE / "longrope" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save(folder, torch.float16)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({"input_ids": torch.tensor(ids, dtype=torch.int32), "logits": logits.contiguous(),
               "greedy": torch.tensor(tokens, dtype=torch.int32), "margins": torch.tensor(margins)}, folder / "golden.safetensors")
    other = greedy(never, ids)[1]
    same = next(i for i, pair in enumerate(zip(tokens, other)) if pair[0] != pair[1])
    print(f"{name}: seed {seed}, least margin {min(margins):.3f}, without the change other tokens from {same} on")


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name, case in CASES.items():
        make(name, case)
