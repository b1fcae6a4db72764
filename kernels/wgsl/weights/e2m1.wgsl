// E2M1, twice its value as a signed byte: of the lower three bits of a code 0, 1, 2, 3, 4, 6, 8, 12.
fn bytes(q: Words, j: u32) -> u32 {
    let code = codes(q, j);
    let size = code & 0x07070707u;
    // 4 to 7 become 4, 6, 8, 12: what is above 4 once more, and 2 for the last.
    let above = size & (((code >> 2u) & 0x01010101u) * 3u);
    let last = (above >> 1u) & above & 0x01010101u;
    let twice = size + above + (last << 1u);
    let negative = ((code >> 3u) & 0x01010101u) * 255u;
    // From 128 on, where no byte borrows of the next.
    return (0x80808080u + twice - ((twice & negative) << 1u)) ^ 0x80808080u;
}

fn run(q: Words, j: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(bytes(q, j)));
}
