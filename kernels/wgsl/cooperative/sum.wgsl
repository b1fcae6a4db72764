// Puts together what the parts of a split product left.
{{SIZES}}
{{BINDINGS}}
{{FUNCTIONS}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let tokens = step[{{ROWS}}];
    let token = group.y;
    let output = group.x * THREADS + thread;
    if (output >= OUTPUTS) {
        return;
    }
    var sum0 = 0.0;
    var sum1 = 0.0;
    for (var split = 0u; split < SPLITS; split++) {
        let at = (split * tokens + token) * MATRICES * OUTPUTS + output;
{{for g in MATRICES}}
        sum{{g}} += partials[at + {{g}}u * OUTPUTS];
{{end g}}
    }
    let worth = worths[token];
    finish(token, output, sum0 * worth, sum1 * worth);
}
