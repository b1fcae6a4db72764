use crate::{DEVICES, LEAST};
use tamarack_kernels::embedding::{Embedding, Ids, embedding};
use tamarack_kernels::halves::Halves;
use tamarack_kernels::matmul::{
    CooperativeTile, MatMul, Norm, Precision, Row, Tile, cooperative, cooperative_next_with, cooperative_with, integer,
    tiled, tiled_integer_with, tiled_with, vector,
};
use tamarack_kernels::quantize::{Quantize, quantize};
use tamarack_kernels::rounded::Rounded;
use tamarack_kernels::{Activation, Caps, Format, Kernel, Post, Scales, Values, View, step};

/// Every format and every fusion, in every kernel, on the most and the least able device.
pub fn kernels() -> Vec<(Caps, Kernel)> {
    let mut list = Vec::new();
    for caps in DEVICES {
        for format in formats() {
            let k = if format.block() < 32 { 64 } else { 256 };
            for spec in [plain(format, k), full(format, k)] {
                list.extend([1, 8].map(|rows| (caps, vector(&spec, &caps, rows))));
                list.push((caps, tiled(&MatMul { norm: None, ..spec.clone() }, &caps)));
                let tiles = [16, 32, 64, 512].map(|rows| CooperativeTile::default_for(&spec, rows));
                let split = CooperativeTile { splits: 3, early: true, ..tiles[3] };
                let kernels = tiles.iter().chain([&split]).filter_map(|tile| cooperative_with(&spec, &caps, *tile));
                list.extend(kernels.flatten().map(|kernel| (caps, kernel)));
                let next = cooperative_next_with(
                    &MatMul { n: 48, out: View::rows(48), ..plain(format, k) },
                    &caps,
                    split,
                    spec.norm,
                );
                list.extend(next.into_iter().flatten().map(|kernel| (caps, kernel)));
                for (rows, precision) in [(1, Precision::High), (8, Precision::High), (1, Precision::Fast)] {
                    list.extend(integer(&spec, &caps, rows, precision).map(|kernel| (caps, kernel)));
                }
                for (precision, tile) in [(Precision::High, Tile::TALL), (Precision::Fast, Tile::SMALL)] {
                    list.extend(tiled_integer_with(&spec, &caps, precision, tile).map(|kernel| (caps, kernel)));
                }
                for (precision, gain) in [(Precision::High, true), (Precision::Fast, false)] {
                    if Row::serves(format, k, precision) {
                        let spec = MatMul { n: 96, ..spec.clone() };
                        let next = gain.then_some(Rounded { columns: 96, precision, gain });
                        let row = Row {
                            matmul: spec,
                            rows: if gain { Row::most(&caps) } else { 1 },
                            precision,
                            store: !gain,
                            next,
                        };
                        list.extend(row.candidates(&caps).into_iter().step_by(5).map(|c| (caps, c.kernel)));
                    }
                }
            }
        }
        for (format, k) in [(Format::F32, 7), (Format::F16, 10), (Format::Bf16, 4), (Format::F32, 3)] {
            list.push((caps, vector(&full(format, k), &caps, 2)));
            list.push((caps, tiled(&plain(format, k), &caps)));
            list.extend(cooperative(&plain(format, k), &caps, 100).into_iter().flatten().map(|kernel| (caps, kernel)));
            for norm in [None, Some(Norm { eps: 1e-6, weight: true })] {
                list.push((caps, Halves { x: View::rows(k), k, norm }.kernel(&caps)));
            }
        }
        let big = full(Format::F32, 1 << 14);
        list.push((caps, vector(&MatMul { n: 300_000, ..big.clone() }, &caps, 4)));
        list.push((caps, tiled_with(&big, &caps, Tile { rows: 8, outputs: 8 })));
    }
    for format in formats() {
        let dim = if format.block() < 32 { 64 } else { 256 };
        let spec = Embedding {
            rows: step::TOKENS,
            ids: Ids::Step(step::ROW_TOKEN),
            first: 3,
            count: 9,
            total: 12,
            dim,
            format,
            scale: 2.0,
            out: View::rows(dim),
            next: None,
        };
        list.push((LEAST, embedding(&spec, &LEAST)));
        list.push((LEAST, embedding(&Embedding { ids: Ids::Computed(View::rows(4)), ..spec }, &LEAST)));
        let next = Some(Rounded { columns: dim, precision: Precision::High, gain: true });
        list.extend(DEVICES.map(|caps| (caps, embedding(&Embedding { next, ..spec }, &caps))));
    }
    for from in [Format::F32, Format::F16, Format::Bf16] {
        list.extend([4, 8].map(|bits| (LEAST, quantize(&Quantize { from, cols: 256, bits, group: 64 }, 9))));
    }
    list
}

pub fn formats() -> Vec<Format> {
    let mut list = vec![Format::F32, Format::F16, Format::Bf16];
    for bits in [2, 3, 4, 5, 6, 8] {
        for (group, scales) in [(16, Scales::F16), (32, Scales::F32), (64, Scales::F16), (128, Scales::F32)] {
            list.push(Format::Affine { bits, group, scales });
        }
        list.push(Format::Affine { bits, group: 16, scales: Scales::Centered });
    }
    for values in Values::ALL {
        for (group, scales) in [(16, Scales::E4m3), (32, Scales::E8m0), (64, Scales::F16), (128, Scales::F32)] {
            list.push(Format::Scaled { values, group, scales });
        }
    }
    list
}

fn plain(format: Format, k: u32) -> MatMul {
    MatMul {
        rows: step::TOKENS,
        n: 48,
        k,
        format,
        x: View::rows(k),
        norm: None,
        bias: false,
        glu: None,
        post: Vec::new(),
        first: 0,
        out: View::rows(48),
    }
}

fn full(format: Format, k: u32) -> MatMul {
    let functions = [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Sigmoid,
        Activation::Tanh,
    ];
    let mut post: Vec<Post> = functions.map(Post::Activation).into();
    let heads = View { offset: 2, row: 64, heads: 3, head: 20, dim: 16 };
    post.extend([
        Post::Add(View::rows(48)),
        Post::Scale(-0.5),
        Post::Mul(heads),
        Post::AddScalar(1.0),
        Post::Softcap(30.0),
    ]);
    MatMul {
        norm: Some(Norm { eps: 1e-6, weight: true }),
        bias: true,
        glu: Some(Activation::Silu),
        post,
        out: heads,
        ..plain(format, k)
    }
}
