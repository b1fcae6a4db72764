"""Tiny random models with a tower of SigLIP's kind, as vision.py has others, whose packages this needs, and num2words.

    venv/bin/python tests/goldens/vision_siglip.py [NAME...]

Rewrites vision/NAME for the given names, or for all.
"""

import json
import shutil
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast
from vision import HERE, IMAGES, MARGIN, MOVES, embeddings, greedy, images, run


HALVED = 0.02  # caches of f16 move no logit by more


def pictures():
    """Those of vision.py, and larger ones: pan and scan looks at parts of no less than 256 pixels."""
    found = images()
    for small, large in (("cat", "wide"), ("cup", "tall")):
        if not (IMAGES / f"{large}.png").exists():
            size = tuple(5 * n for n in found[small].size)
            found[small].resize(size, Image.NEAREST).save(IMAGES / f"{large}.png", optimize=True)
        found[large] = Image.open(IMAGES / f"{large}.png").convert("RGB")
    return found


def tokenizer(special, **names):
    """ASCII, adjacent newlines merged as real vocabularies have them, and special tokens."""
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("".join(map(chr, range(32, 127))) + "\n")
    letters = sorted({c for piece, _ in letters for c in piece})
    newline = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("\n")[0][0]
    vocab = {token: i for i, token in enumerate([*letters, newline * 2, newline * 3])}
    backend = Tokenizer(models.BPE(vocab, [(newline, newline), (newline * 2, newline)]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def randomize(model, seed, gains, plus_one, image):
    """Norms around 1, other vectors around 0, matrices so that activations keep their size; all exact in f16."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.dim() < 2:
            is_norm = "norm" in name and name.endswith("weight")
            has_one = is_norm and not (plus_one and "vision" not in name)
            # A tied table is small, so that what layers add counts, and the last norm makes up for it in logits.
            value = float(has_one) + 19 * float("language_model.norm" in name) + 0.3 * noise
        else:
            gain = next((g for part, g in gains.items() if part in name), 1.2)
            value = noise * gain / p[0].numel() ** 0.5
            if "head" in name or "embed_tokens" in name:
                value[image:] *= 0.1  # which is not to be said
        p.data = value.half().float()


def vision(**more):
    return {"hidden_size": 36, "intermediate_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 7, **more}


def text(**more):
    return {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 24,
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        **more,
    }


GEMMA = (
    "<bos>{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}<start_of_image>{% else %}{{ p.text }}{% endif %}"
    "{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)

# Turns of the user: names of images, and text between them. A string is the assistant's.
CASES = {
    "one": [["cat", "What is it?"]],
    "two": [["Compare", "cat", "and", "cup", "."]],
    "turns": [["cup", "A cup?"], "Yes.", ["And this?", "cat"]],
}


def gemma3():
    from transformers import Gemma3Processor
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    special = ["<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    extra = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    t = tokenizer(special, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", chat_template=GEMMA, extra_special_tokens=extra)
    image = t.convert_tokens_to_ids("<image_soft_token>")
    config = {
        "model_type": "gemma3",
        "image_token_index": image,
        "boi_token_index": t.convert_tokens_to_ids("<start_of_image>"),
        "eoi_token_index": t.convert_tokens_to_ids("<end_of_image>"),
        "mm_tokens_per_image": 9,
        "text_config": text(
            model_type="gemma3_text",
            query_pre_attn_scalar=24,
            # The image's token is the first that the table does not have.
            vocab_size=image,
            # Shorter than a prompt, longer than an image.
            sliding_window=24,
            layer_types=["sliding_attention", "full_attention"],
        ),
        "vision_config": vision(model_type="siglip_vision_model", image_size=42, vision_use_head=False),
    }
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 42, "width": 42}),
        tokenizer=t,
        chat_template=GEMMA,
        image_seq_length=9,
    )
    cases = {**CASES, "crops": [["wide", "and", "tall"]]}
    return config, processor, {"gains": {"embed_tokens": 0.15, "projection": 3.0}, "plus_one": True, "cases": cases, "merge": 2}


SMOLVLM = (
    "<|im_start|>{% for m in messages %}{{ m.role | capitalize }}"
    "{% if m.content is string %}: {{ m.content }}{% else %}{% if m.content[0].type == 'image' %}:{% else %}: {% endif %}"
    "{% for p in m.content %}{% if p.type == 'image' %}<image>{% elif p.type == 'video' %}<video>{% else %}{{ p.text }}{% endif %}"
    "{% endfor %}{% endif %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def idefics3(kind="idefics3", image_size=28, scale=2):
    from transformers import Idefics3Processor, SmolVLMProcessor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    tiles = [f"<row_{r}_col_{c}>" for r in range(1, 4) for c in range(1, 4)]
    special = ["<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>", *tiles, "<image>"]
    t = tokenizer(special, bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|im_start|>", chat_template=SMOLVLM)
    config = {
        "model_type": kind,
        "image_token_id": t.convert_tokens_to_ids("<image>"),
        "scale_factor": scale,
        "tie_word_embeddings": False,
        "text_config": text(model_type="llama", vocab_size=len(t), rms_norm_eps=1e-5),
        "vision_config": vision(model_type=f"{kind}_vision", image_size=image_size),
    }
    sizes = {"size": {"longest_edge": 2 * image_size}, "max_image_size": {"longest_edge": image_size}}
    tokens = (image_size // 7 // scale) ** 2
    if kind == "idefics3":
        processor = Idefics3Processor(Idefics3ImageProcessorPil(**sizes), t, image_seq_len=tokens, chat_template=SMOLVLM)
    else:
        from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

        images_ = SmolVLMImageProcessorPil(**sizes)
        films = SmolVLMVideoProcessor(max_image_size=sizes["max_image_size"], video_sampling={"fps": 1, "max_frames": 4, "video_size": sizes["size"]})
        processor = SmolVLMProcessor(images_, t, films, image_seq_len=tokens, chat_template=SMOLVLM)
    cases = {**CASES, "whole": [["cup", "cat", "?"]]}
    return config, processor, {"gains": {"embed": 1.0, "lm_head": 3.0}, "plus_one": False, "cases": cases, "merge": scale}


def smolvlm():
    # As SmolVLM's 384 pixels: the last ones fill no patch.
    return idefics3("smolvlm", 44, 3)


def paligemma(kind="gemma"):
    from transformers import PaliGemmaProcessor
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    special = ["<bos>", "<eos>", "<pad>", "<image>"]
    t = tokenizer(special, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", extra_special_tokens={"image_token": "<image>"})
    image = t.convert_tokens_to_ids("<image>")
    own = {"query_pre_attn_scalar": 24, "sliding_window": 16} if kind == "gemma2" else {}
    config = {
        "model_type": "paligemma",
        "image_token_index": image,
        "projection_dim": 48,
        "hidden_size": 48,
        "text_config": text(model_type=kind, vocab_size=image + 1, **own),
        "vision_config": vision(model_type="siglip_vision_model", image_size=28, projection_dim=48, vision_use_head=False),
    }
    images_ = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    images_.image_seq_length = 16
    # Every location and segment of the real vocabulary would be most of the file.
    import transformers.models.paligemma.processing_paligemma as module

    module.EXTRA_TOKENS = []
    processor = PaliGemmaProcessor(images_, t)
    cases = {"one": [["cat", "caption"]], "two": "<image>a<image>b\n?", "newline": [["cup", "what?\n"]]}
    return config, processor, {"gains": {"embed_tokens": 0.15, "linear": 3.0}, "plus_one": True, "cases": cases, "merge": 1}


def paligemma2():
    return paligemma("gemma2")


MODELS = {f.__name__: f for f in (gemma3, idefics3, smolvlm, paligemma, paligemma2)}
# What is asked beside the files, and what it is called here and there.
OPTIONS = {"crops": (True, {"do_pan_and_scan": True}), "whole": (False, {"do_image_splitting": False})}


def turns(case, known):
    for turn in case:
        if isinstance(turn, str):
            yield {"role": "assistant", "content": turn}
        else:
            part = [{"type": "image"} if p in known else {"type": "text", "text": p} for p in turn]
            yield {"role": "user", "content": part}


def ask(processor, name, case, known):
    """The rendered prompt, the conversation it is of, and its images."""
    if isinstance(case, str):
        return case, [], ["cat", "cup"]
    asked = list(turns(case, known))
    given = [p for turn in case if not isinstance(turn, str) for p in turn if p in known]
    if processor.chat_template is None:
        return "".join(p for p in case[0] if p not in known), asked, given
    return processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False), asked, given


def prepare(processor, name, prompt, given):
    batch = dict(processor(text=[prompt], images=[given], return_tensors="pt", **OPTIONS.get(name, (None, {}))[1]))
    batch.pop("labels", None)
    return batch


def run_halved(net, batch):
    """Logits with keys and values rounded to f16, as caches on a GPU hold them."""
    modules = [m for name, m in sys.modules.items() if ".modeling_" in name and "eager_attention_forward" in vars(m)]
    plain = [m.eager_attention_forward for m in modules]
    for m, f in zip(modules, plain):
        m.eager_attention_forward = lambda module, q, k, v, *a, f=f, **kw: f(module, q, k.half().float(), v.half().float(), *a, **kw)
    logits = run(net, batch)
    for m, f in zip(modules, plain):
        m.eager_attention_forward = f
    return logits


def blocks(image, patch, merge):
    """[channels, height, width] as rows of patches, those that are merged being adjacent; what fills no patch is left out."""
    c, h, w = image.shape
    rows, columns = h // patch, w // patch
    cut = image[:, : rows * patch, : columns * patch]
    cut = cut.reshape(c, rows // merge, merge, patch, columns // merge, merge, patch)
    return cut.permute(1, 4, 2, 5, 0, 3, 6).reshape(-1, c * patch * patch)


def bytes_of(pixels):
    """Normalized pixels as the bytes that they were, which must give them again."""
    raw = ((pixels * 0.5 + 0.5) * 255).round()
    assert float(((raw / 255 - 0.5) / 0.5 - pixels).abs().max()) < 1e-6
    return raw.to(torch.uint8)


def write(model):
    config, processor, about = MODELS[model]()
    folder = HERE / model
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    parsed = AutoConfig.from_pretrained(folder)
    known = pictures()
    kind = int(config["model_type"] == "paligemma")  # what is generated is no part of the prefix
    for seed in range(200):
        net = AutoModelForImageTextToText.from_config(parsed, dtype=torch.float32, attn_implementation="eager").eval()
        randomize(net, seed, about["gains"], about["plus_one"], parsed.image_token_id)
        goldens = {}
        for name, case in about["cases"].items():
            prompt, asked, given = ask(processor, name, case, known)
            batch = prepare(processor, name, prompt, [known[n] for n in given])
            other = prepare(processor, name, prompt, [Image.fromarray(255 - np.asarray(known[n])) for n in given])
            logits = run(net, batch)
            moved = float((run(net, other)[-1] - logits[-1]).abs().max())
            halved = float((run_halved(net, batch) - logits).abs().max())
            tokens, margins = greedy(net, batch, kind)
            goldens[name] = (prompt, asked, given, batch, logits, tokens, margins, moved)
            if min(margins) < MARGIN or moved < MOVES or halved > HALVED or len(set(tokens)) < 2:
                break
        else:
            break
    else:
        raise SystemExit(f"{model}: no seed gives clear tokens")
    net.half().save_pretrained(folder)
    net.float()
    processor.save_pretrained(folder)
    for name, (prompt, asked, given, batch, logits, tokens, margins, _) in goldens.items():
        pixels = batch["pixel_values"].flatten(0, -4)
        tensors = {
            "input_ids": batch["input_ids"][0].int(),
            "pixels": torch.cat([blocks(image, 7, about["merge"]) for image in bytes_of(pixels)]),
            "image_embeds": embeddings(net, batch),
            "logits": logits,
            "greedy": torch.tensor(tokens).int(),
            "margins": torch.tensor(margins),
        }
        metadata = {"prompt": prompt, "images": json.dumps(given), "turns": json.dumps(asked)}
        if name in OPTIONS:
            metadata["crops"] = json.dumps(OPTIONS[name][0])
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{name}.golden", metadata)
    worst = min(min(g[6]) for g in goldens.values())
    print(model, f"seed {seed}, margin {worst:.3f}, moves", [round(g[7], 2) for g in goldens.values()], flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        write(name)
