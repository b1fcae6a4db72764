// f16. A unit is {{VEC}} words.
alias Words = {{WORDS}};

fn words(row: u32, unit: u32) -> Words {
    return quants[row * UNITS + unit];
}

fn run(q: Words, j: u32) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(q[2u * j]), unpack2x16float(q[2u * j + 1u]));
}
