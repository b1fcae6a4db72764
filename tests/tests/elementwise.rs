//! Copies and arithmetic against plain loops.

use tamarack::reference::ops;
use tamarack_kernels::elementwise::{Elementwise, Op};
use tamarack_kernels::{Activation, Post, View, step};
use tamarack_tests::gpu::{assert_close, both_ways, floats, gather, random, run, spread, words};

const ROWS: u32 = 3;
/// Heads at odd places, as slices of packed projections have.
const PACKED: View = View { offset: 7, row: 301, heads: 3, head: 90, dim: 80 };

#[test]
fn every_op_is_its_formula() {
    let silu = |x| ops::activation(tamarack_api::Activation::Silu, x);
    let gelu = |x| ops::activation(tamarack_api::Activation::Gelu, x);
    type Formula<'a> = &'a dyn Fn(f32, f32) -> f32;
    let cases: [(Op, Formula); 9] = [
        (Op::Copy, &|a, _| a),
        (Op::Unary(Activation::Gelu), &|a, _| gelu(a)),
        (Op::Add, &|a, b| a + b),
        (Op::Sub, &|a, b| a - b),
        (Op::Mul, &|a, b| a * b),
        (Op::Div, &|a, b| a / b),
        (Op::Glu(Activation::Silu), &|a, b| silu(a) * b),
        (Op::Clamp { min: -0.25, max: 0.5 }, &|a, _| a.clamp(-0.25, 0.5)),
        (Op::Clamp { min: f32::NEG_INFINITY, max: 0.5 }, &|a, _| a.min(0.5)),
    ];
    let [wide, per_head, per_row] = [View::rows(240), View { dim: 1, head: 2, row: 9, ..PACKED }, View::rows(1)];
    for (op, formula) in cases {
        for second in [wide, PACKED, per_head, per_row] {
            let a = random(1, (ROWS * 240) as usize);
            // Away from zero, for the division.
            let b: Vec<f32> =
                random(2, (ROWS * second.width()) as usize).iter().map(|v| v + 1.5 * v.signum()).collect();
            let want: Vec<f32> =
                a.iter().enumerate().map(|(i, a)| formula(*a, b[i / (240 / second.width() as usize)])).collect();
            let inputs = [(PACKED, &a), (second, &b)];
            let inputs = &inputs[..op.inputs()];
            let kernel = Elementwise {
                op,
                inputs: inputs.iter().map(|i| i.0).collect(),
                gather: false,
                post: vec![],
                out: View::heads(3, 80),
            };
            both_ways(|gpu, caps| {
                let kernel = kernel.kernel(caps);
                let mut buffers = vec![vec![0; 8]];
                buffers.extend(inputs.iter().map(|(view, x)| words(&spread(view, x))));
                buffers.push(vec![0; (ROWS * 240) as usize]);
                run(gpu, &kernel, ROWS, 1, &mut buffers);
                assert_close(&kernel.name, &floats(&buffers[op.inputs() + 1]), &want, 1e-5);
            });
        }
    }
}

#[test]
fn gathers_the_rows_of_outputs() {
    let x = random(5, 6 * 240);
    let added = random(6, 2 * 240);
    let mut step_words = vec![0; 8 + 2 * step::OUTPUT_WORDS as usize];
    step_words[step::OUTPUTS_AT as usize] = 8;
    let picked = [4, 1];
    for (i, row) in picked.into_iter().enumerate() {
        step_words[8 + i * step::OUTPUT_WORDS as usize + step::OUTPUT_ROW as usize] = row;
    }
    let want: Vec<f32> = (0..480).map(|i| 2.0 * x[picked[i / 240] as usize * 240 + i % 240] + added[i]).collect();
    let out = View { row: 500, ..PACKED };
    let kernel = Elementwise {
        op: Op::Copy,
        inputs: vec![PACKED],
        gather: true,
        post: vec![Post::Scale(2.0), Post::Add(View::rows(240))],
        out,
    };
    both_ways(|gpu, caps| {
        let mut buffers = [step_words.clone(), words(&spread(&PACKED, &x)), words(&added), vec![0; 1000]];
        run(gpu, &kernel.kernel(caps), 2, 1, &mut buffers);
        assert_close("gather", &gather(&out, &floats(&buffers[3]), 2), &want, 1e-6);
    });
}
