// f32. A unit is 4 columns.
alias Words = vec4<f32>;

fn words(row: u32, unit: u32) -> Words {
    return quants[row * UNITS + unit];
}

fn run(q: Words, j: u32) -> vec4<f32> {
    return q;
}
