"""Videos for the tiny models of vision.py and vision_siglip.py, whose packages this needs, and what transformers makes of them.

    venv/bin/python tests/goldens/vision_video.py [TYPE | films | tables]...

Keeps the models, and adds goldens of videos to vision/TYPE; `films` draws the videos, `tables` asks transformers about random ones.
transformers resizes frames with torchvision alone. Here Pillow does, as for images, after it was made sure that this
changes no value by more than 3 levels of 255, and few at all.
"""

import json
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms.v2 import functional as tvF
from transformers import AutoModelForImageTextToText
from transformers.image_processing_utils import BatchFeature
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata
import vision
import vision_siglip
from vision import HERE, MARGIN, MOVES, bytes_of, greedy, images, run

FILMS = HERE / "films"
FPS = 5.0


def films():
    """A view that moves over the cat: frames in a folder, whose names need counting, and the same as animations."""
    cat = images()["cat"]
    frames = [cat.crop((4 * i, 8 + 3 * i, 4 * i + 80, 44 + 3 * i)) for i in range(11)]
    (FILMS / "pan").mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(frames):
        frame.save(FILMS / "pan" / f"frame{i + 1}.png", optimize=True)
    more = {"save_all": True, "duration": 200, "loop": 0}
    small = [frame.crop((0, 0, 40, 28)) for frame in frames]
    small[0].save(FILMS / "pan.webp", append_images=small[1:], lossless=True, **more)
    # Parts of frames that change, over what stays.
    still = small[0]
    dots = [still.copy() for _ in range(4)]
    for i, dot in enumerate(dots):
        dot.paste((255, 40 * i, 0), (4 + 6 * i, 5, 12 + 6 * i, 15))
    dots[0].save(FILMS / "dot.png", append_images=dots[1:], **more)
    quantized = [dot.quantize(32, dither=Image.Dither.NONE) for dot in dots]
    quantized[0].save(FILMS / "dot.gif", append_images=quantized[1:], **more)
    pixels = {}
    for path in sorted(FILMS.iterdir()):
        if path.suffix in (".webp", ".png", ".gif"):
            film = Image.open(path)
            read = []
            for i in range(film.n_frames):
                film.seek(i)
                read.append(np.asarray(film.convert("RGB")))
            pixels[path.name] = torch.from_numpy(np.stack(read))
    assert all(len(v) == (11 if "pan" in name else 4) for name, v in pixels.items())
    save_file(pixels, FILMS / "pixels.golden")


def pan(invert=False):
    frames = [np.asarray(Image.open(FILMS / "pan" / f"frame{i + 1}.png").convert("RGB")) for i in range(11)]
    return np.stack([255 - f for f in frames] if invert else frames)


def resize(self, image, size, resample=None, **_):
    shape = image.shape[:-2]
    flat = image.reshape(-1, *image.shape[-3:])
    pillow = [Image.fromarray(f.permute(1, 2, 0).numpy()).resize((size.width, size.height), resample) for f in flat]
    found = torch.from_numpy(np.stack([np.asarray(f) for f in pillow])).permute(0, 3, 1, 2)
    mode = {1: "lanczos", 3: "bicubic"}[int(resample)]
    theirs = tvF.resize(flat, [size.height, size.width], interpolation=tvF.InterpolationMode(mode), antialias=True)
    off = (found.int() - theirs.int()).abs()
    assert off.max() <= 3 and (off > 0).float().mean() < 0.02, (off.max(), (off > 0).float().mean())
    return found.reshape(*shape, size.height, size.width)


# By case: turns before the question, how many of the frames there are, and how they are sampled.
CASES = {"film": (["film"], 5, {}), "sampled": (["cup", "then", "film"], 11, {"fps": 2.0})}
SMOLVLM = {"film": (["film"], 11, {"fps": 1.0, "num_frames": 4})}
# Asked until the answer is clear.
QUESTIONS = ["What happens?", "Why?", "What moves?", "What is it?", "Who is there?", "And then?", "Where to?", "How fast?", "What for?", "Is it so?"]


