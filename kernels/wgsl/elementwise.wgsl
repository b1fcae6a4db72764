{{BINDINGS}}
{{STEP}}
{{FUNCTIONS}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.y;
    let column = group.x * THREADS + thread;
    if (column >= {{WIDTH}}u) {
        return;
    }
    let origin = {{ORIGIN}};
    {{INPUTS}}
    var v = {{VALUE}};
    {{POST}}
    out[{{OUT_AT}}] = v;
}
