"""A prompt of more tokens than a step has outputs, all of which see each other, for a model that vision_siglip.py wrote.

    venv/bin/python tests/goldens/vision_long.py

Writes vision/paligemma/long.golden.
"""

import json

import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText
from vision import HERE, MARGIN, embeddings, greedy, run
from vision_siglip import blocks, bytes_of, paligemma, pictures

PROMPT = "describe in one sentence what this animal does and why it looks at the one who took the picture"

if __name__ == "__main__":
    folder = HERE / "paligemma"
    _, processor, about = paligemma()
    net = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    batch = dict(processor(text=[PROMPT], images=[[pictures()["cat"]]], return_tensors="pt"))
    batch.pop("labels", None)
    tokens, margins = greedy(net, batch, 1)
    assert min(margins) > MARGIN and batch["input_ids"].shape[1] > 64, (margins, batch["input_ids"].shape)
    tensors = {
        "input_ids": batch["input_ids"][0].int(),
        "pixels": torch.cat([blocks(image, 7, about["merge"]) for image in bytes_of(batch["pixel_values"].flatten(0, -4))]),
        "image_embeds": embeddings(net, batch),
        "logits": run(net, batch),
        "greedy": torch.tensor(tokens).int(),
        "margins": torch.tensor(margins),
    }
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    metadata = {"prompt": PROMPT, "images": json.dumps(["cat"]), "turns": json.dumps(turns)}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "long.golden", metadata)
    print(tokens, [round(float(m), 3) for m in margins])
