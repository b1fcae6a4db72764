#!/usr/bin/env python3
"""Writes ggml.safetensors and mlx.safetensors, what the unit tests of core/src/checkpoint compare with.

    pip install gguf==0.19.0 numpy safetensors 'mlx[cpu]==0.32.4' && python3 -P quantized.py

ggml: of every block type random blocks (sane f16 scales) as `TYPE.blocks`, and `TYPE.values`, what the
gguf package decodes them to. mlx: for every bits x group real quantized rows, and `.quants`, the
integers that MLX unpacks from its words (dequantized with scale 1 and bias 0); for every floating mode
quantized rows and `.values`, what MLX dequantizes them to in f32.
"""
import os
import numpy as np
from gguf import GGMLQuantizationType as T, GGML_QUANT_SIZES
from gguf.quants import dequantize
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(7)

# Where the f16 fields of a block are.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}


# Other bytes that are scales: places, and what they are drawn from.
BYTES = {"MXFP4": ([0], (110, 130)), "NVFP4": (range(4), (0, 127))}


def ggml():
    out = {}
    for name, halves in HALVES.items():
        elements, size = GGML_QUANT_SIZES[T[name]]
        blocks = rng.integers(0, 256, (max(1, 64 // elements), size), dtype=np.uint8)
        for at in halves:
            scale = rng.normal(0, 0.05, len(blocks)).astype(np.float16)
            blocks[:, at:at + 2] = scale[:, None].view(np.uint8)
        out[f"{name}.blocks"] = blocks
        out[f"{name}.values"] = dequantize(blocks, T[name]).astype(np.float32).reshape(-1)
    bytes_rng = np.random.default_rng(8)
    for name, (places, (low, high)) in BYTES.items():
        elements, size = GGML_QUANT_SIZES[T[name]]
        blocks = bytes_rng.integers(0, 256, (128 // elements, size), dtype=np.uint8)
        for at in places:
            blocks[:, at] = bytes_rng.integers(low, high, len(blocks))
        out[f"{name}.blocks"] = blocks
        out[f"{name}.values"] = dequantize(blocks, T[name]).astype(np.float32).reshape(-1)
    save_file(out, f"{HERE}/ggml.safetensors")


def mlx():
    import mlx.core as mx
    out = {}
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            w = mx.array(rng.normal(0, 0.1, (2, 128)).astype(np.float32))
            words, scales, biases = mx.quantize(w, group_size=group, bits=bits)
            q = mx.dequantize(words, mx.ones_like(scales), mx.zeros_like(biases), group_size=group, bits=bits)
            name = f"b{bits}g{group}"
            out[f"{name}.weight"] = np.array(words)
            out[f"{name}.scales"] = np.array(scales.astype(mx.float16))
            out[f"{name}.biases"] = np.array(biases.astype(mx.float16))
            out[f"{name}.quants"] = np.array(q).astype(np.uint8)
    modes_rng = np.random.default_rng(9)
    for name, mode, top in [("mxfp4", "mxfp4", None), ("mxfp8", "mxfp8", None), ("nvfp4", "nvfp4", None),
                            ("nvfp4global", "nvfp4", 0.37)]:
        # Groups of very different sizes.
        size = np.exp(modes_rng.normal(-3, 2, (2, 16, 1)))
        w = mx.array((modes_rng.normal(0, 1, (2, 16, 16)) * size).reshape(2, 256).astype(np.float32))
        top = None if top is None else mx.array(top)
        words, scales = mx.quantize(w, mode=mode, global_scale=top)
        values = mx.dequantize(words, scales, mode=mode, global_scale=top, dtype=mx.float32)
        out |= {f"{name}.weight": np.array(words), f"{name}.scales": np.array(scales), f"{name}.values": np.array(values)}
        if top is not None:
            out[f"{name}.global_scale"] = np.array(top)
    # What MLX quantizes, and what it then stands for.
    made_rng = np.random.default_rng(10)
    dense = made_rng.normal(0, 0.1, (2, 256)).astype(np.float32)
    dense[0, :128] = np.abs(dense[0, :128])
    dense[1, :128] = 0.25
    out["made.dense"] = dense
    for bits in (4, 8):
        for group in (32, 64, 128):
            q = mx.quantize(mx.array(dense), group_size=group, bits=bits)
            out[f"made.b{bits}g{group}"] = np.array(mx.dequantize(*q, group_size=group, bits=bits))
    save_file(out, f"{HERE}/mlx.safetensors")


ggml()
mlx()
