#!/usr/bin/env python3
"""Writes foreign.safetensors, what core/src/checkpoint/quantized is compared with.

    pip install 'mlx[cpu]==0.32.4' mlx-lm==0.32.2 torch==2.13 transformers==5.23 compressed-tensors==0.20 \
        bitsandbytes==0.50.2 safetensors numpy && python3 -P foreign.py

Of each layout small random matrices under the names that files have, `CASE.qweight` and so on, and
`CASE.values`, what they stand for. Whose dequantizer computed that:

- awq: mlx-lm's conversion of AWQ, and MLX; ct_*: compressed-tensors; bnb_*: bitsandbytes on the processor;
  gpt_oss: transformers' `convert_moe_packed_tensors`.
- gptq_*, fp8_*, modelopt: numpy and torch here, by the published layouts (GPTQModel does not run without a GPU;
  of fp8 there is nothing to state but a product).
"""
import os
import numpy as np
import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(11)
torch.manual_seed(11)
out = {}


def put(case, values, **parts):
    for name, part in parts.items():
        part = part if isinstance(part, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(part))
        out[f"{case}.{name}"] = part.contiguous()
    out[f"{case}.values"] = torch.as_tensor(values).float().contiguous()


def stream(codes, bits):
    """Rows of codes as little-endian bitstreams in words."""
    lanes = np.arange(bits, dtype=np.uint8)
    flat = ((codes[..., None].astype(np.uint8) >> lanes) & 1).reshape(codes.shape[0], -1)
    return np.packbits(flat, axis=1, bitorder="little").view(np.int32)


def gptq(case, bits, rows, cols, group, v2=False, act_order=False):
    groups = -(-cols // group)
    q = rng.integers(0, 1 << bits, (rows, cols))
    low = 0 if v2 else 1
    z = rng.integers(low, (1 << bits) - 1 + low, (groups, rows))
    s = rng.normal(0, 0.02, (groups, rows)).astype(np.float16)
    g_idx = np.arange(cols, dtype=np.int32) // group
    if act_order:
        g_idx = rng.permutation(g_idx)
    values = s.astype(np.float32).T[:, g_idx] * (q - z.T[:, g_idx]).astype(np.float32)
    put(case, values, qweight=stream(q, bits).T, qzeros=stream(z if v2 else z - 1, bits), scales=s, g_idx=g_idx)


def awq():
    import mlx.core as mx
    from mlx_lm.utils import _transform_awq_weights
    parts = {"awq.qweight": rng.integers(-2**31, 2**31, (128, 3), dtype=np.int32),
             "awq.qzeros": rng.integers(-2**31, 2**31, (2, 3), dtype=np.int32),
             "awq.scales": rng.normal(0, 0.02, (2, 24)).astype(np.float32)}
    # In f32, where the conversion rounds nothing; f16 in the file.
    parts["awq.scales"] = parts["awq.scales"].astype(np.float16).astype(np.float32)
    views = {k: mx.array(v.view(np.uint32) if v.dtype == np.int32 else v) for k, v in parts.items()}
    new, q = _transform_awq_weights(views, {"bits": 4, "group_size": 64})
    values = mx.dequantize(new["awq.weight"], new["awq.scales"], new["awq.biases"], group_size=64, bits=4)
    put("awq", np.array(values), qweight=parts["awq.qweight"], qzeros=parts["awq.qzeros"],
        scales=parts["awq.scales"].astype(np.float16))


def compressed():
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    from compressed_tensors.quantization.lifecycle.forward import dequantize
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    def case(name, kind, rows, cols, weights, scale, **more):
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
        compressor = BaseCompressor.get_value_from_registry(kind)
        state = {"weight": torch.randn(rows, cols) * 0.05, "weight_scale": scale, **more}
        parts = compressor.compress(state, scheme)
        if name == "nvfp4":
            # Its decompressor computes in bf16; the same steps in f32.
            codes = unpack_fp4_from_uint8(parts["weight_packed"], rows, cols, dtype=torch.float32)
            values = dequantize(codes, parts["weight_scale"].float(), args=scheme.weights,
                                global_scale=parts["weight_global_scale"], dtype=torch.float32)
        else:
            values = compressor.decompress(dict(parts), scheme)["weight"]
        put(f"ct_{name}", values.detach(), **{k: v.detach() for k, v in parts.items()})

    for bits in (2, 4, 8):
        size = 0.1 / (1 << bits)
        case(f"int{bits}", "pack-quantized", 24, 128, dict(num_bits=bits, strategy="group", group_size=64),
             (torch.rand(24, 2) + 0.5) * size)
    case("zeros", "pack-quantized", 16, 128, dict(num_bits=4, strategy="group", group_size=32, symmetric=False),
         (torch.rand(16, 4) + 0.5) * 0.01, weight_zero_point=torch.randint(-8, 8, (16, 4), dtype=torch.int8))
    case("channel", "pack-quantized", 8, 96, dict(num_bits=4, strategy="channel"), (torch.rand(8, 1) + 0.5) * 0.01)
    case("int8_bytes", "int-quantized", 8, 64, dict(num_bits=8, strategy="channel"), (torch.rand(8, 1) + 0.5) * 0.001)
    case("fp8", "float-quantized", 8, 64, dict(num_bits=8, type="float", strategy="channel"),
         (torch.rand(8, 1) + 0.5) * 0.001)
    case("nvfp4", "nvfp4-pack-quantized", 8, 64,
         dict(num_bits=4, type="float", strategy="tensor_group", group_size=16),
         (torch.rand(8, 4) * 400).to(torch.float8_e4m3fn).float(), weight_global_scale=torch.tensor([9000.0]))


def fp8(case, rows, cols, block, scale_type):
    w = (torch.randn(rows, cols) * 20).to(torch.float8_e4m3fn)
    counts = -(-rows // block[0]), -(-cols // block[1])
    s = torch.rand(counts) * 0.01
    if scale_type == torch.float8_e8m0fnu:
        s = torch.exp2(torch.floor(torch.log2(s)))
    s = s.to(scale_type)
    each = s.float().repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :cols]
    put(case, w.float() * each, weight=w, weight_scale_inv=s)


def modelopt():
    w = torch.randint(0, 256, (4, 32), dtype=torch.uint8)
    s, top = (torch.rand(4, 4) * 400).to(torch.float8_e4m3fn), torch.tensor(0.0003)
    levels = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6])
    levels = torch.cat([levels, -levels])
    codes = torch.stack([w & 15, w >> 4], -1).reshape(4, 64).long()
    put("modelopt", levels[codes] * (s.float() * top).repeat_interleave(16, 1), weight=w, weight_scale=s,
        weight_scale_2=top)


