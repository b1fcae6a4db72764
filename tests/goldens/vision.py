"""Tiny random vision-language models, and what transformers computes with them in f32, stage by stage.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 torchvision transformers==5.24.0 'pillow<13' scikit-image==0.26.0
    venv/bin/python tests/goldens/vision.py [TYPE...]

Rewrites vision/TYPE for the given model types, or for all. README.md says what the files hold. Pillow 13 resizes in
another order than what most models were trained with: this insists on an earlier one.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
import vision_pixtral
import vision_qwen
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

HERE = Path(__file__).parent / "vision"
IMAGES = HERE / "images"
GREEDY = 8
MARGIN = 0.05  # no greedy step of a golden is a closer call than this
MOVES = 1.0  # another image moves some logit of the last row by this much

assert int(PIL.__version__.split(".")[0]) < 13, PIL.__version__


def images():
    """Photographs of scikit-image, which are in the public domain, cut to odd sizes: a landscape and a portrait."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    if not (IMAGES / "cat.png").exists():
        import skimage

        data = Path(skimage.__file__).parent / "data"
        cat, cup = (np.asarray(Image.open(data / f"{name}.png")) for name in ("chelsea", "coffee"))
        Image.fromarray(cat[20:281:3, 40:433:3]).save(IMAGES / "cat.png", optimize=True)
        Image.fromarray(cup[60:369:3, 250:433:3]).save(IMAGES / "cup.png", optimize=True)
    return {name: Image.open(IMAGES / f"{name}.png").convert("RGB") for name in ("cat", "cup")}


def tokenizer(special, **names):
    """Bytes, and special tokens."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(bytes_)}
    backend = Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def randomize(model, seed, gains):
    """Norms around 1, other vectors around 0, matrices so that activations keep their size; all exact in f16."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.dim() < 2:
            value = (1.0 if "norm" in name and name.endswith("weight") or "ln_q.weight" in name else 0.0) + 0.3 * noise
        else:
            gain = next((g for part, g in gains.items() if part in name), 1.2)
            value = noise * gain / p[0].numel() ** 0.5
        p.data = value.half().float()


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif p.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ p.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def qwen2_vl():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    t = tokenizer(CHATML_TOKENS, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML)
    ids = {name: t.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end", "image_pad", "video_pad")}
    config = {
        "model_type": "qwen2_vl",
        "image_token_id": ids["image_pad"],
        "video_token_id": ids["video_pad"],
        "vision_start_token_id": ids["vision_start"],
        "vision_end_token_id": ids["vision_end"],
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "qwen2_vl_text",
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": 272,
            "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]},
            "bos_token_id": None,
            "eos_token_id": ids["vision_start"],
            "pad_token_id": None,
        },
        "vision_config": {"model_type": "qwen2_vl_vision", "depth": 2, "embed_dim": 40, "num_heads": 2, "hidden_size": 64, "mlp_ratio": 3},
    }
    # The landscape is made smaller, the portrait a little larger.
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(max_pixels=11000, min_pixels=3136),
        tokenizer=t,
        video_processor=Qwen2VLVideoProcessor(min_pixels=784, max_pixels=3136),
        chat_template=CHATML,
    )
    return config, processor, {"embed": 1.0, "lm_head": 3.0}


# What makes a configuration, a processor, gains of weights, and, where they are none yet, rows of pixels.
MODELS = {
    "qwen2_vl": qwen2_vl,
    **vision_qwen.models(tokenizer, CHATML, CHATML_TOKENS),
    **vision_pixtral.models(tokenizer),
}

# Turns of the user: names of images, and text between them.
CASES = {
    "one": [["cat", "What is it?"]],
    "two": [["Compare", "cat", "and", "cup", "."]],
    "turns": [["cup", "A cup?"], "Yes.", ["And this?", "cat"]],
}


def turns(case):
    def part(p, pictures):
        return {"type": "image"} if p in pictures else {"type": "text", "text": p}

    pictures = images()
    for turn in CASES[case]:
        if isinstance(turn, str):
            yield {"role": "assistant", "content": turn}
        else:
            yield {"role": "user", "content": [part(p, pictures) for p in turn]}


def names(case):
    return [p for turn in CASES[case] if not isinstance(turn, str) for p in turn if p in images()]


