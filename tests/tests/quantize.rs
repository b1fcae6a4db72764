//! Quantizing a float model: while it loads, and into a folder.

use tamarack::checkpoint::{Checkpoint, Format, Quantize, pack_dense, unpack, write_mlx};
use tamarack_kernels::quantize;
use tamarack_tests::gpu::{assert_close, gpus, random, run};
use tamarack_tests::models;

/// What the host makes of a group. A device's division may be off by 2.5 units in the last place
/// (<https://www.w3.org/TR/WGSL/#concrete-float-accuracy>): where the group's edge is a whole number of steps and a half
/// away, that decides how many it becomes, and the other number is right, too, if `got` is nearer to that.
fn nearest(how: Quantize, values: &[f32], got: &[f32]) -> Vec<f32> {
    let mut q = [0; 128];
    let (scale, bias) = how.group(values, &mut q);
    let want: Vec<f32> = q[..values.len()].iter().map(|q| scale * f32::from(*q) + bias).collect();
    let most = f32::from((1u16 << how.bits) - 1);
    let [low, high] = [f32::min, f32::max].map(|f| values.iter().copied().reduce(f).unwrap());
    let edge = if low.abs() > high.abs() { low } else { high };
    let steps = edge.abs() * most / (high - low);
    if bias == 0.0 || (steps.fract() - 0.5).abs() > 4e-6 {
        return want;
    }
    let scale = bias / (2.0 * steps.floor() + 1.0 - (bias / scale).abs()).copysign(bias / scale);
    let made = |v: &f32| ((v - bias) / scale).round_ties_even().clamp(0.0, most) * scale + bias;
    let other: Vec<f32> = values.iter().map(made).collect();
    let off = |made: &[f32]| made.iter().zip(got).map(|(a, b)| (a - b).abs()).sum::<f32>();
    if off(&other) < off(&want) { other } else { want }
}

/// The device's values against the host's, which are MLX's.
#[test]
fn devices_quantize_as_the_host_does() {
    for gpu in gpus() {
        for (from, bits, group, cols) in [
            (Format::F32, 4, 64, 192),
            (Format::F16, 4, 32, 96),
            (Format::Bf16, 4, 128, 384),
            (Format::F32, 8, 32, 96),
            (Format::Bf16, 8, 64, 64),
        ] {
            let (rows, first) = (37, 3);
            let how = Quantize { bits, group };
            let spec = quantize::Quantize { from, cols: cols as u32, bits, group };
            let mut source = Vec::new();
            let mut random = random(u64::from(bits), rows * cols);
            random[..cols].fill(0.5);
            pack_dense(from, &random, &mut source);
            let mut values = vec![0.0; rows * cols];
            unpack(from, cols, &source, &[], &mut values);
            let to = spec.to();
            let [quants, scales] =
                [to.row_words(cols), to.row_scale_words(cols)].map(|words| vec![0; words * (rows + first)]);
            let mut buffers = [vec![rows as u32, first as u32], source, quants, scales];
            run(&gpu, &quantize::quantize(&spec, rows as u32), rows as u32, 1, &mut buffers);
            let mut got = vec![0.0; (rows + first) * cols];
            unpack(to, cols, &buffers[2], &buffers[3], &mut got);
            let mut want = vec![0.0; first * cols];
            for (values, got) in values.chunks_exact(usize::from(group)).zip(got[first * cols..].chunks(group.into())) {
                want.extend(nearest(how, values, got));
            }
            // Halfway between two steps such a device may take the other one: it is as near, but for what rounding scale
            // and bias to f16 moves either.
            let exact = [&vec![0.0; first * cols][..], &values].concat();
            for ((got, want), exact) in got.iter_mut().zip(&want).zip(&exact) {
                if ((*got - exact).abs() - (want - exact).abs()).abs() <= 4e-3 {
                    *got = *want;
                }
            }
            assert_close(&format!("{from} to {to}"), &got, &want, 1e-3);
        }
    }
}

#[test]
fn what_is_written_is_what_loading_makes_of_it() {
    let source = models::folder("goldens").join("llama/tied");
    let parent = tempfile::tempdir().unwrap();
    for text in ["4:32", "8:32"] {
        let (quantize, target) = (text.parse::<Quantize>().unwrap(), parent.path().join(text.replace(':', "g")));
        let told = std::cell::Cell::new((0, 1));
        write_mlx(&source, &target, quantize, &|done, total| told.set((done, total))).unwrap();
        assert_eq!(told.get().0, told.get().1);
        assert_eq!(
            std::fs::read_dir(parent.path()).unwrap().flatten().filter(|e| e.path().extension().is_some()).count(),
            0
        );

        let mut made = Checkpoint::open(&source).unwrap();
        made.quantize(quantize).unwrap();
        let written = Checkpoint::open(&target).unwrap();
        assert_eq!(written.config()["quantization"]["bits"], quantize.bits);
        let names =
            |c: &Checkpoint| c.tensors().map(|(name, t)| (name.to_owned(), t.shape().to_vec())).collect::<Vec<_>>();
        assert_eq!(names(&made), names(&written));
        let mut quantized = 0;
        for ((name, a), (_, b)) in made.tensors().zip(written.tensors()) {
            assert_eq!(a.format(), b.format(), "{name}");
            quantized += usize::from(a.kind().to_string().starts_with("made here"));
            let (mut x, mut y) = (vec![0.0; a.cols()], vec![0.0; a.cols()]);
            for row in 0..a.rows() {
                a.row(row, &mut x);
                b.row(row, &mut y);
                assert_eq!(x, y, "{name} row {row}");
            }
        }
        assert!(quantized >= 8, "{quantized} matrices");

        let error = write_mlx(&source, &target, quantize, &|_, _| {}).unwrap_err().to_string();
        assert!(error.contains("is there already"), "{error}");
        let error = write_mlx(&target, &parent.path().join("again"), quantize, &|_, _| {}).unwrap_err().to_string();
        assert!(error.contains("is the model quantized already?"), "{error}");
        assert!(!parent.path().join("again").exists());
    }
}
