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
                let u = (f32(pcg(random ^ column) >> 8u) + 0.5) / 16777216.0;
                v = v * inverse - log(-log(u));
            }
            mine = better(mine, Best(v, column));
        }
    }
    let best = best_of_all(mine, thread);
    if (thread == 0u) {
        let at = (row * CHUNKS + group.x) * 2u;
        candidates[at] = bitcast<u32>(best.value);
        candidates[at + 1u] = best.index;
    }
}