def positions(model, batch):
    """[3, tokens] where the model has positions of several axes."""
    inner = model.model
    if not hasattr(inner, "get_rope_index"):
        return torch.arange(batch["input_ids"].shape[1]).expand(3, -1)
    given = {k: v for k, v in batch.items() if k in ("input_ids", "image_grid_thw", "attention_mask", "mm_token_type_ids")}
    return inner.get_rope_index(**given)[0][:, 0]


def run(model, batch):
    with torch.no_grad():
        return model(**batch, use_cache=False).logits[0]


def greedy(model, batch, kind=0):
    """Tokens that follow, each computed from all before, and how much each led the next best; `kind` is their type."""
    batch, tokens, margins = dict(batch), [], []
    for _ in range(GREEDY):
        row = run(model, batch)[-1]
        best = row.topk(2).values
        tokens.append(int(row.argmax()))
        margins.append(float(best[0] - best[1]))
        if tokens[-1] in (model.config.image_token_id, getattr(model.config, "video_token_id", None)):
            return tokens, [0.0]
        more = torch.tensor([[tokens[-1]]])
        batch["input_ids"] = torch.cat([batch["input_ids"], more], 1)
        for key in ("attention_mask", "mm_token_type_ids", "token_type_ids"):
            if key in batch:
                value = 1 if key == "attention_mask" else kind
                batch[key] = torch.cat([batch[key], torch.full((1, 1), value, dtype=batch[key].dtype)], 1)
    return tokens, margins


def embeddings(model, batch):
    with torch.no_grad():
        given = {k: batch[k] for k in ("pixel_values", "image_grid_thw", "image_sizes", "pixel_attention_mask") if k in batch}
        out = model.get_image_features(**given)
    more = getattr(out, "deepstack_features", None) or []
    out = getattr(out, "pooler_output", out)
    parts = [torch.cat(list(part)) if isinstance(part, (list, tuple)) else part for part in (out, *more)]
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts], 1)


def bytes_of(pixels, processor):
    """Normalized pixels as the bytes that they were, which must give them again; channels are axis 1."""
    p = processor.image_processor
    shape = (-1, 3) + (1,) * (pixels.dim() - 2)
    mean, std = (torch.tensor(v).reshape(shape[1:]) for v in (p.image_mean, p.image_std))
    raw = ((pixels * std + mean) * 255).round()
    assert float(((raw / 255 - mean) / std - pixels).abs().max()) < 1e-6
    return raw.to(torch.uint8)


def qwen_bytes(pixels, processor):
    rows = pixels.reshape(pixels.shape[0], 3, -1)
    return bytes_of(rows, processor).reshape(pixels.shape)


