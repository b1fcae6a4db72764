fn run(q: Words, j: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(bytes(q, j)));
}

// The (scale, bias) of a unit.
fn scale(row: u32, unit: u32) -> vec2<f32> {
    let group = row * GROUPS + unit / GROUP_UNITS;
    let pair = scales[{{PLACE}}];
    return {{PAIR}};
}

// Columns 4c .. 4c+4 of a row of the matrix.
fn weight(row: u32, c: u32) -> vec4<f32> {
    let unit = c / RUNS;
    let s = scale(row, unit);
    return s.x * run(words(row, unit), c % RUNS) + s.y;
}
