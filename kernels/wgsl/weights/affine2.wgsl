// Affine, 2 bits. A unit is 16 columns: one word, four runs of 2 bits a byte.
alias Words = u32;

fn words(row: u32, unit: u32) -> Words {
    return quants[row * UNITS + unit];
}

fn run(q: Words, j: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8((q >> (2u * j)) & 0x03030303u));
}
