// A dense format whose rows are no whole number of vectors. A unit is 4 columns, zero past the last.
alias Words = vec4<f32>;

fn element(row: u32, column: u32) -> f32 {
    let i = row * K + min(column, K - 1u);
    return select(0.0, {{ELEMENT}}, column < K);
}

fn words(row: u32, unit: u32) -> Words {
    let j = 4u * unit;
    return vec4<f32>(element(row, j), element(row, j + 1u), element(row, j + 2u), element(row, j + 3u));
}

fn run(q: Words, j: u32) -> vec4<f32> {
    return q;
}
