// 4-bit codes that stand for floats: one choice after the other, by each bit of the code. A table in
// an array would be slower where a driver does not keep it in registers.
fn choose(zero: vec4<f32>, one: vec4<f32>, bit: vec4<bool>) -> vec4<f32> {
    return select(zero, one, bit);
}

fn run(q: Words, j: u32) -> vec4<f32> {
    let code = unpack4xU8(codes(q, j));
    let bit0 = (code & vec4<u32>(1u)) != vec4<u32>();
    let bit1 = (code & vec4<u32>(2u)) != vec4<u32>();
    let bit2 = (code & vec4<u32>(4u)) != vec4<u32>();
    let bit3 = (code & vec4<u32>(8u)) != vec4<u32>();
    return {{CHOSEN}};
}
