// E4M3 as f16, whose exponents begin 8 lower: 1/256 of the value. Two at a time, bytes 0 and 2, 1 and 3.
fn run(q: Words, j: u32) -> vec4<f32> {
    let code = codes(q, j);
    let even = unpack2x16float(((code & 0x007f007fu) << 7u) | ((code & 0x00800080u) << 8u));
    let odd = unpack2x16float(((code >> 1u) & 0x3f803f80u) | (code & 0x80008000u));
    return vec4<f32>(even.x, odd.x, even.y, odd.y);
}