def write(model_type):
    config, processor, gains, *rows = MODELS[model_type]()
    rows_of = rows[0] if rows else lambda batch: batch["pixel_values"]
    folder = HERE / model_type
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    parsed = AutoConfig.from_pretrained(folder)
    pictures = images()
    for seed in range(100):
        model = AutoModelForImageTextToText.from_config(parsed, dtype=torch.float32, attn_implementation="eager").eval()
        randomize(model, seed, gains)
        goldens = {}
        for case in CASES:
            prompt = processor.apply_chat_template(list(turns(case)), add_generation_prompt=True, tokenize=False)
            given = [pictures[n] for n in names(case)]
            batch = dict(processor(text=[prompt], images=given, return_tensors="pt"))
            other = dict(processor(text=[prompt], images=[Image.fromarray(255 - np.asarray(g)) for g in given], return_tensors="pt"))
            logits = run(model, batch)
            moved = float((run(model, other)[-1] - logits[-1]).abs().max())
            tokens, margins = greedy(model, batch)
            goldens[case] = (prompt, batch, logits, tokens, margins, moved)
        worst = min(min(g[4]) for g in goldens.values())
        if worst > MARGIN and min(g[5] for g in goldens.values()) > MOVES and all(len(set(g[3])) > 2 for g in goldens.values()):
            break
    else:
        raise SystemExit(f"{model_type}: no seed gives clear tokens")
    model.half().save_pretrained(folder)
    model.float()
    processor.save_pretrained(folder)
    for case, (prompt, batch, logits, tokens, margins, _) in goldens.items():
        tensors = {
            "input_ids": batch["input_ids"][0].int(),
            "image_embeds": embeddings(model, batch),
            "logits": logits,
            "greedy": torch.tensor(tokens).int(),
            "margins": torch.tensor(margins),
        }
        if "image_sizes" in batch:
            patch = parsed.vision_config.patch_size
            batch["image_grid_thw"] = torch.tensor([[1, h // patch, w // patch] for h, w in batch["image_sizes"].tolist()])
        tensors["image_grid_thw"] = batch["image_grid_thw"].int()
        tensors["pixels"] = qwen_bytes(rows_of(batch), processor)
        tensors["position_ids"] = positions(model, batch).int()
        metadata = {"prompt": prompt, "images": json.dumps(names(case)), "turns": json.dumps(list(turns(case)))}
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{case}.golden", metadata)
    print(model_type, f"seed {seed}, margin {worst:.3f}, moves", [round(g[5], 2) for g in goldens.values()])


def tables():
    """What formulas of transformers give for random sizes, and for random mixes of text and images."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    random = np.random.default_rng(7)
    sizes = []
    while len(sizes) < 400:
        height, width = (int(2 ** random.uniform(0, 13)) for _ in range(2))
        factor = int(random.choice([28, 32]))
        most = int(random.choice([factor**2 * 16, 1_003_520, 12_845_056]))
        if max(height, width) / min(height, width) <= 200:
            sizes.append([height, width, factor, 3136, most, *smart_resize(height, width, factor, 3136, most)])
    folder = HERE / "qwen2_vl"
    model = Qwen2VLForConditionalGeneration._from_config(Qwen2VLConfig.from_pretrained(folder))
    image = model.config.image_token_id
    mixes = []
    for _ in range(40):
        grids, tokens = [], []
        for _ in range(random.integers(1, 5)):
            tokens += [1] * int(random.integers(0, 6)) + [model.config.vision_start_token_id]
            grids.append([1, *(2 * int(n) for n in random.integers(1, 7, 2))])
            tokens += [image] * (grids[-1][1] * grids[-1][2] // 4) + [2] * int(random.integers(1, 4))
        ids = torch.tensor([tokens])
        found, _ = model.model.get_rope_index(
            input_ids=ids,
            mm_token_type_ids=(ids == image).int(),
            image_grid_thw=torch.tensor(grids),
            attention_mask=torch.ones_like(ids),
        )
        mixes.append({"image_token": image, "tokens": tokens, "grids": grids, "positions": found[:, 0].T.tolist()})
    (HERE / "tables.json").write_text(json.dumps({"smart_resize": sizes, "mixes": mixes}))


def odd():
    """Images of every format and of unusual kinds, and the pixels that Pillow reads, upright and in RGB."""
    folder = HERE / "odd"
    folder.mkdir(exist_ok=True)
    cat = images()["cat"].crop((30, 20, 71, 49))
    turned = Image.Exif()
    turned[0x0112] = 6
    cat.save(folder / "cat.png")
    cat.save(folder / "cat.jpg", quality=95)
    cat.save(folder / "turned.jpg", quality=95, exif=turned)
    cat.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    cat.convert("L").save(folder / "gray.jpg", quality=95)
    cat.save(folder / "cat.webp", lossless=True)
    cat.save(folder / "cat.bmp")
    cat.quantize(16).save(folder / "animated.gif", save_all=True, append_images=[cat.rotate(180).quantize(16)])
    with_alpha = cat.copy()
    with_alpha.putalpha(Image.linear_gradient("L").resize(cat.size))
    with_alpha.save(folder / "alpha.png")
    deep = np.asarray(cat.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "sixteen.png")
    pixels = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".golden",):
            continue
        read = ImageOps.exif_transpose(Image.open(path))
        # Pillow clips 16 bits where others scale them.
        read = cat.convert("L").convert("RGB") if path.stem == "sixteen" else read.convert("RGB")
        pixels[path.name] = torch.from_numpy(np.asarray(read).copy())
    save_file(pixels, folder / "pixels.golden")


def towers():
    """What processors say of images of random sizes."""
    random = np.random.default_rng(11)
    found = {**vision_qwen.tables(random), **vision_pixtral.tables(random)}
    (HERE / "towers.json").write_text(json.dumps(found))


EXTRA = {"tables": tables, "towers": towers, "odd": odd}

if __name__ == "__main__":
    for name in sys.argv[1:] or [*MODELS, *EXTRA]:
        EXTRA[name]() if name in EXTRA else write(name)
