"""Random adapters of tiny models, as `peft` and `mlx-lm` write them, and the logits of both models with them.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.24.0 peft==0.21.2 'mlx[cpu]==0.32.4' mlx-lm==0.32.2
    venv/bin/python tests/goldens/adapters.py

Rewrites every folder of tests/goldens/adapters: an adapter as its maker wrote it, and `golden.safetensors` with the
`input_ids` and `logits` of the model that `MODELS` names for it.
"""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import torch
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

HERE = Path(__file__).parent
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PEFT = {
    "peft_lora": dict(r=4, lora_alpha=8, target_modules=ALL),
    "peft_rslora": dict(r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "k_proj", "lm_head"],
                        rank_pattern={"layers.0.self_attn.q_proj": 5}, alpha_pattern={"layers.0.self_attn.q_proj": 9}),
    "peft_dora": dict(r=4, lora_alpha=6, use_dora=True, target_modules=["q_proj", "v_proj", "down_proj"]),
}
PATTERNS = {
    "peft_patterns": dict(r=4, lora_alpha=8, target_modules=ALL, rank_pattern={r"layers\.[1-9]\d*\..*": 2, "(k|v)_proj": 3},
                          alpha_pattern={r".*layers\.0\.(?!mlp).*": 12, "^model.layers.0.mlp.up_proj": 3}),
}
TIED = {
    "tied_lora": dict(r=4, lora_alpha=8, target_modules=["lm_head"]),
    "tied_rslora": dict(r=4, lora_alpha=8, use_rslora=True, target_modules=["lm_head", "q_proj"]),
    "tied_dora": dict(r=4, lora_alpha=8, use_dora=True, target_modules=["lm_head", "v_proj"]),
}
# Adapters of the text and of the tower, under the module names of transformers 5.24, and the text's under those before 4.52.
VLM = {"vlm_gemma3": HERE / "vision/gemma3", "vlm_qwen2_vl": HERE / "vision/qwen2_vl"}
MLX = {"mlx_lora": False, "mlx_dora": True}
MODELS = {"peft": HERE / "llama/biases", "tied": HERE / "llama/tied", "mlx": HERE / "mlx/4bit_g64"}


def write(name, files, ids, logits, plain):
    moved = (logits - plain).abs().max()
    assert moved > 0.1, f"{name}: the adapter moves no logit by more than {moved}"
    print(f"{name}: moves a logit by {moved:.2f}")
    save_file({"input_ids": ids.int().contiguous(), "logits": logits.float().contiguous()}, files / "golden.safetensors")


def peft(name, options, base=MODELS["peft"]):
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    ids = load_file(base / "golden.safetensors")["input_ids"].long()
    with torch.no_grad():
        plain = model(ids[None]).logits[0].clone()
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options)).eval()
        for key, value in adapted.named_parameters():
            if "lora_B" in key:
                value.normal_(0, 0.2)
            if "lora_magnitude" in key:
                value.mul_(1 + 0.3 * torch.rand_like(value))
        logits = adapted(ids[None]).logits[0]
    folder = HERE / "adapters" / name
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "tiny"
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    write(name, folder, ids, logits, plain)


def vlm(name, base):
    """Adapters of a text and of three layers of its tower; the logits are those of a text alone."""
    torch.manual_seed(7)
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    layers = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n]
    towers = [n for n in layers if "vis" in n]
    chosen = [n for n in layers if n.endswith(("q_proj", "down_proj")) and n not in towers] + towers[:3]
    ids = torch.tensor([2, 9, 30, 4, 7, 11])
    with torch.no_grad():
        plain = model(ids[None]).logits[0].clone()
        adapted = get_peft_model(model, LoraConfig(r=2, lora_alpha=6, target_modules=chosen)).eval()
        for key, value in adapted.named_parameters():
            if "lora_B" in key:
                value.normal_(0, 0.2)
        logits = adapted(ids[None]).logits[0]
    for folder, rename in [(HERE / "adapters" / name, lambda key: key), (HERE / "adapters" / f"{name}_old", old_name)]:
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "tiny"
        config["target_modules"] = sorted(rename("base_model.model." + n).removeprefix("base_model.model.") for n in chosen)
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = load_file(folder / "adapter_model.safetensors")
        save_file({rename(key): value for key, value in tensors.items()}, folder / "adapter_model.safetensors")
        write(folder.name, folder, ids, logits, plain)


def old_name(key):
    """Names before transformers 4.52 (`_checkpoint_conversion_mapping` of the classes)."""
    for new, old in [
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.visual.", "visual."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ]:
        key = key.replace("base_model.model." + new, "base_model.model." + old)
    return key


def mlx(name, use_dora):
    mx.random.seed(7)
    model, _ = load_model(MODELS["mlx"])
    ids = load_file(MODELS["mlx"] / "golden.safetensors")["input_ids"]
    tensor = lambda logits: torch.tensor(logits[0].astype(mx.float32).tolist())
    tokens = mx.array(ids.tolist())[None]
    plain = tensor(model(tokens))
    keys = ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"]
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": keys}
    model.freeze()
    linear_to_lora_layers(model, 1, parameters, use_dora=use_dora)
    model.set_dtype(mx.float32)
    drawn = [
        (key, mx.random.normal(value.shape) * 0.2 if key.endswith("lora_b") else value * (1.2 if key.endswith(".m") else 1))
        for key, value in tree_flatten(model.trainable_parameters())
    ]
    model.load_weights(drawn, strict=False)
    model.eval()
    folder = HERE / "adapters" / name
    folder.mkdir(parents=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), dict(tree_flatten(model.trainable_parameters())))
    config = {"fine_tune_type": "dora" if use_dora else "lora", "num_layers": 1, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    write(name, folder, ids, tensor(model(tokens)), plain)


shutil.rmtree(HERE / "adapters", ignore_errors=True)
for name, options in PEFT.items():
    peft(name, options)
for name, options in PATTERNS.items():
    peft(name, options)
for name, options in TIED.items():
    peft(name, options, MODELS["tied"])
for name, base in VLM.items():
    vlm(name, base)
for name, use_dora in MLX.items():
    mlx(name, use_dora)
