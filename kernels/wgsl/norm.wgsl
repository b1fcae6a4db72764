{{BINDINGS}}
{{LANE_FUNCTIONS}}
{{FUNCTIONS}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, {{THREAD_INPUTS}}) {
    let thread = {{THREAD}};
    let row = group.x;
    let first = group.y * {{DIM}}u;
    // Each thread keeps its values in registers from the first read to the store.
    {{for i in PER_THREAD}}
    let j{{i}} = thread + {{i}}u * THREADS;
    let column{{i}} = first + min(j{{i}}, {{DIM}}u - 1u);
    var x{{i}} = x[{{X_AT}}];
    {{end i}}
    {{for l in LAYER}}
    var sum = 0.0;
    {{for i in PER_THREAD}}
    sum += select(0.0, x{{i}}, j{{i}} < {{DIM}}u);
    {{end i}}
    let mean = lanes_sum(sum, thread) / {{DIM}}.0;
    {{for i in PER_THREAD}}
    x{{i}} -= mean;
    {{end i}}
    {{end l}}
    var squares = 0.0;
    {{for i in PER_THREAD}}
    squares += select(0.0, x{{i}} * x{{i}}, j{{i}} < {{DIM}}u);
    {{end i}}
    let scale = 1.0 / sqrt(lanes_sum(squares, thread) / {{DIM}}.0 + {{EPS}});
    {{for i in PER_THREAD}}
    if (j{{i}} < {{DIM}}u) {
        let column = column{{i}};
        var v = x{{i}} * scale;
        {{WEIGHT}}
        {{BIAS}}
        {{POST}}
        out[{{OUT_AT}}] = v;
    }
    {{end i}}
}
