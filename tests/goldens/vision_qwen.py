"""Tiny models of the Qwen2.5-VL and Qwen3-VL types, for vision.py."""

PATCH = 8
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 264,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "pad_token_id": None,
}


def models(tokenizer, template, tokens):
    """By type: what makes a configuration, a processor, and gains of weights."""

    def parts(kind, text, vision):
        t = tokenizer(tokens, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template)
        ids = {name: t.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end", "image_pad", "video_pad")}
        config = {
            "model_type": kind,
            "image_token_id": ids["image_pad"],
            "video_token_id": ids["video_pad"],
            "vision_start_token_id": ids["vision_start"],
            "vision_end_token_id": ids["vision_end"],
            "tie_word_embeddings": False,
            "text_config": {"model_type": f"{kind}_text", "eos_token_id": ids["vision_start"], **TEXT, **text},
            "vision_config": {"model_type": f"{kind}_vision", "patch_size": PATCH, "out_hidden_size": 64, **vision},
        }
        return t, config

    def image_processor(**options):
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        # The landscape is made smaller, the portrait as well, and neither is whole windows.
        return Qwen2VLImageProcessorPil(patch_size=PATCH, max_pixels=4600, min_pixels=1024, **options)

    def qwen2_5_vl():
        from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
        from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

        text = {"num_hidden_layers": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}}
        vision = {"depth": 3, "hidden_size": 24, "num_heads": 2, "intermediate_size": 40, "window_size": 32, "fullatt_block_indexes": [1]}
        t, config = parts("qwen2_5_vl", text, vision)
        films = Qwen2VLVideoProcessor(patch_size=PATCH, min_pixels=256, max_pixels=3000)
        processor = Qwen2_5_VLProcessor(image_processor(), t, films, chat_template=template)
        return config, processor, {"embed": 1.0, "lm_head": 3.0}

    def qwen3_vl():
        from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
        from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

        rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
        text = {"num_hidden_layers": 2, "head_dim": 32, "rope_parameters": rope}
        vision = {
            "depth": 3,
            "hidden_size": 24,
            "num_heads": 2,
            "intermediate_size": 40,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1],
        }
        t, config = parts("qwen3_vl", text, vision)
        half = [0.5, 0.5, 0.5]
        films = Qwen3VLVideoProcessor(patch_size=PATCH, size={"shortest_edge": 1024, "longest_edge": 12_000})
        processor = Qwen3VLProcessor(image_processor(image_mean=half, image_std=half), t, films, chat_template=template)
        return config, processor, {"embed": 1.0, "lm_head": 3.0}

    return {"qwen2_5_vl": qwen2_5_vl, "qwen3_vl": qwen3_vl}


def tables(random):
    """For random sizes of images [height, width]: windows and their order, and a table's entries and shares."""
    import torch
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_window_index

    windows, taps = [], []
    for _ in range(24):
        size = [int(n) for n in random.integers(20, 200, 2)]
        grid = [1, *(n // PATCH for n in smart_resize(*size, 2 * PATCH, 1024, 4600))]
        order, ends = get_vision_window_index(torch.tensor([grid]), 2, 32, PATCH)
        windows.append({"size": size, "order": order.tolist(), "windows": ends.diff().tolist()})
        entries, shares = get_vision_interpolation_indices_and_weights(torch.tensor([grid]), 6, "bilinear", True, 2)
        if len(taps) < 6:
            taps.append({"size": size, "taps": entries.flatten().tolist(), "shares": shares.flatten().tolist()})
    return {"windows": windows, "taps": taps}