def gpt_oss():
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors
    blocks = torch.randint(0, 256, (2, 6, 3, 16), dtype=torch.uint8)
    scales = torch.randint(115, 130, (2, 6, 3), dtype=torch.uint8)
    values = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    # Transformers wants [experts, inputs, outputs].
    values = values.transpose(1, 2) if values.shape == (2, 96, 6) else values
    out["gpt_oss_blocks"], out["gpt_oss_scales"], out["gpt_oss.values"] = blocks, scales, values.contiguous()


def bitsandbytes():
    import bitsandbytes.functional as F
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            w = torch.randn(12, 128) * 0.05
            q, state = F.quantize_4bit(w, blocksize=64, quant_type=kind, compress_statistics=nested)
            parts = {f"weight.{k}": v for k, v in state.as_dict(packed=True).items()}
            values = F.dequantize_4bit(q, state)
            put(f"bnb_{kind}{'_nested' if nested else ''}", values, weight=q, **parts)
    w = torch.randint(-127, 128, (6, 64), dtype=torch.int8)
    stats = torch.rand(6) + 0.5
    put("bnb_int8", F.int8_vectorwise_dequant(w, stats), weight=w, SCB=stats)


for bits in (2, 3, 4, 8):
    gptq(f"gptq{bits}", bits, 32, 128, 64)
gptq("gptq_v2", 4, 32, 64, 32, v2=True)
gptq("gptq_order", 4, 32, 64, 32, act_order=True)
awq()
compressed()
fp8("fp8_f32", 130, 140, (128, 128), torch.float32)
fp8("fp8_aligned", 40, 256, (32, 128), torch.bfloat16)
fp8("fp8_powers", 32, 64, (32, 32), torch.float8_e8m0fnu)
modelopt()
gpt_oss()
bitsandbytes()
save_file(out, f"{HERE}/foreign.safetensors")
