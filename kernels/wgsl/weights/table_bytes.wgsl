// 4-bit codes that stand for signed bytes, four at a time: one choice after the other, by each bit of the code.
fn choose(zero: u32, one: u32, bit: u32) -> u32 {
    return (zero & ~bit) | (one & bit);
}

fn bytes(q: Words, j: u32) -> u32 {
    let code = codes(q, j);
    let bit0 = (code & 0x01010101u) * 255u;
    let bit1 = ((code >> 1u) & 0x01010101u) * 255u;
    let bit2 = ((code >> 2u) & 0x01010101u) * 255u;
    let bit3 = ((code >> 3u) & 0x01010101u) * 255u;
    return {{CHOSEN}};
}

fn run(q: Words, j: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(bytes(q, j)));
}
