"""Tiny random models of every architecture, and what the engines they come from compute with them in f32.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.23.0 'mlx[cpu]==0.32.4' mlx-lm==0.32.2
    venv/bin/python tests/goldens/architectures.py [TYPE[/CASE]...]

Rewrites architectures/TYPE/CASE for every case in cases/*.py, or for the given ones.
Llama and mistral have a script of their own, llama.py. README.md says what the files hold.
"""

import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Mxfp4Config
from transformers.utils import logging

HERE = Path(__file__).parent
PROMPT, GREEDY = 24, 16
MARGIN = 0.05  # no greedy step of a golden is a closer call than this
MOVES = 0.1  # what a case is about moves some logit by this much
NOISE = 1e-3  # of the embeddings, which moves no logit of a steady case by more than MOVES

# What cases have in common. Each says what is different about it.
BASE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "vocab_size": 80,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}

# Spread so that attention is neither flat nor one-hot and logits differ by several units.
GAINS = {"q_proj": 1.6, "k_proj": 1.6, "qkv": 1.6, "embed": 2.0, "lm_head": 2.0, "output.weight": 2.0}


# The last norm of a model, by type of model.
FINAL_NORMS = ("model.norm.weight", "final_layernorm.weight", "language_model.norm.weight", "embedding_norm.weight")


def random_value(name, start, generator, gains):
    """Norms and other vectors around the value they start from (Gemma's norms from 0); matrices so
    that activations keep their size."""
    noise = torch.randn(start.shape, generator=generator)
    if name.endswith(FINAL_NORMS):
        # A tied head would otherwise answer every token with itself.
        signs = torch.randint(0, 2, start.shape, generator=generator) * 2 - 1
        return (1 + 0.3 * noise) * signs - (1 - start.mean().round())
    if start.dim() < 2 or "norm" in name:
        return start.mean().round() + 0.3 * noise
    gain = next((g for part, g in (GAINS | gains).items() if part in name), 1.0)
    return noise * gain / start[0].numel() ** 0.5 if start.dim() == 2 else noise * gain / start.shape[-1] ** 0.5


LEVELS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
LEVELS = torch.cat([LEVELS, -LEVELS])


def mxfp4(matrix):
    """[.., k] in MXFP4: values, codes two to a byte [.., k / 32, 16], and the exponents of scales [.., k / 32]."""
    groups = matrix.float().unflatten(-1, (-1, 32))
    exponents = groups.abs().amax(-1, keepdim=True).log2().floor() - 2
    codes = (groups[..., None] / 2 ** exponents[..., None] - LEVELS).abs().argmin(-1)
    values, codes = (LEVELS[codes] * 2**exponents).flatten(-2), codes.to(torch.uint8)
    return values, codes[..., ::2] | codes[..., 1::2] << 4, (exponents.squeeze(-1) + 127).to(torch.uint8)