def prepare(processor, case, question, invert=False):
    parts, count, sampling = case
    kinds = {"film": {"type": "video"}, "cup": {"type": "image"}}
    asked = [{"role": "user", "content": [kinds.get(p, {"type": "text", "text": p}) for p in [*parts, question]]}]
    prompt = processor.apply_chat_template(asked, chat_template=processor.chat_template, add_generation_prompt=True, tokenize=False)
    cup = images()["cup"]
    cup = Image.fromarray(255 - np.asarray(cup)) if invert else cup
    given = {"images": [[cup]]} if "cup" in parts else {}
    metadata = VideoMetadata(total_num_frames=count, fps=FPS, duration=count / FPS, frames_indices=list(range(count)))
    batch = processor(
        text=[prompt],
        videos=[pan(invert)[:count]],
        video_metadata=[metadata],
        do_sample_frames=bool(sampling),
        return_tensors="pt",
        **given,
        **sampling,
    )
    return prompt, asked, {k: v for k, v in dict(batch).items() if k != "video_metadata"}


def write(model_type):
    _, processor, *about = (vision.MODELS | vision_siglip.MODELS)[model_type]()
    folder = HERE / model_type
    is_qwen = "qwen" in model_type
    net = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    processor.save_pretrained(folder)
    for name, (parts, count, sampling) in (CASES if is_qwen else SMOLVLM).items():
        # This type looks at some of the frames unless it is told.
        case = (parts, count, {"num_frames": count, "fps": None} if model_type == "qwen3_vl" and not sampling else sampling)
        for question in QUESTIONS:
            prompt, asked, batch = prepare(processor, case, question)
            logits = run(net, batch)
            moved = float((run(net, prepare(processor, case, question, True)[2])[-1] - logits[-1]).abs().max())
            tokens, margins = greedy(net, batch)
            if moved > MOVES and min(margins) > MARGIN:
                break
        else:
            raise SystemExit(f"{model_type}: no question gives clear tokens")
        tensors = {"input_ids": batch["input_ids"][0].int(), "logits": logits}
        tensors |= {"greedy": torch.tensor(tokens).int(), "margins": torch.tensor(margins)}
        with torch.no_grad():
            if is_qwen:
                tensors |= qwen(net, processor, batch)
            else:
                features = net.get_image_features(batch["pixel_values"], batch["pixel_attention_mask"])
                features = getattr(features, "pooler_output", features)
                features = torch.cat(list(features)) if isinstance(features, (list, tuple)) else features
                tensors["image_embeds"] = features.reshape(-1, features.shape[-1])
                frames = vision_siglip.bytes_of(batch["pixel_values"].flatten(0, -4))
                tensors["pixels"] = torch.cat([vision_siglip.blocks(f, 7, about[0]["merge"]) for f in frames])
        films_ = [{"path": "pan", "frames": case[1], "fps": FPS}]
        metadata = {
            "prompt": prompt,
            "turns": json.dumps(asked),
            "images": json.dumps([p for p in case[0] if p == "cup"]),
            "films": json.dumps(films_),
            "sampling": json.dumps(case[2]),
        }
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{name}.golden", metadata)
        print(model_type, name, question, f"{len(tensors['input_ids'])} tokens, moves {moved:.2f}, margins", [round(m, 2) for m in margins])


def qwen(net, processor, batch):
    """Stages, images before videos, as they are in the prompts here."""

    class Half:
        image_processor = processor.video_processor

    parts = {"pixels": [], "image_embeds": []}
    kinds = [("pixel_values", "image_grid_thw", net.get_image_features, processor)]
    kinds.append(("pixel_values_videos", "video_grid_thw", net.get_video_features, Half))
    for pixels, grid, features, of in kinds:
        if pixels not in batch:
            continue
        out = features(**{pixels: batch[pixels], grid: batch[grid]})
        more = getattr(out, "deepstack_features", None) or []
        out = getattr(out, "pooler_output", out)
        out = [torch.cat(list(part)) if isinstance(part, (list, tuple)) else part for part in (out, *more)]
        parts["image_embeds"].append(torch.cat([part.reshape(-1, part.shape[-1]) for part in out], 1))
        rows = batch[pixels]
        parts["pixels"].append(bytes_of(rows.reshape(rows.shape[0], 3, -1), of).reshape(rows.shape))
    found = {name: torch.cat(values) for name, values in parts.items()}
    names = ("input_ids", "image_grid_thw", "video_grid_thw", "attention_mask", "mm_token_type_ids", "second_per_grid_ts")
    given = {k: batch[k] for k in names if k in batch}
    found["position_ids"] = net.model.get_rope_index(**given)[0][:, 0].int()
    for grid in ("image_grid_thw", "video_grid_thw"):
        if grid in batch:
            found[grid] = batch[grid].int()
    return found


