{{SIZES}}
{{BINDINGS}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.y;
    let i = group.x * THREADS + thread;
    if (i >= M * N) {
        return;
    }
    var sum = 0.0;
    for (var j = 0u; j < K; j++) {
        sum += a[{{A_AT}}] * b[{{B_AT}}];
    }
    out[{{OUT_AT}}] = sum;
}
