// Columns 4c .. 4c+4 of a row: what the parts of a split product come to. They are stored, too.
fn x(row: u32, c: u32) -> vec4<f32> {
    let tokens = step[{{ROWS}}];
    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
{{for s in SPLITS}}
    {
        let at = (({{s}}u * tokens + row) * MATRICES) * OUTPUT_QUADS + c;
{{for g in MATRICES}}
        sum{{g}} += partials[at + {{g}}u * OUTPUT_QUADS];
{{end g}}
    }
{{end s}}
    let worth = worths[row];
    sum0 *= worth;
    sum1 *= worth;
    return vec4<f32>(
        finish(row, 4u * c, sum0.x, sum1.x),
        finish(row, 4u * c + 1u, sum0.y, sum1.y),
        finish(row, 4u * c + 2u, sum0.z, sum1.z),
        finish(row, 4u * c + 3u, sum0.w, sum1.w),
    );
}
