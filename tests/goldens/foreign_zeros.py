#!/usr/bin/env python3
"""Writes foreign_zeros.safetensors: more layouts like those of foreign.py, about zeros and about blocks that run over rows.

    pip install torch==2.15.0 transformers==5.24.0 compressed-tensors==0.20.1 bitsandbytes==0.50.2 safetensors numpy
    python3 -P foreign_zeros.py

- ct_*: compressed-tensors computed the values; bnb_*: bitsandbytes on the processor.
- gptq_*: numpy here, by the published layout: zeros as they are (GPTQ's second version, AutoRound's `auto_round`), or one less.
"""
import os
import numpy as np
import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(12)
torch.manual_seed(12)
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


def gptq(case, bits, less, zero=None, rows=32, cols=128, group=64):
    """`less`: what is taken off zeros before they are stored. A zero that is not given is random."""
    groups, top = cols // group, 1 << bits
    q = rng.integers(0, top, (rows, cols))
    z = rng.integers(less, top - 1 + less, (groups, rows)) if zero is None else np.full((groups, rows), zero)
    s = rng.normal(0, 0.02, (groups, rows)).astype(np.float16)
    of = np.arange(cols) // group
    values = s.astype(np.float32).T[:, of] * (q - z.T[:, of]).astype(np.float32)
    put(case, values, qweight=stream(q, bits).T, qzeros=stream(z - less, bits), scales=s)


def compressed():
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    def case(name, kind, bits, strategy, groups, rows=16, cols=128):
        group = {"group_size": cols // groups} if strategy == "group" else {}
        args = QuantizationArgs(num_bits=bits, strategy=strategy, symmetric=False, **group)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        shape = (1,) if strategy == "tensor" else (rows, groups)
        half = 1 << (bits - 1)
        state = {"weight": torch.randn(rows, cols) * 0.05, "weight_scale": (torch.rand(shape) + 0.5) * 0.2 / half,
                 "weight_zero_point": torch.randint(-half, half, shape, dtype=torch.int8)}
        compressor = BaseCompressor.get_value_from_registry(kind)
        parts = compressor.compress(state, scheme)
        values = compressor.decompress(dict(parts), scheme)["weight"]
        put(f"ct_{name}", values.detach(), **{k: v.detach() for k, v in parts.items()})

    for kind, name in (("int-quantized", "bytes"), ("pack-quantized", "pack")):
        case(f"{name}_tensor", kind, 8, "tensor", 1)
        case(f"{name}_channel", kind, 8, "channel", 1)
        case(f"{name}_group", kind, 8, "group", 4)
    case("pack4_channel", "pack-quantized", 4, "channel", 1)
    case("pack4_tensor", "pack-quantized", 4, "tensor", 1)


def bitsandbytes():
    """Rows of 100, as the towers of Qwen2.5-VL have 3420 and those of SigLIP 4304."""
    import bitsandbytes.functional as F
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            w = torch.randn(25, 100) * 0.05
            q, state = F.quantize_4bit(w, blocksize=64, quant_type=kind, compress_statistics=nested)
            parts = {f"weight.{k}": v for k, v in state.as_dict(packed=True).items()}
            put(f"bnb_rows_{kind}{'_nested' if nested else ''}", F.dequantize_4bit(q, state), weight=q, **parts)


for bits in (2, 3, 4, 8):
    gptq(f"gptq_as_it_is_{bits}", bits, less=0)
    gptq(f"gptq_one_less_{bits}", bits, less=1)
    gptq(f"gptq_middle_{bits}", bits, less=0, zero=1 << (bits - 1))
compressed()
bitsandbytes()
save_file(out, f"{HERE}/foreign_zeros.safetensors")
