"""Architectures with operations of their own. What a case is: see dense.py. Here also

    "shell"    the model is the text part of a multimodal one of this type, whose other parts are absent
"""

import torch

BF16 = torch.bfloat16

GEMMA3N = {
    "model_type": "gemma3n_text",
    "head_dim": 8,
    "num_hidden_layers": 5,
    "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention", "full_attention"],
    "sliding_window": 7,
    "num_kv_shared_layers": 2,
    "rope_local_base_freq": 100.0,
    "vocab_size_per_layer_input": 80,
    "hidden_size_per_layer_input": 4,
    "laurel_rank": 6,
    "activation_sparsity_pattern": [0.7, 0.0, 0.95, 0.0, 0.3],
}

CASES = {
    "lfm2": {
        "layer_types": {
            "config": {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"], "norm_eps": 1e-2, "block_auto_adjust_ff_dim": False,
                       "rope_theta": 1e3},
            "without": [{"norm_eps": 1e-6}, {"rope_theta": 1e6}],
        },
        "adjusted": {
            "config": {"num_hidden_layers": 3, "full_attn_idxs": [2], "block_ff_dim": 60, "intermediate_size": "absent", "conv_L_cache": 5, "conv_bias": True,
                       "block_multiple_of": 16, "block_ffn_dim_multiplier": 0.9, "tie_embedding": False, "num_key_value_heads": 4},
            "without": [{"conv_bias": False}],
            "dtype": BF16,
        },
    },
    "apertus": {
        "plain": {"config": {"rms_norm_eps": 1e-2}, "without": [{"rms_norm_eps": 1e-5}, {"rope_theta": 1e2, "rope_scaling": {"rope_type": "linear", "factor": 1.0}}]},
        "biases": {
            "config": {"attention_bias": True, "num_key_value_heads": 1, "tie_word_embeddings": True, "rope_theta": 1e4,
                       "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
            "without": [{"attention_bias": False}, {"rope_scaling": {"rope_type": "linear", "factor": 1.0}}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "gemma3n_text": {
        "shared": {
            "config": GEMMA3N,
            "without": [{"sliding_window": 64}, {"rope_local_base_freq": 1e4}, {"activation_sparsity_pattern": [0.0] * 5}, {"final_logit_softcapping": 3.0},
                        {"altup_correct_scale": False}],
        },
        "each_its_own": {
            "config": GEMMA3N | {"num_hidden_layers": 3, "layer_types": ["full_attention", "sliding_attention", "sliding_attention"], "num_kv_shared_layers": 0,
                                 "intermediate_size": [24, 48, 32], "activation_sparsity_pattern": [0.5, 0.0, 0.9], "altup_num_inputs": 3, "altup_active_idx": 1,
                                 "num_key_value_heads": 1, "final_logit_softcapping": 6.0, "altup_correct_scale": False},
            "without": [{"sliding_window": 64}, {"altup_active_idx": 0}, {"altup_correct_scale": True}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "gemma3n": {
        # Tokens from 70 on have no embedding for each layer: they take row 0's, in transformers 5.24 and later.
        "late_tokens": {"config": GEMMA3N | {"vocab_size_per_layer_input": 70}, "without": [{"num_kv_shared_layers": 3}], "shell": "gemma3n"},
        "five_streams": {
            "config": GEMMA3N | {"altup_num_inputs": 5, "num_hidden_layers": 2, "layer_types": "absent", "num_kv_shared_layers": 0, "head_dim": 12,
                                 "activation_sparsity_pattern": [0.95, 0.0], "intermediate_size": 40, "hidden_size_per_layer_input": 6},
            "without": [{"sliding_window": 64}, {"rope_local_base_freq": 1e4}],
            "shell": "gemma3n",
            "dtype": BF16,
        },
    },
}
