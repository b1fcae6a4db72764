"""Mixtures of experts. Cases are as in dense.py, and each has

    "steady"   no choice of experts is so close a call that a little noise in the embeddings moves the logits
"""

import torch

BF16 = torch.bfloat16
LONG = {"type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [1.0, 4.0, 8.0, 16.0], "short_mscale": 1.2, "long_mscale": 0.7}

CASES = {
    "mixtral": {
        "plain": {
            "config": {"num_local_experts": 4, "num_experts_per_tok": 2, "rope_theta": 1e4, "rms_norm_eps": 1e-2},
            "without": [{"num_experts_per_tok": 1}, {"rope_theta": 1e6}, {"rms_norm_eps": 1e-5}],
        },
        "window": {
            "config": {"num_local_experts": 6, "num_experts_per_tok": 3, "sliding_window": 8, "num_key_value_heads": 4, "head_dim": 12,
                       "intermediate_size": 20, "tie_word_embeddings": True},
            "without": [{"sliding_window": None}, {"num_experts_per_tok": 2}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "qwen2_moe": {
        "shared": {
            "config": {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "shared_expert_intermediate_size": 28},
            "without": [{"norm_topk_prob": True}, {"num_experts_per_tok": 2}],
        },
        "dense_layers": {
            "config": {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 22, "shared_expert_intermediate_size": 16,
                       "num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3], "norm_topk_prob": True, "qkv_bias": False,
                       "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2, "tie_word_embeddings": True},
            "without": [{"norm_topk_prob": False}, {"use_sliding_window": False}, {"max_window_layers": 4}],
            "dtype": BF16,
        },
    },
    "qwen3_moe": {
        "plain": {
            "config": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 12, "norm_topk_prob": True,
                       "rope_theta": 1e6},
            "without": [{"norm_topk_prob": False}, {"rope_theta": 1e4}],
        },
        "dense_layers": {
            "config": {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "num_hidden_layers": 3, "decoder_sparse_step": 2,
                       "attention_bias": True, "use_sliding_window": True, "sliding_window": 8, "num_key_value_heads": 1},
            "without": [{"norm_topk_prob": True}, {"use_sliding_window": False}, {"attention_bias": False}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "olmoe": {
        "plain": {
            "config": {"num_experts": 8, "num_experts_per_tok": 3, "num_key_value_heads": "absent", "intermediate_size": 24},
            "without": [{"norm_topk_prob": True}, {"num_experts_per_tok": 2}],
        },
        "clipped": {
            "config": {"num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 28, "clip_qkv": 1.5, "norm_topk_prob": True,
                       "attention_bias": True},
            "without": [{"clip_qkv": None}, {"norm_topk_prob": False}, {"attention_bias": False}],
            "saved": True,
            "dtype": BF16,
        },
    },
    "phimoe": {
        "plain": {
            "config": {"num_local_experts": 4, "intermediate_size": 24, "router_jitter_noise": 0.2, "rms_norm_eps": 1e-2},
            "without": [{"router_jitter_noise": 0.01}, {"rms_norm_eps": 1e-5}],
        },
        "biases": {
            "config": {"num_local_experts": 6, "intermediate_size": 20, "router_jitter_noise": 0.3, "attention_bias": True, "lm_head_bias": True,
                       "sliding_window": 8, "num_key_value_heads": 4, "original_max_position_embeddings": 64,
                       "rope_scaling": LONG | {"original_max_position_embeddings": 64}},
            "without": [{"attention_bias": False}, {"lm_head_bias": False}, {"sliding_window": None}, {"rope_scaling": None}],
            "dtype": BF16,
        },
        "long": {
            "config": {"num_local_experts": 4, "intermediate_size": 24, "original_max_position_embeddings": 16,
                       "rope_scaling": LONG | {"original_max_position_embeddings": 16}},
            "without": [{"rope_scaling": LONG | {"original_max_position_embeddings": 64}}],
        },
    },
    "gpt_oss": {
        "plain": {
            "config": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "intermediate_size": 24, "sliding_window": 8},
            "without": [{"sliding_window": 64}, {"num_experts_per_tok": 1}, {"attention_bias": False}],
            "gains": {"gate_up_proj": 1.5},
        },
        "clamped": {
            "config": {"num_local_experts": 6, "num_experts_per_tok": 3, "head_dim": 12, "intermediate_size": 32, "sliding_window": 6,
                       "num_key_value_heads": 4, "attention_bias": False, "swiglu_limit": 0.8, "swiglu_alpha": 1.3, "num_hidden_layers": 3,
                       "layer_types": ["full_attention", "sliding_attention", "full_attention"], "tie_word_embeddings": True,
                       "rope_parameters": {"rope_type": "yarn", "factor": 8.0, "rope_theta": 1e4, "original_max_position_embeddings": 16}},
            "without": [{"swiglu_limit": 7.0}, {"swiglu_alpha": 1.702}, {"layer_types": None}],
            "gains": {"gate_up_proj": 1.5},
            "saved": True,
            "dtype": BF16,
        },
        "packed": {
            "config": {"hidden_size": 64, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "intermediate_size": 64,
                       "sliding_window": 8},
            "without": [{"sliding_window": 64}, {"num_experts_per_tok": 1}],
            "gains": {"gate_up_proj": 1.5},
            "mxfp4": ("experts.gate_up_proj", "experts.down_proj"),
        },
    },
    "glm4_moe": {
        "plain": {
            "config": {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_shared_experts": 1, "head_dim": 12,
                       "attention_bias": True, "use_qk_norm": True, "routed_scaling_factor": 1.5},
            "without": [{"use_qk_norm": False}, {"routed_scaling_factor": 1.0}, {"norm_topk_prob": False}, {"attention_bias": False}],
        },
        "groups": {
            "config": {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "n_shared_experts": 2, "n_group": 4,
                       "topk_group": 2, "first_k_dense_replace": 0, "norm_topk_prob": False, "num_key_value_heads": 4,
                       "partial_rotary_factor": 1.0, "tie_word_embeddings": True},
            "without": [{"n_group": 1, "topk_group": 1}, {"partial_rotary_factor": 0.5}, {"norm_topk_prob": True}],
            "dtype": BF16,
        },
    },
}

for named in CASES.values():
    for case in named.values():
        case["steady"] = True
