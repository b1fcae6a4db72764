// Affine, 8 bits. A unit is {{VEC}} words of 4 columns.
alias Words = vec{{VEC}}<u32>;

fn words(row: u32, unit: u32) -> Words {
    return quants[row * UNITS + unit];
}

fn run(q: Words, j: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(q[j]));
}
