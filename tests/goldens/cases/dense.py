"""Dense text architectures. A case is

    "config"   on top of BASE; "absent" takes a field out
    "without"  changes to the configuration, each of which must move the logits
    "dtype"    of the weights; f16 if not given
    "saved"    config.json as `transformers` saves it, instead of as given here: the newest spelling
    "engine"   "mlx" where `transformers` does not have the type
    "whole"    nothing of BASE
    "vocabulary"  prompts have no token from here on
    "rename"   beginnings of tensor names, and what they become in the file
    "gains"    by part of a tensor's name, how much larger its values are than usual
"""

import torch

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1e4}
BF16 = torch.bfloat16

GEMMA3_TEXT = {"model_type": "gemma3_text", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
               "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 80, "query_pre_attn_scalar": 8, "sliding_window": 8, "sliding_window_pattern": 2,
               "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 1e4, "rope_local_base_freq": 100.0, "pad_token_id": None}
TINY_TOWER = {"model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
              "image_size": 28, "patch_size": 14}
GEMMA3 = {
    "whole": True,
    "vocabulary": 77,
    "config": {"text_config": GEMMA3_TEXT, "vision_config": TINY_TOWER, "mm_tokens_per_image": 4, "image_token_index": 79,
               "boi_token_index": 78, "eoi_token_index": 77},
}

CASES = {
    "qwen2": {
        "plain": {"config": {"rope_theta": 1e6}, "without": [{"rope_theta": 1e4}]},
        "late_window": {
            "config": {"num_hidden_layers": 3, "num_key_value_heads": 4, "tie_word_embeddings": True, "rms_norm_eps": 1e-3,
                       "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1,
                       "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 16}},
            "without": [{"use_sliding_window": False}, {"max_window_layers": 0}, {"rope_parameters": PLAIN_ROPE}],
            "dtype": BF16,
        },
    },
    "qwen3": {
        # As the model without its head is saved.
        "base": {"config": {"head_dim": 8, "tie_word_embeddings": True, "num_hidden_layers": 1}, "without": [{"rope_theta": 100.0}], "rename": {"model.": ""}},
        "wide_heads": {
            "config": {"head_dim": 12, "rope_theta": 1e6, "use_sliding_window": False, "sliding_window": 4, "rms_norm_eps": 1e-2},
            "without": [{"rms_norm_eps": 1e-6}, {"rope_theta": 1e4}],
        },
        "biases": {
            "config": {"head_dim": "absent", "num_attention_heads": 1, "num_key_value_heads": 1, "attention_bias": True,
                       "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "tie_word_embeddings": True},
            "without": [{"attention_bias": False}, {"use_sliding_window": False}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "gemma": {
        "plain": {"config": {"head_dim": 16, "num_key_value_heads": 1, "hidden_act": "gelu", "rms_norm_eps": 0.1},
                  "without": [{"rms_norm_eps": 1e-6}]},
        "silu": {"config": {"head_dim": 8, "hidden_act": "silu", "num_hidden_layers": 1}, "without": [{"hidden_act": "gelu"}]},
        "untied": {
            "config": {"head_dim": 8, "num_key_value_heads": 4, "tie_word_embeddings": False, "attention_bias": True, "rope_theta": 500.0},
            "without": [{"attention_bias": False}, {"rope_theta": 1e4}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "gemma2": {
        # Of both fields one counts. Heads of keys are the class's, and so are the caps.
        "relu": {"config": {"head_dim": 8, "hidden_act": "silu", "hidden_activation": "relu", "num_key_value_heads": "absent", "num_hidden_layers": 1},
                 "without": [{"hidden_activation": "gelu_pytorch_tanh"}]},
        "by_head": {
            "config": {"head_dim": 12, "query_pre_attn_scalar": 12, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 6.0, "sliding_window": 8},
            "without": [{"attn_logit_softcapping": None}, {"sliding_window": 64}],
        },
        "caps": {
            "config": {"head_dim": 12, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 6.0, "sliding_window": 8},
            "without": [{"attn_logit_softcapping": None}, {"final_logit_softcapping": None}, {"sliding_window": 64}, {"query_pre_attn_scalar": 12}],
        },
        "layer_types": {
            "config": {"head_dim": 8, "num_key_value_heads": 1, "attn_logit_softcapping": None, "final_logit_softcapping": None, "sliding_window": 6,
                       "query_pre_attn_scalar": 8, "layer_types": ["full_attention", "sliding_attention", "sliding_attention"], "num_hidden_layers": 3},
            "without": [{"layer_types": None}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "gemma3_text": {
        "every_sixth": {
            "config": {"head_dim": 8, "query_pre_attn_scalar": 8, "num_hidden_layers": 6, "sliding_window": 8, "rope_theta": 1e6,
                       "rope_local_base_freq": 1e4},
            "without": [{"sliding_window": 64}, {"sliding_window_pattern": 3}],
        },
        "old_spelling": {
            "config": {"head_dim": 12, "query_pre_attn_scalar": 8, "num_hidden_layers": 3, "sliding_window": 8, "sliding_window_pattern": 3,
                       "rope_theta": 1e6, "rope_local_base_freq": 100.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                       "attn_logit_softcapping": 1.0, "final_logit_softcapping": 5.0},
            "without": [{"sliding_window": 64}, {"sliding_window_pattern": 2}, {"rope_local_base_freq": 1e4}, {"rope_scaling": None},
                        {"final_logit_softcapping": None}],
        },
        "by_layer_type": {
            "config": {"head_dim": 16, "num_key_value_heads": 1, "query_pre_attn_scalar": 16, "sliding_window": 5,
                       "layer_types": ["sliding_attention", "full_attention"],
                       "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e3},
                                           "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}},
            "without": [{"rope_parameters": None}, {"layer_types": None}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "phi": {
        "plain": {"config": {"layer_norm_eps": 1e-2, "num_key_value_heads": "absent", "hidden_size": 48},
                  "without": [{"layer_norm_eps": 1e-5}, {"partial_rotary_factor": 1.0}, {"hidden_act": "silu"}]},
        "head_norms": {
            "config": {"qk_layernorm": True, "partial_rotary_factor": 0.25, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 100.0},
            "without": [{"qk_layernorm": False}, {"partial_rotary_factor": 0.5}],
            "saved": True,
            "dtype": BF16,
        },
        "wide": {"config": {"intermediate_size": 128, "num_key_value_heads": "absent", "partial_rotary_factor": 0.5},
                 "without": [{"partial_rotary_factor": 1.0}]},
        # Its head has a bias, tied or not.
        "tied": {"config": {"tie_word_embeddings": True, "num_hidden_layers": 1}, "without": [{"partial_rotary_factor": 1.0}]},
    },
    "phi3": {
        "partial": {
            "config": {"partial_rotary_factor": 0.75, "hidden_size": 64, "sliding_window": 6, "num_hidden_layers": 1, "tie_word_embeddings": True},
            "without": [{"partial_rotary_factor": 1.0}, {"sliding_window": None}],
        },
        "long": {
            "config": {"original_max_position_embeddings": 16, "max_position_embeddings": 128, "sliding_window": None, "num_key_value_heads": 4,
                       "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.0, 2.0, 5.0, 9.0]}},
            "without": [{"original_max_position_embeddings": 64}, {"rope_scaling": None}],
            "dtype": BF16,
        },
        "short": {
            "config": {"original_max_position_embeddings": 64, "max_position_embeddings": 512, "num_hidden_layers": 1,
                       "rope_scaling": {"type": "yarn", "short_factor": [1.0, 1.5, 3.0, 7.0], "long_factor": [1.0, 2.0, 5.0, 9.0]}},
            "without": [{"original_max_position_embeddings": 16}, {"rope_scaling": None}],
        },
    },
    "glm4": {
        "plain": {"config": {"head_dim": 12}, "without": [{"partial_rotary_factor": 1.0}, {"attention_bias": False}]},
        "unbiased": {
            "config": {"head_dim": 8, "num_key_value_heads": 4, "attention_bias": False, "tie_word_embeddings": True, "rms_norm_eps": 0.1,
                       "partial_rotary_factor": 0.75, "rope_theta": 300.0},
            "without": [{"rms_norm_eps": 1e-6}, {"rope_theta": 1e4}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "cohere": {
        "plain": {"config": {"logit_scale": 0.7, "layer_norm_eps": 1e-2}, "without": [{"logit_scale": 0.9}, {"layer_norm_eps": 1e-5}, {"rope_theta": 1e4}]},
        "head_norms": {
            "config": {"logit_scale": 0.8, "use_qk_norm": True, "attention_bias": True, "tie_word_embeddings": False, "num_key_value_heads": 1,
                       "hidden_size": 48, "rope_theta": 200.0},
            "without": [{"use_qk_norm": False}, {"attention_bias": False}, {"rope_theta": 5e5}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "cohere2": {
        "pattern": {
            "config": {"logit_scale": 0.7, "num_hidden_layers": 3, "sliding_window": 7, "sliding_window_pattern": 2},
            "without": [{"sliding_window": 64}, {"sliding_window_pattern": 3}, {"rope_theta": 100.0}],
        },
        "layer_types": {
            "config": {"logit_scale": 0.9, "sliding_window": 5, "layer_types": ["full_attention", "sliding_attention"], "num_key_value_heads": 4,
                       "attention_bias": True, "rope_theta": 50.0},
            "without": [{"layer_types": None}, {"attention_bias": False}, {"rope_theta": 1e4}],
            "saved": True,
            "dtype": BF16,
        },
        "every_fourth": {
            "config": {"logit_scale": 0.7, "num_hidden_layers": 4, "sliding_window": 7},
            "without": [{"sliding_window": 64}, {"sliding_window_pattern": 2}],
        },
    },
    "olmo": {
        "plain": {"config": {}, "without": [{"rope_theta": 100.0}, {"clip_qkv": 0.5}]},
        "clipped": {
            "config": {"clip_qkv": 0.8, "attention_bias": True, "num_key_value_heads": "absent", "rope_theta": 100.0},
            "without": [{"clip_qkv": None}, {"attention_bias": False}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "olmo2": {
        "plain": {"config": {"rope_theta": 5e5, "rms_norm_eps": 0.1}, "without": [{"rope_theta": 1e4}, {"rms_norm_eps": 1e-6}]},
        "biased": {
            "config": {"attention_bias": True, "tie_word_embeddings": True, "num_key_value_heads": "absent", "rope_theta": 1e4,
                       "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
            "without": [{"attention_bias": False}, {"rope_scaling": None}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "granite": {
        "multipliers": {
            "config": {"embedding_multiplier": 3.0, "residual_multiplier": 0.6, "attention_multiplier": 0.25, "logits_scaling": 1.3},
            "without": [{"embedding_multiplier": 1.0}, {"residual_multiplier": 1.0}, {"attention_multiplier": 0.35}, {"logits_scaling": 1.0}],
        },
        "biases": {
            "config": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 1, "hidden_size": 48, "head_dim": 8,
                       "rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4} | LLAMA3},
            "without": [{"attention_bias": False}, {"mlp_bias": False}, {"attention_multiplier": 0.5}, {"rope_parameters": PLAIN_ROPE}],
            "dtype": BF16,
        },
    },
    "stablelm": {
        "biases": {
            "config": {"use_qkv_bias": True, "layer_norm_eps": 1e-2, "rope_theta": 100.0, "head_dim": "absent", "hidden_size": 64},
            "without": [{"use_qkv_bias": False}, {"layer_norm_eps": 1e-5}, {"partial_rotary_factor": 0.5}],
        },
        "head_norms": {
            "config": {"qk_layernorm": True, "use_parallel_residual": True, "partial_rotary_factor": 0.5, "rope_theta": 100.0,
                       "tie_word_embeddings": True, "hidden_act": "gelu"},
            "without": [{"qk_layernorm": False}, {"use_parallel_residual": False}, {"partial_rotary_factor": 1.0}, {"hidden_act": "silu"}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "starcoder2": {
        "defaults": {"config": {"num_key_value_heads": "absent", "hidden_act": "absent", "num_hidden_layers": 1}, "without": [{"hidden_act": "relu"}]},
        "plain": {"config": {"norm_epsilon": 1e-2}, "without": [{"norm_epsilon": 1e-5}, {"hidden_act": "silu"}, {"use_bias": False}]},
        "window": {
            "config": {"use_bias": False, "sliding_window": 6, "tie_word_embeddings": False, "num_key_value_heads": 4, "rope_theta": 100.0, "hidden_act": "gelu"},
            "without": [{"sliding_window": None}, {"rope_theta": 1e4}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "smollm3": {
        "every_fourth": {"config": {"num_hidden_layers": 4, "rope_theta": 2e3}, "without": [{"no_rope_layer_interval": 2}]},
        "interval": {"config": {"num_hidden_layers": 3, "no_rope_layer_interval": 2, "sliding_window": 8},
                     "without": [{"no_rope_layer_interval": 4}, {"rope_theta": 1e4}]},
        "window": {
            "config": {"no_rope_layers": [0, 1], "use_sliding_window": True, "sliding_window": 6, "attention_bias": True, "mlp_bias": True,
                       "tie_word_embeddings": False, "num_key_value_heads": 4, "rope_theta": 100.0},
            "without": [{"no_rope_layers": [1, 0]}, {"use_sliding_window": False}, {"attention_bias": False}, {"mlp_bias": False}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "exaone4": {
        "hybrid": {
            "config": {"num_hidden_layers": 3, "sliding_window": 7, "sliding_window_pattern": 2, "head_dim": 12, "rope_theta": 1e3},
            "without": [{"sliding_window": 64}, {"sliding_window_pattern": 3}, {"rope_theta": 1e4}],
        },
        "every_fourth": {
            "config": {"num_hidden_layers": 4, "sliding_window": 7, "rope_theta": 1e3},
            "without": [{"sliding_window": 64}, {"sliding_window_pattern": 2}],
        },
        "full": {
            "config": {"sliding_window": None, "layer_types": ["full_attention"] * 2, "num_key_value_heads": 4, "tie_word_embeddings": True, "rms_norm_eps": 0.1, "rope_theta": 1e4,
                       "rope_scaling": LLAMA3},
            "without": [{"rope_scaling": None}, {"rms_norm_eps": 1e-6}],
            "dtype": BF16,
        },
    },
    "ernie4_5": {
        "plain": {"config": {"head_dim": 12, "rms_norm_eps": 0.1}, "without": [{"rms_norm_eps": 1e-6}, {"rope_theta": 1e4}]},
        "biases": {
            "config": {"head_dim": 16, "use_bias": True, "tie_word_embeddings": False, "num_key_value_heads": 1, "rope_theta": 100.0},
            "without": [{"use_bias": False}, {"rope_theta": 5e5}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "internlm2": {
        "biases": {"engine": "mlx", "config": {"rms_norm_eps": 1e-2}, "without": [{"bias": False}, {"rms_norm_eps": 1e-6}]},
        "plain": {
            "engine": "mlx",
            "config": {"bias": False, "num_key_value_heads": 4, "tie_word_embeddings": True, "rope_theta": 1e6, "rms_norm_eps": 1e-5,
                       "rope_scaling": {"type": "linear", "factor": 2.0}},
            "without": [{"rope_theta": 1e4}, {"rope_scaling": None}],
            "dtype": BF16,
        },
    },
    "minicpm": {
        "plain": {
            "engine": "mlx",
            "config": {"rms_norm_eps": 1e-2, "rope_theta": 1e4, "scale_emb": 2.0, "scale_depth": 1.4, "dim_model_base": 24},
            "without": [{"scale_emb": 1.0}, {"scale_depth": 1.0}, {"dim_model_base": 32}, {"rope_theta": 1e6}],
        },
        "as_many_keys": {
            "engine": "mlx",
            "config": {"rms_norm_eps": 1e-5, "rope_theta": 100.0, "scale_emb": 1.0, "scale_depth": 2.0, "dim_model_base": 32, "num_key_value_heads": 4,
                       "num_hidden_layers": 1},
            "without": [{"scale_depth": 1.0}, {"rope_theta": 1e4}],
            "dtype": BF16,
        },
    },
    "helium": {
        "plain": {"config": {"head_dim": 8}, "without": [{"rope_theta": 100.0}, {"rms_norm_eps": 0.1}]},
        "biases": {
            "config": {"head_dim": 8, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4, "tie_word_embeddings": True, "rope_theta": 100.0},
            "without": [{"attention_bias": False}, {"mlp_bias": False}, {"rope_theta": 1e5}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "hunyuan_v1_dense": {
        "alpha": {
            "config": {"head_dim": 12, "rope_theta": 100.0, "rope_scaling": {"type": "dynamic", "alpha": 50.0, "factor": 1.0}, "max_position_embeddings": 16},
            "without": [{"rope_scaling": None}],
        },
        "biases": {
            "config": {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 1, "rms_norm_eps": 0.1},
            "without": [{"attention_bias": False}, {"rms_norm_eps": 1e-6}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "seed_oss": {
        "plain": {"config": {"head_dim": 12, "num_key_value_heads": 1}, "without": [{"attention_bias": False}, {"rope_theta": 100.0}]},
        "biases": {
            "config": {"head_dim": 8, "num_key_value_heads": 4, "attention_out_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "rope_theta": 1e3},
            "without": [{"attention_out_bias": False}, {"mlp_bias": False}, {"rope_theta": 1e4}],
            "saved": True,
            "dtype": BF16,
        },
    },
    # Only the text model answers here; the tower is there to be left out.
    "gemma3": {
        "old_names": GEMMA3 | {"without": [{"text_config": GEMMA3_TEXT | {"rope_scaling": None}}]},
        "new_names": GEMMA3 | {
            "config": GEMMA3["config"] | {"text_config": GEMMA3_TEXT | {"layer_types": ["full_attention", "sliding_attention"]}},
            "without": [{"text_config": GEMMA3_TEXT}],
            "rename": {"language_model.model.": "model.language_model.", "vision_tower.": "model.vision_tower.",
                       "multi_modal_projector.": "model.multi_modal_projector."},
            "dtype": BF16,
        },
    },
}
