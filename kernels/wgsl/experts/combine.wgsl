// The weighted sum of what each row's experts made of it.

{{SIZES}}
{{BINDINGS}}
{{ROUTE}}
{{FUNCTIONS}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.y;
    let column = group.x * THREADS + thread;
    if (column >= WIDTH) {
        return;
    }
    var v = 0.0;
    for (var slot = 0u; slot < TOP_K; slot++) {
        if (expert_of(row, slot) < EXPERTS) {
            v += weight_of(row, slot) * each[(row * TOP_K + slot) * WIDTH + column];
        }
    }
{{POST}}
    out[{{OUT}}] = v;
}
