{{BINDINGS}}
{{LANE_FUNCTIONS}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, {{THREAD_INPUTS}}) {
    let thread = {{THREAD}};
    let row = group.x;
    var sum = 0.0;
    for (var j = thread; j < {{DIM}}u; j += THREADS) {
        let column = group.y * {{DIM}}u + j;
        sum += x[{{X_AT}}];
    }
    let mean = lanes_sum(sum, thread) / {{DIM}}.0;
    if (thread == 0u) {
        out[{{OUT_AT}}] = mean;
    }
}
