"""Tiny models of the Pixtral and Mistral 3 types, for vision.py."""

import torch

PATCH = 8
TOKENS = ["<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
TEMPLATE = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST]{% endif %}"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}[IMG]{% else %}{{ p.text }}{% endif %}"
    "{% endfor %}{% endif %}{% if m.role == 'user' %}[/INST]{% else %}</s>{% endif %}{% endfor %}"
)


def rows_of(merge):
    """Pixels of a batch, [images, 3, height, width] with sizes, as rows of patches, block by block."""

    def rows(batch):
        all_rows = []
        for pixels, (height, width) in zip(batch["pixel_values"], batch["image_sizes"].tolist()):
            block = PATCH * merge
            cut = pixels[:, :height, :width].reshape(3, height // block, merge, PATCH, width // block, merge, PATCH)
            all_rows.append(cut.permute(1, 4, 2, 5, 0, 3, 6).reshape(-1, 3 * PATCH * PATCH))
        return torch.cat(all_rows)

    return rows


def models(tokenizer):
    """By type: what makes a configuration, a processor, gains of weights, and rows of pixels."""

    def parts(kind, merge, edge, root):
        from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
        from transformers.models.pixtral.processing_pixtral import PixtralProcessor

        t = tokenizer(TOKENS, bos_token="<s>", eos_token="</s>", pad_token="</s>", chat_template=TEMPLATE)
        config = {
            "model_type": kind,
            "image_token_index": t.convert_tokens_to_ids("[IMG]"),
            "tie_word_embeddings": False,
            "text_config": {
                "model_type": "mistral",
                "hidden_size": 64,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 32,
                "vocab_size": 264,
                "max_position_embeddings": 512,
                "sliding_window": None,
                "eos_token_id": t.convert_tokens_to_ids("[IMG_BREAK]"),
                "bos_token_id": None,
                "rms_norm_eps": 1e-5,
            },
            "vision_config": {
                "model_type": "pixtral",
                "hidden_size": 32,
                "intermediate_size": 40,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "patch_size": PATCH,
                "hidden_act": "silu",
            },
            **root,
        }
        images = PixtralImageProcessorPil(patch_size={"height": PATCH, "width": PATCH}, size={"longest_edge": edge})
        processor = PixtralProcessor(images, t, patch_size=PATCH, spatial_merge_size=merge, chat_template=TEMPLATE)
        return config, processor, {"embed": 1.0, "lm_head": 3.0}, rows_of(merge)

    def pixtral():
        # Of several layers, one beside the other.
        return parts("llava", 1, 52, {"vision_feature_layer": [-2, -1], "vision_feature_select_strategy": "full"})

    def mistral3():
        return parts("mistral3", 2, 75, {"vision_feature_layer": -1, "spatial_merge_size": 2})

    return {"pixtral": pixtral, "mistral3": mistral3}


def tables(random):
    """For random sizes of images [height, width]: rows and columns of patches."""
    import numpy as np
    from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size

    sizes = [[int(2 ** random.uniform(3, 9)) for _ in range(2)] for _ in range(60)]
    image = lambda size: np.zeros((3, *size), np.uint8)
    rows = lambda size, edge, block: [n // PATCH for n in get_resize_output_image_size(image(size), edge, block, "channels_first")]
    return {
        "pixtral": [[*size, *rows(size, 52, PATCH)] for size in sizes],
        "mistral3": [[*size, *rows(size, 75, 2 * PATCH)] for size in sizes],
    }
