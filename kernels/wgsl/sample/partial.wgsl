{{CONSTS}}
{{STEP}}
{{BINDINGS}}
{{BEST}}

// Two rounds of the PCG hash, https://jcgt.org/published/0009/03/02/.
fn pcg(x: u32) -> u32 {
    let s = x * 747796405u + 2891336453u;
    let w = ((s >> ((s >> 28u) + 4u)) ^ s) * 277803737u;
    return (w >> 22u) ^ w;
}

// -ln(u) for a uniform u in (0, 1). Near 1, where the noise that wins comes from, the logarithm of
// many devices has few correct digits or none; 1 - u is exact there, and a short series suffices.
fn exponential(u: f32) -> f32 {
    let t = 1.0 - u;
    let series = t * (1.0 + t * (1.0 / 2.0 + t * (1.0 / 3.0 + t * (1.0 / 4.0 + t * (1.0 / 5.0 + t * (1.0 / 6.0 + t / 7.0))))));
    return select(-log(u), series, t < 0.125);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.y;
    let inverse = bitcast<f32>(output_word(row, OUTPUT_INV_TEMPERATURE));
    let random = pcg(pcg(output_word(row, OUTPUT_SEED)) ^ output_word(row, OUTPUT_COUNTER));
    var mine = NOTHING;
    for (var i = 0u; i < EACH; i++) {
        let column = (group.x * EACH + i) * THREADS + thread;
        if (column < VOCAB) {
            var v = logits[{{LOGITS_AT}}];
            if (inverse != 0.0) {
                // Gumbel-max, arXiv:1411.0030.
                let u = (f32(pcg(random ^ column) >> 9u) + 0.5) / 8388608.0;
                v = v * inverse - log(exponential(u));
            }
            // By its bits: compilers may assume that there is no NaN.
            if ((bitcast<u32>(v) & 0x7fffffffu) <= 0x7f800000u) {
                mine = better(mine, Best(v, column));
            }
        }
    }
    let best = best_of_all(mine, thread);
    if (thread == 0u) {
        let at = (row * CHUNKS + group.x) * 2u;
        candidates[at] = bitcast<u32>(best.value);
        candidates[at + 1u] = best.index;
    }
}