def pack(folder, suffixes):
    """Experts as gpt-oss has them: the transpose of what `transformers` computes with, in MXFP4."""
    tensors = load_file(folder / "model.safetensors")
    for name in [n for n in tensors if n.endswith(suffixes)]:
        _, blocks, scales = mxfp4(tensors.pop(name).mT)
        tensors |= {f"{name}_blocks": blocks.contiguous(), f"{name}_scales": scales.contiguous()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


class Transformers:
    """A model of `transformers`."""

    def __init__(self, config):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(config))
            parsed = AutoConfig.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_config(parsed, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager").eval()

    def tensors(self):
        """Parameters, and buffers that are saved with them; the tied ones once."""
        saved = self.model.state_dict().keys()
        named = [*self.model.named_parameters(), *((n, b) for n, b in self.model.named_buffers() if n in saved)]
        return {n: t.data for n, t in named if t.dim() > 0 and t.is_floating_point()}

    def logits(self, ids):
        return self.model(torch.tensor([ids]), use_cache=False).logits[0]

    def save(self, folder, dtype):
        self.model.to(dtype).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        self.model.to(torch.float32)

    @staticmethod
    def load(folder):
        loaded = Transformers.__new__(Transformers)
        packed = "quantization_config" in json.loads((folder / "config.json").read_text())
        unpack = {"quantization_config": Mxfp4Config(dequantize=True)} if packed else {}
        loaded.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager", **unpack).float().eval()
        return loaded


class Mlx:
    """A model of `mlx-lm`, for the types that `transformers` does not have."""

    def __init__(self, config):
        module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
        self.model = module.Model(module.ModelArgs.from_dict(config))
        self.values = {n: torch.tensor(v.tolist()) for n, v in self.flat(self.model.parameters())}

    @staticmethod
    def flat(tree):
        from mlx.utils import tree_flatten

        return tree_flatten(tree)

    def tensors(self):
        return self.values

    def logits(self, ids):
        import mlx.core as mx

        self.model.load_weights([(n, mx.array(v.numpy())) for n, v in self.values.items()])
        return torch.tensor(self.model(mx.array([ids]))[0].tolist())

    def save(self, folder, dtype):
        tensors = {n: v.to(dtype).contiguous() for n, v in self.values.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    @staticmethod
    def load(folder):
        loaded = Mlx(json.loads((folder / "config.json").read_text()))
        loaded.values = {n: v.float() for n, v in load_file(folder / "model.safetensors").items()}
        return loaded


def greedy(model, ids):
    """The logits of the whole prompt, then the tokens that follow and how far each led the next best;
    none once one is a close call."""
    logits, tokens, margins = None, [], []
    while len(tokens) < GREEDY:
        rows = model.logits(ids + tokens)
        logits = rows if logits is None else logits
        best = rows[-1].topk(2)
        tokens.append(best.indices[0].item())
        margins.append((best.values[0] - best.values[1]).item())
        if margins[-1] < MARGIN:
            return logits, None, None
    return logits, tokens, margins


def is_steady(model, ids):
    """Whether logits stay what they are under a little noise: they jump where another expert is chosen."""
    embedding = next(t for name, t in model.tensors().items() if "embed" in name)
    kept, logits = embedding.clone(), model.logits(ids)
    generator = torch.Generator().manual_seed(0)
    moves = []
    for _ in range(4):
        embedding.copy_(kept * (1 + NOISE * torch.randn(kept.shape, generator=generator)))
        moves.append((model.logits(ids) - logits).abs().max().item())
    embedding.copy_(kept)
    return max(moves) < MOVES


def draw(engine, config, case):
    """Seeds until greedy tokens are clear and varied."""
    model = engine(config)
    start = {name: t.clone() for name, t in model.tensors().items()}
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        for name, tensor in model.tensors().items():
            value = random_value(name, start[name], generator, case.get("gains", {}))
            if name.endswith(case.get("mxfp4", ())):
                value = mxfp4(value.mT)[0].mT
            tensor.copy_(value.to(case["dtype"]))
        ids = torch.randint(3, case.get("vocabulary", BASE["vocab_size"]), (PROMPT,), generator=generator).tolist()
        logits, tokens, margins = greedy(model, ids)
        if tokens and len(set(tokens)) > GREEDY // 2 and (not case.get("steady") or is_steady(model, ids + tokens)):
            return seed, model, ids, logits, tokens, margins
    raise SystemExit("no seed gives clear greedy tokens")


def moved(engine, model, config, change, ids, logits):
    """By how much a change of the configuration moves logits, the weights being the same."""
    other = engine(config | change)
    for name, tensor in other.tensors().items():
        if name in model.tensors():
            tensor.copy_(model.tensors()[name])
    return (other.logits(ids) - logits).abs().max().item()


def rename(file, prefixes):
    """Gives tensors the names that other versions of `transformers` write."""
    first = lambda name: next((old for old in prefixes if name.startswith(old)), None)
    new = lambda name: prefixes[first(name)] + name[len(first(name)) :] if first(name) else name
    save_file({new(n): t for n, t in load_file(file).items()}, file, metadata={"format": "pt"})


def put_into_shell(folder, shell):
    """Makes a text model's folder that of a multimodal one."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": shell, "text_config": config}, indent=2) + "\n")
    rename(folder / "model.safetensors", {"model.": "model.language_model."})


@torch.no_grad()
def make(model_type, name, case):
    case = {"dtype": torch.float16, "engine": Transformers} | case
    engine = {"mlx": Mlx}.get(case["engine"], Transformers)
    given = {"model_type": model_type} | ({} if case.get("whole") else BASE) | case["config"]
    config = {k: v for k, v in given.items() if v != "absent"}
    folder = HERE / "architectures" / model_type / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    seed, model, ids, logits, tokens, margins = draw(engine, config, case)
    changes = {str(c): moved(engine, model, config, c, ids, logits) for c in case.get("without", [])}
    spread = logits.std(dim=-1).min().item()
    assert spread >= 1, f"{model_type}/{name}: a spread of {spread}"
    assert min(changes.values(), default=1) > MOVES, f"{model_type}/{name}: {changes}"
    model.save(folder, case["dtype"])
    if "rename" in case:
        rename(folder / "model.safetensors", case["rename"])
    if "mxfp4" in case:
        pack(folder, case["mxfp4"])
        others = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
        config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": others}
    if not case.get("saved"):
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    again = (engine.load(folder).logits(ids) - logits).abs().max().item()
    assert again < 1e-5, f"{model_type}/{name}: what was saved differs by {again}"
    if "shell" in case:
        put_into_shell(folder, case["shell"])
    save_file({"input_ids": torch.tensor(ids, dtype=torch.int32), "logits": logits.contiguous(),
               "greedy": torch.tensor(tokens, dtype=torch.int32), "margins": torch.tensor(margins)},
              folder / "golden.safetensors")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{model_type}/{name}: seed {seed}, spread {spread:.2f}, least margin {min(margins):.3f}, {size} bytes")
    for change, by in changes.items():
        print(f"    {change} moves {by:.2f}")


def cases():
    """Model type -> name -> case, of all files."""
    for file in sorted((HERE / "cases").glob("*.py")):
        yield from importlib.import_module(f"cases.{file.stem}").CASES.items()


if __name__ == "__main__":
    torch.manual_seed(0)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for model_type, named in cases():
        for name, case in named.items():
            if len(sys.argv) == 1 or {model_type, f"{model_type}/{name}"} & set(sys.argv[1:]):
                make(model_type, name, case)
