"""Dense text architectures. A case is

    "config"   on top of BASE; "absent" takes a field out
    "without"  changes to the configuration, each of which must move the logits
    "dtype"    of the weights; f16 if not given
    "saved"    config.json as `transformers` saves it, instead of as given here: the newest spelling
    "engine"   "mlx" where `transformers` does not have the type
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
        "untied": {
            "config": {"head_dim": 8, "num_key_value_heads": 4, "tie_word_embeddings": False, "attention_bias": True, "rope_theta": 500.0},
            "without": [{"attention_bias": False}, {"rope_theta": 1e4}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "gemma2": {
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
}
