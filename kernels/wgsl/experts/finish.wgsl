// The row of the matrix with the half `g` of output `i` of an expert.
fn weight_row(expert: u32, g: u32, i: u32) -> u32 {
    return expert * EXPERT_ROWS + {{WEIGHT_ROW}};
}

// Stores output `i` of choice `c`, or of all of a row's: `a` is its sum, or with a gate the gate's sum and
// `b` the other.
fn finish(c: u32, i: u32, a: f32, b: f32) {
    let column = {{FIRST}}u + i;
    let row = {{ROW_OF}};
    var v = a;
    var up = b;
{{LINES}}
    out[{{OUT}}] = v;
}

// acc + dot(a, b), without the multiplication and addition that a dot product would cost on top.
fn add_dot(acc: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, acc))));
}
