{{CONSTS}}
{{STEP}}
{{BINDINGS}}
{{BEST}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.x;
    var mine = NOTHING;
    for (var chunk = thread; chunk < CHUNKS; chunk += THREADS) {
        let at = (row * CHUNKS + chunk) * 2u;
        mine = better(mine, Best(bitcast<f32>(candidates[at]), candidates[at + 1u]));
    }
    let best = best_of_all(mine, thread);
    if (thread == 0u) {
        // A row of nothing but NaN gives token 0: the host never sees an id outside the vocabulary.
        let token = select(best.index, 0u, best.index >= VOCAB);
        sampled[output_word(row, OUTPUT_SLOT)] = token;
        results[row] = token;
    }
}
