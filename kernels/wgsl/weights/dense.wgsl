// Columns 4c .. 4c+4 of a row of the matrix.
fn weight(row: u32, c: u32) -> vec4<f32> {
    return run(words(row, c / RUNS), c % RUNS);
}