def tables():
    """What processors of transformers say of random videos, with what their classes have as defaults, and positions of random
    mixes of text, images and videos."""
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor, smart_resize
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as smart_resize_3
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    random = np.random.default_rng(5)
    two, three, smol = Qwen2VLVideoProcessor(), Qwen3VLVideoProcessor(), SmolVLMVideoProcessor()
    found = {"qwen2_vl": [], "qwen3_vl": [], "smolvlm": []}
    while len(found["qwen2_vl"]) < 60:
        size = [int(2 ** random.uniform(4, 11)) for _ in range(2)]
        if max(size) / min(size) > 100:
            continue
        count, fps = int(random.integers(2, 400)), float(random.choice([5, 12.5, 24, 29.97, 30, 60]))
        sampling = [{"fps": float(random.choice([0.5, 1, 2, 3.3]))}, {"num_frames": int(random.integers(1, count + 1))}][random.integers(2)]
        metadata = VideoMetadata(total_num_frames=count, fps=fps, duration=count / fps)
        row = {"size": size, "frames": count, "fps": fps, "sampling": sampling}
        try:
            wanted = two.sample_frames(metadata, **sampling)
        except (ValueError, ZeroDivisionError):
            continue
        # In floats there may be one too many, beyond the last.
        if len(wanted) % 2 == 0 and wanted[-1] < count:
            grid = [len(wanted) // 2, *(n // 14 for n in smart_resize(*size, 28, 128 * 28 * 28, 28 * 28 * 768))]
            found["qwen2_vl"].append(row | {"wanted": wanted.tolist(), "grid": grid})
        wanted = three.sample_frames(metadata, **sampling).tolist()
        if len(wanted) > 1:
            t = (len(wanted) + 1) // 2
            grid = [t, *(n // 16 for n in smart_resize_3(len(wanted), *size, 2, 32, 128 * 32 * 32, 32 * 32 * 768))]
            times = Qwen3VLProcessor._calculate_timestamps(None, list(wanted), fps, 2)
            found["qwen3_vl"].append(row | {"wanted": wanted, "grid": grid, "times": [f"{time:.1f}" for time in times]})
        sampling = {"fps": float(random.choice([0.5, 1, 2])), "num_frames": int(random.integers(1, 12))}
        wanted = smol.sample_frames(metadata, **sampling).tolist()
        found["smolvlm"].append(row | {"sampling": sampling, "wanted": wanted})
    found["mixes"] = mixes(random)
    (HERE / "films.json").write_text(json.dumps(found))


def mixes(random):
    """Prompts of Qwen2.5-VL. Videos are so short that the reference counts on from their last row or column, as is right."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    net = Qwen2_5_VLForConditionalGeneration._from_config(Qwen2_5_VLConfig.from_pretrained(HERE / "qwen2_5_vl"))
    image, video = net.config.image_token_id, net.config.video_token_id
    found = []
    while len(found) < 40:
        grids, tokens, kinds = {image: [], video: []}, [], []
        seconds = []
        for _ in range(random.integers(1, 5)):
            tokens += [1] * int(random.integers(0, 6)) + [2]
            kind = int(random.choice([image, video]))
            grid = [1, *(2 * int(n) for n in random.integers(1, 7, 2))]
            if kind == video:
                grid[0] = int(random.integers(1, 6))
                seconds.append(float(random.choice([0.1, 0.25, 0.4, 2 / 24, 2 / 29.97])))
                if int((grid[0] - 1) * 4 * np.float32(seconds[-1])) >= max(grid[1:]) // 2:
                    grid[0] = 1
            kinds.append([int(kind == video), *grid])
            grids[kind].append(grid)
            tokens += [kind] * (grid[0] * grid[1] * grid[2] // 4) + [2] * int(random.integers(1, 4))
        ids = torch.tensor([tokens])
        positions, _ = net.model.get_rope_index(
            input_ids=ids,
            mm_token_type_ids=(ids == image).int() + 2 * (ids == video).int(),
            image_grid_thw=torch.tensor(grids[image]) if grids[image] else None,
            video_grid_thw=torch.tensor(grids[video]) if grids[video] else None,
            second_per_grid_ts=torch.tensor(seconds),
            attention_mask=torch.ones_like(ids),
        )
        found.append({"tokens": tokens, "image_token": image, "video_token": video, "media": kinds, "seconds": seconds, "positions": positions[:, 0].T.tolist()})
    return found


BaseVideoProcessor.resize = resize
EXTRA = {"films": films, "tables": tables}

if __name__ == "__main__":
    for name in sys.argv[1:] or [*EXTRA, "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm"]:
        EXTRA[name]() if name in EXTRA else write(name)
