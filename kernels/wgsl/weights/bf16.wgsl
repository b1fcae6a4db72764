// bf16, the upper half of an f32. A unit is {{VEC}} words.
alias Words = {{WORDS}};

fn words(row: u32, unit: u32) -> Words {
    return quants[row * UNITS + unit];
}

fn run(q: Words, j: u32) -> vec4<f32> {
    let a = q[2u * j];
    let b = q[2u * j + 1u];
    return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}
