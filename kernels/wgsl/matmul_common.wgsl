// Stores and returns output `i` of a row: `a` is its sum, or with a gate the gate's sum and `b` the other.
fn finish(row: u32, i: u32, a: f32, b: f32) -> f32 {
    let column = {{FIRST}}u + i;
    var v = a;
{{LINES}}
    out[{{OUT}}] = v;
    return v;
}

// acc + dot(a, b), without the multiplication and addition that a dot product would cost on top.
fn add_dot(acc: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, acc))));
}
