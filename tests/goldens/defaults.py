"""What `transformers` makes of configurations that leave fields out, or have null there.

    python3 -m venv venv && venv/bin/pip install transformers==5.24.0
    venv/bin/python tests/goldens/defaults.py

Rewrites defaults.json. For each tiny configuration of goldens/architectures, goldens/llama and goldens/vision, and for one
that has nothing but a `model_type`, it holds what the configuration class reads (`read`), and for each field how that
changes where the field is left out (`absent`) or null (`null`). Fields of a text or a tower within are `text_config.x`.
"""

import copy
import json
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

from transformers import AutoConfig, PretrainedConfig
from transformers.utils import logging

HERE = Path(__file__).parent
logging.set_verbosity(logging.CRITICAL)

# What says nothing about what is computed.
COMMON = {*PretrainedConfig().to_dict(), "model_type", "initializer_range", "use_cache", "attention_dropout"} - {"tie_word_embeddings"}
COMMON |= {"initializer_factor", "bos_token_id", "eos_token_id", "pad_token_id", "embd_pdrop", "resid_pdrop", "hidden_dropout", "residual_dropout"}
COMMON |= {"embedding_dropout", "router_aux_loss_coef", "output_router_logits", "router_z_loss_coef", "pretraining_tp", "eod_token_id"}
NESTED = ("text_config", "vision_config")
# Null is a value of its own here. Elsewhere classes refuse it, or models fail with it later.
NULLABLE = {"num_key_value_heads", "head_dim", "sliding_window", "attn_logit_softcapping", "final_logit_softcapping", "q_lora_rank"}
# A vision-language model without a text model and a tower has those that its class thinks of.
TOWERS = ("gemma3", "idefics3", "smolvlm", "paligemma", "mistral3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3n")
BARE = {t: {"text_config": {}, "vision_config": {}} for t in TOWERS} | {"llava": {"text_config": {}, "vision_config": {"model_type": "pixtral"}}}
# A rope for each type of layer.
BY_LAYER = {"gemma3_text", "gemma3n_text"}


def plain(config, is_inner=False):
    """The fields of a configuration that count."""
    kept = {k: v for k, v in config.items() if k not in COMMON or (is_inner and k == "model_type")}
    return {k: plain(v, True) if k in NESTED else v for k, v in kept.items()}


def read(config):
    """What the class reads of a configuration; none if it refuses it."""
    config = copy.deepcopy(config)
    try:
        parsed = AutoConfig.for_model(config.pop("model_type"), **config).to_dict()
        return json.loads(json.dumps(plain(parsed)))
    except Exception:
        return None


def flat(config):
    """Fields within `text_config` as `text_config.x`."""
    found = {}
    for key, value in config.items():
        found |= {f"{key}.{k}": v for k, v in value.items()} if key in NESTED else {key: value}
    return found


def with_field(config, path, change):
    config = copy.deepcopy(config)
    *outer, key = path.split(".")
    change(config[outer[0]] if outer else config, key)
    return config


def reset(fields, key):
    fields[key] = None


def changes(config, base, change):
    """By field: what is read otherwise once it is changed."""
    found = {}
    for path in flat(config):
        if path.split(".")[-1] in COMMON | {"quantization_config"}:
            continue
        if change is reset and path.split(".")[-1] not in NULLABLE:
            continue
        now = read(with_field(config, path, change))
        if now is not None:
            before, now = flat(base), flat(now)
            found[path] = {k: now.get(k) for k in sorted({*before, *now}) if before.get(k) != now.get(k)}
    return found


def main():
    folders = sorted([*HERE.glob("architectures/*/*"), *HERE.glob("llama/*"), *HERE.glob("vision/*")])
    table, types = {}, set()
    for folder in folders:
        config = json.loads((folder / "config.json").read_text()) if (folder / "config.json").is_file() else None
        base = read(config) if config else None
        if base is None:
            continue
        types.add(config["model_type"])
        absent = changes(config, base, lambda fields, key: fields.pop(key))
        table[str(folder.relative_to(HERE))] = {"read": base, "absent": absent, "null": changes(config, base, reset)}
    for model_type in sorted(types):
        config = {"model_type": model_type} | BARE.get(model_type, {})
        bare = {model_type: config}
        if model_type not in BARE and model_type not in BY_LAYER:
            bare[f"{model_type}, scaled"] = config | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}
        table |= {name: {"config": config, "read": read(config), "absent": {}, "null": {}} for name, config in bare.items() if read(config)}
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row, sort_keys=True)}" for name, row in table.items())
    (HERE / "defaults.json").write_text("{\n" + rows + "\n}\n")


main()
