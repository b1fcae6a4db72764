"""A tiny random model of every type, quantized by `mlx-lm` to 4 and to 8 bits, and what it then computes in f32.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0 'mlx[cpu]==0.32.4' mlx-lm==0.32.2
    venv/bin/python tests/goldens/mlx_types.py [TYPE...]

Rewrites mlx_types/TYPE-4bit and -8bit for every type of CASES, or for the given ones. `mlx-lm` computes the logits,
but for the types of DEQUANTIZED, which it computes otherwise than `transformers` does: there `transformers`
computes with the dequantized weights. README.md says what the files hold.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import torch
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import dequantize_model, load_model, quantize_model, save_config, save_model
from safetensors.torch import save_file
from transformers.utils import logging

from architectures import GREEDY, MARGIN, MOVES, NOISE, PROMPT, Mlx, Transformers, greedy, put_into_shell, random_value

HERE = Path(__file__).parent / "mlx_types"
GROUP = 32

# Rows are whole groups, but for what a case makes them.
BASE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 80,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}
GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8}
GEMMA3 = {"sliding_window_pattern": 2, "rope_local_base_freq": 100.0, "rope_scaling": None}
TOWER = {"model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
         "image_size": 28, "patch_size": 14}
MLA = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 8, "v_head_dim": 16, "num_key_value_heads": 4,
       "n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1, "first_k_dense_replace": 1,
       "moe_layer_freq": 1, "rope_scaling": None, "attention_bias": False, "tie_word_embeddings": False}

# What each type has beyond BASE.
CASES = {
    "apertus": {"mlp_bias": False, "attention_bias": False, "post_norm": False, "qk_norm": True, "tie_word_embeddings": False,
                "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "cohere": {"logit_scale": 0.7, "layer_norm_eps": 1e-5},
    "cohere2": {"logit_scale": 0.7, "layer_norm_eps": 1e-5, "sliding_window": 7, "sliding_window_pattern": 2, "head_dim": 8},
    "deepseek_v2": MLA | {"rope_scaling": {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "mscale": 0.7,
                                            "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1}, "topk_method": "greedy", "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.5, "norm_topk_prob": False},
    "deepseek_v3": MLA | {"q_lora_rank": None, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "n_group": 1, "topk_group": 1,
                          "routed_scaling_factor": 2.5, "norm_topk_prob": True},
    "ernie4_5": {"tie_word_embeddings": False, "head_dim": 8, "use_bias": False},
    "exaone4": {"sliding_window": 7, "sliding_window_pattern": "LG", "layer_types": ["sliding_attention", "full_attention"], "head_dim": 8,
                "tie_word_embeddings": False, "rope_scaling": None},
    "gemma": {"head_dim": 8},
    "gemma2": GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 6.0},
    "gemma3": GEMMA | GEMMA3,
    "gemma3_text": GEMMA | GEMMA3,
    "gemma3n": {"head_dim": 8, "num_hidden_layers": 5, "num_kv_shared_layers": 2, "rope_local_base_freq": 100.0, "rope_theta": 1e4, "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention", "full_attention"],
                "vocab_size_per_layer_input": 80, "hidden_size_per_layer_input": 32, "laurel_rank": 32, "intermediate_size": 64, "rms_norm_eps": 1e-6,
                "activation_sparsity_pattern": [0.7, 0.0, 0.95, 0.0, 0.3], "final_logit_softcapping": 30.0, "altup_num_inputs": 4,
                "altup_coef_clip": 120.0, "altup_correct_scale": True, "altup_active_idx": 0},
    "glm4": {"head_dim": 8, "partial_rotary_factor": 0.5, "attention_bias": True},
    "glm4_moe": {"tie_word_embeddings": False, "n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                 "n_shared_experts": 1, "head_dim": 8, "attention_bias": True, "use_qk_norm": True, "routed_scaling_factor": 1.5,
                 "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "norm_topk_prob": True, "partial_rotary_factor": 0.5,
                 "rope_scaling": None, "scoring_func": "sigmoid", "topk_method": "noaux_tc"},
    # mlx-lm rounds the ends of YaRN's ramp whatever the configuration says: here it says so. Routers are quantized in groups of 64.
    "gpt_oss": {"hidden_size": 64, "num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32, "head_dim": 8, "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention"], "rope_theta": 1e4, "attention_bias": True, "tie_word_embeddings": False,
                "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 32.0,
                                 "beta_slow": 1.0, "truncate": True}},
    "granite": {"tie_word_embeddings": False, "hidden_size": 64, "num_hidden_layers": 1, "embedding_multiplier": 3.0, "residual_multiplier": 0.6, "attention_multiplier": 0.25, "logits_scaling": 1.3,
                "attention_bias": False, "mlp_bias": False},
    "helium": {"tie_word_embeddings": False, "head_dim": 8, "attention_bias": False, "mlp_bias": False},
    "hunyuan_v1_dense": {"head_dim": 8, "use_qk_norm": True, "attention_bias": False, "rope_scaling": None},
    "internlm2": {"bias": True},
    "lfm2": {"layer_types": ["conv", "full_attention"], "norm_eps": 1e-5, "block_auto_adjust_ff_dim": False, "conv_bias": False, "conv_L_cache": 3,
             "block_dim": 32, "block_multiple_of": 32, "block_ffn_dim_multiplier": 1.0},
    "llama": {"tie_word_embeddings": False},
    "minicpm": {"scale_emb": 2.0, "scale_depth": 1.4, "dim_model_base": 24},
    "mistral": {"tie_word_embeddings": False, "sliding_window": 8, "head_dim": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32},
    "olmo2": {"tie_word_embeddings": False},
    "olmoe": {"num_experts": 6, "num_experts_per_tok": 3, "intermediate_size": 32, "norm_topk_prob": True, "tie_word_embeddings": False},
    "phi": {"layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "num_key_value_heads": 4},
    "phi3": {"sliding_window": None, "rope_scaling": None, "partial_rotary_factor": 0.75, "num_attention_heads": 2},
    "phimoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32, "rope_scaling": None, "attention_bias": True,
               "lm_head_bias": True, "tie_word_embeddings": False},
    "qwen2": {"tie_word_embeddings": False},
    "qwen2_moe": {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    "qwen3": {"head_dim": 8, "tie_word_embeddings": True},
    "qwen3_moe": {"hidden_size": 64, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8,
                  "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "tie_word_embeddings": False},
    "seed_oss": {"tie_word_embeddings": False, "head_dim": 8, "attention_bias": True, "attention_out_bias": False, "mlp_bias": False},
    "smollm3": {"no_rope_layers": [1, 0], "tie_word_embeddings": True},
    "stablelm": {"use_qkv_bias": True, "partial_rotary_factor": 0.25, "layer_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": False},
    "starcoder2": {"norm_epsilon": 1e-5},
}
ENGINES = {"internlm2": Mlx, "minicpm": Mlx}
DEQUANTIZED = ("gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "mistral", "starcoder2")
# Whose text model alone is drawn, and then put where the multimodal one has it.
PUT_INTO_SHELL = ("gemma3n",)
# Text models that stand in a multimodal one here.
SHELLS = {"gemma3": {"vision_config": TOWER, "mm_tokens_per_image": 4, "image_token_index": 79, "boi_token_index": 78, "eoi_token_index": 77}}
VOCABULARY = {"gemma3": 77}


def configuration(model_type):
    config = {"model_type": model_type} | BASE | CASES[model_type]
    if model_type in PUT_INTO_SHELL:
        return config | {"model_type": f"{model_type}_text"}
    if model_type in SHELLS:
        return {"model_type": model_type, "text_config": config | {"model_type": f"{model_type}_text"}} | SHELLS[model_type]
    return config


def dense(model_type, config, seed, folder):
    """A model with weights in f16, saved as its engine saves it."""
    engine = ENGINES.get(model_type, Transformers)
    model = engine(config)
    generator = torch.Generator().manual_seed(seed)
    start = {name: t.clone() for name, t in model.tensors().items()}
    for name, tensor in model.tensors().items():
        tensor.copy_(random_value(name, start[name], generator, {}).half())
    ids = torch.randint(3, VOCABULARY.get(model_type, BASE["vocab_size"]), (PROMPT,), generator=generator).tolist()
    model.save(folder, torch.float16)
    (folder / "config.json").write_text(json.dumps(config))
    if model_type in PUT_INTO_SHELL:
        put_into_shell(folder, model_type)
    return model, ids


def by_mlx(model, ids):
    """As mlx_modes.py has it: the weights are what the file holds, the arithmetic is f32."""
    model.set_dtype(mx.float32)
    cache = make_prompt_cache(model)
    logits = model(mx.array([ids]), cache=cache)[0]
    last, tokens, margins = logits[-1], [], []
    for _ in range(GREEDY):
        tokens.append(mx.argmax(last).item())
        runner_up, best = mx.sort(last)[-2:].tolist()
        margins.append(best - runner_up)
        last = model(mx.array([tokens[-1:]]), cache=cache)[0, -1]
    return torch.tensor(logits.tolist()), tokens, margins


def is_steady(model, ids, logits):
    """Whether a little noise in the embeddings moves no logit far: where two experts are a close call, an engine that
    rounds otherwise chooses otherwise."""
    table, call = model.model.embed_tokens, type(model.model.embed_tokens).__call__

    class Noisy:
        def __call__(self, x):
            values = call(table, x)
            return values * (1 + NOISE * mx.random.normal(values.shape))

        def __getattr__(self, name):
            return getattr(table, name)

    model.model.embed_tokens = Noisy()
    moves = [(torch.tensor(model(mx.array([ids]))[0].tolist()) - logits).abs().max().item() for _ in range(4)]
    model.model.embed_tokens = table
    return max(moves) < MOVES


def by_transformers(model, quantized, ids):
    """The dequantized weights in a model like the one that they came from, whose own scales were rounded when it was saved."""
    quantized.set_dtype(mx.float32)
    values = {n: torch.tensor(v.tolist()) for n, v in tree_flatten(dequantize_model(quantized).parameters())}
    tensors = model.tensors()
    # What mlx-lm calls language_model.model, transformers calls model.language_model.
    named = {n.replace("language_model.model.", "model.language_model."): v for n, v in values.items()}
    if not any("language_model." in name for name in tensors):
        named = {n.replace("model.language_model.", "model."): v for n, v in named.items()}
    text = {n for n in tensors if not any(part in n for part in ("vision_tower", "multi_modal_projector"))}
    assert text - {"lm_head.weight"} <= named.keys(), sorted(text - named.keys())
    for name in text & named.keys():
        tensors[name].copy_(named[name].view_as(tensors[name]))
    return greedy(model, ids)


def attempt(model_type, bits, seed, folder):
    config = configuration(model_type)
    with tempfile.TemporaryDirectory() as work:
        model, ids = dense(model_type, config, seed, Path(work))
        whole = json.loads((Path(work) / "config.json").read_text())
        quantized, saved = quantize_model(load_model(Path(work), strict=False)[0], whole, GROUP, bits)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_model(folder, quantized)
    save_config(saved, folder / "config.json")
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    again = load_model(folder, strict=False)[0]
    logits, tokens, margins = by_transformers(Transformers(config), again, ids) if model_type in DEQUANTIZED else by_mlx(again, ids)
    if any("experts" in key for key in config) and not is_steady(again, ids, logits):
        return ids, logits, None, None
    return ids, logits, tokens, margins


@torch.no_grad()
def make(model_type, bits):
    folder = HERE / f"{model_type}-{bits}bit"
    for seed in range(1000):
        ids, logits, tokens, margins = attempt(model_type, bits, seed, folder)
        if tokens and min(margins) >= MARGIN and len(set(tokens)) > GREEDY // 2:
            break
    else:
        raise SystemExit(f"{folder.name}: no seed gives clear greedy tokens")
    spread = logits.std(dim=-1).min().item()
    assert spread >= 1, f"{folder.name}: a spread of {spread}"
    save_file({"input_ids": torch.tensor(ids, dtype=torch.int32), "logits": logits.contiguous(),
               "greedy": torch.tensor(tokens, dtype=torch.int32), "margins": torch.tensor(margins)}, folder / "golden.safetensors")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{folder.name}: seed {seed}, spread {spread:.2f}, least margin {min(margins):.3f}, {size} bytes", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name in sys.argv[1:] or CASES:
        for bits in (4, 8):
            make(name, bits)
