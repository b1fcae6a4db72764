// Merges the parts of a split attention: one row and head, one thread for each element of it.
{{BINDINGS}}
{{STEP}}
{{SIZES}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let head = group.x;
    let row = group.y;
    let splits = step[SPLITS];
    let first = (row * HEADS + head) * splits * (DV + 2u);
    var largest = {{LEAST}};
    for (var s = 0u; s < splits; s++) {
        largest = max(largest, parts[first + s * (DV + 2u) + DV]);
    }
    var total = {{TOTAL}};
    for (var s = 0u; s < splits; s++) {
        let at = first + s * (DV + 2u) + DV;
        total += parts[at + 1u] * exp(parts[at] - largest);
    }
    for (var d = thread; d < DV; d += THREADS) {
        var v = 0.0;
        for (var s = 0u; s < splits; s++) {
            let at = first + s * (DV + 2u);
            v += parts[at + d] * exp(parts[at + DV] - largest);
        }
        out[{{OUT_AT}} + d] = v / total;
    }
}
