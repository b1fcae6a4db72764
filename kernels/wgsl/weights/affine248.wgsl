// Affine, {{BITS}} bits in one plane, so that words follow the columns. A unit is {{VEC}} words.
alias Words = {{WORDS}};

fn words(row: u32, unit: u32) -> Words {
    return quants[row * UNITS + unit];
}

fn run(q: Words, j: u32) -> vec4<f32> {
    // A byte of each word holds one element of {{WORD_RUNS}} runs.
    return vec4<f32>(unpack4xU8(({{WORD}} >> ({{BITS}}u * (j % {{WORD_RUNS}}u))) & {{MASK}}u));
}
