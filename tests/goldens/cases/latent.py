"""Latent attention. What a case is: see dense.py and moe.py."""

import torch

BF16 = torch.bfloat16

# Heads of 12 (of which 4 rotate) and of 6, and a latent of 20.
MLA = {"q_lora_rank": 16, "kv_lora_rank": 20, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6, "num_key_value_heads": 4}
EXPERTS = {"moe_intermediate_size": 16, "n_routed_experts": 8, "num_experts_per_tok": 3, "first_k_dense_replace": 1}
YARN = {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "mscale": 0.7, "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1}

CASES = {
    "deepseek_v2": {
        "gelu": {
            "steady": True,
            "config": MLA | EXPERTS | {"n_shared_experts": 1, "hidden_act": "gelu"},
            "without": [{"hidden_act": "silu"}],
        },
        "greedy": {
            "steady": True,
            "config": MLA | EXPERTS | {"n_shared_experts": 2, "routed_scaling_factor": 1.5, "topk_method": "greedy", "rope_theta": 100.0},
            "without": [{"routed_scaling_factor": 1.0}, {"rope_theta": 1e4}, {"num_experts_per_tok": 2}],
        },
        "in_groups": {
            "steady": True,
            "config": MLA | EXPERTS | {"q_lora_rank": None, "n_shared_experts": 1, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2,
                                       "attention_bias": True, "rope_scaling": YARN, "num_hidden_layers": 3},
            "without": [{"topk_method": "greedy"}, {"topk_group": 3}, {"attention_bias": False}, {"rope_scaling": None},
                        {"rope_scaling": YARN | {"mscale_all_dim": 0.7}}],
            "dtype": BF16,
        },
    },
    "deepseek_v3": {
        "relu": {
            "steady": True,
            "config": MLA | EXPERTS | {"n_shared_experts": 1, "n_group": 2, "topk_group": 1, "hidden_act": "relu"},
            "without": [{"hidden_act": "silu"}],
        },
        "in_groups": {
            "steady": True,
            "config": MLA | EXPERTS | {"n_shared_experts": 1, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5, "norm_topk_prob": True,
                                       "rope_scaling": YARN},
            "without": [{"norm_topk_prob": False}, {"topk_group": 3}, {"rope_scaling": None}, {"rope_interleave": False}],
        },
        "interleaved": {
            "steady": True,
            "config": MLA | EXPERTS | {"n_shared_experts": 1, "n_group": 2, "topk_group": 1, "routed_scaling_factor": 1.5, "norm_topk_prob": True,
                                       "rope_theta": 100.0},
            "without": [{"norm_topk_prob": False}, {"topk_group": 2}, {"rope_interleave": False}],
        },
        "halves": {
            "steady": True,
            "config": MLA | EXPERTS | {"q_lora_rank": None, "n_shared_experts": 2, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0,
                                       "norm_topk_prob": False, "attention_bias": True, "rope_interleave": False, "rope_theta": 100.0},
            "without": [{"attention_bias": False}, {"rope_interleave": True}, {"norm_topk_prob": True}],
            "saved": True,
            "dtype": BF16,
        },
    },
}
