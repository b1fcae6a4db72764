// Rows of a table, one for each token. 64 invocations a row, one vector of four columns each.

{{SIZES}}
{{BINDINGS}}
{{FUNCTIONS}}

@compute @workgroup_size(64, 4)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = group.x * 4u + local.y;
    let c = group.y * 64u + local.x;
    if (row >= step[{{ROWS}}] || c >= QUADS) {
        return;
    }
    var token = step[{{ROWS_AT}} + row * {{ROW_WORDS}}u + {{ROW_TOKEN}}u];
    if ((token & {{SAMPLED}}u) != 0u) {
        token = sampled[token & ~{{SAMPLED}}u];
    }
    token = select(token, 0u, token >= TOTAL);
    // Below FIRST the difference wraps around to a large number.
    if (token - FIRST >= COUNT) {
        return;
    }
    let v = {{SCALE}} * weight(token - FIRST, c);
    for (var i = 0u; i < min(4u, K - 4u * c); i++) {
        let column = 4u * c + i;
        out[{{OUT}}] = v[i];
    }
}
