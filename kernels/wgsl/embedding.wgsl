// Rows of a table, one for each token. 64 invocations a row, one vector of four columns each.

{{SIZES}}
{{LANE_FUNCTIONS}}
{{BINDINGS}}
{{FUNCTIONS}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, {{THREAD_INPUTS}}) {
    let thread = {{THREAD}};
    let rows = step[{{ROWS}}];
    let row = group.x * 4u + thread / 64u;
    let column_quad = group.y * 64u + thread % 64u;
    let quad = min(column_quad, QUADS - 1u);
    let at = min(row, rows - 1u);
    var token = {{ID}};
    if ((token & {{SAMPLED}}u) != 0u) {
        token = sampled[token & ~{{SAMPLED}}u];
    }
    token = select(token, 0u, token >= TOTAL);
    // Below FIRST the difference wraps around to a large number.
    let inside = row < rows && column_quad < QUADS && token - FIRST < COUNT;
    let v = {{SCALE}} * weight(select(0u, token - FIRST, inside), quad);
    if (inside) {
        for (var i = 0u; i < min(4u, K - 4u * quad); i++) {
            let column = 4u * quad + i;
            out[{{OUT}}] = v[i];
        }
    }
{{for next in NEXT}}
    round_quad(row, quad, v, v{{GAINED}}, inside, thread);
{{end next}}
}
