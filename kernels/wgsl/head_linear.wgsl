// Every head by a matrix of its own. The tile's inputs of one head are shared by all threads.
{{SIZES}}
{{BINDINGS}}
{{FUNCTIONS}}

// [row][four inputs], zero past the last.
var<workgroup> inputs: array<vec4<f32>, X_TILE>;

fn input(row: u32, head: u32, i: u32) -> f32 {
    let j = min(i, INPUTS - 1u);
    return select(0.0, x[{{X_AT}}], i < INPUTS);
}

fn store(row: u32, head: u32, column: u32, v: f32) {
    out[{{OUT_AT}}] = v;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let head = group.z;
    let first = group.y * TILE_ROWS;
    let rows = step[{{ROWS}}];
    for (var i = thread; i < X_TILE; i += THREADS) {
        let row = min(first + i / FOURS, rows - 1u);
        let j = 4u * (i % FOURS);
        inputs[i] = vec4<f32>(
            input(row, head, j),
            input(row, head, j + 1u),
            input(row, head, j + 2u),
            input(row, head, j + 3u),
        );
    }
    workgroupBarrier();
    let output = group.x * THREADS + thread;
    if (output >= OUTPUTS_EACH) {
        return;
    }
    {{for p in PLAIN}}
    {{for r in TILE}}
    var sum{{r}} = 0.0;
    {{end r}}
    for (var c = 0u; c < FOURS; c++) {
        let w = weight(head * N + output, c);
        {{for r in TILE}}
        sum{{r}} += dot(w, inputs[{{r}}u * FOURS + c]);
        {{end r}}
    }
    {{for r in TILE}}
    if (first + {{r}}u < rows) {
        store(first + {{r}}u, head, output, sum{{r}});
    }
    {{end r}}
    {{end p}}
    {{for t in TRANSPOSED}}
    {{for r in TILE}}
    var sums{{r}} = vec4<f32>();
    {{end r}}
    for (var i = 0u; i < INPUTS; i++) {
        let w = weight(head * INPUTS + i, output);
        {{for r in TILE}}
        sums{{r}} += w * inputs[{{r}}u * FOURS + i / 4u][i % 4u];
        {{end r}}
    }
    for (var i = 0u; i < min(4u, N - 4u * output); i++) {
        {{for r in TILE}}
        if (first + {{r}}u < rows) {
            store(first + {{r}}u, head, 4u * output + i, sums{{r}}[i]);
        }
        {{end r}}
    }
    {{end t}}
}
