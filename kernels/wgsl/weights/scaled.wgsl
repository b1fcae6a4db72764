// Byte `group` of those that begin at a word.
fn scale_byte(first: u32, group: u32) -> u32 {
    return (scales[first + group / 4u] >> (8u * (group % 4u))) & 255u;
}

// A float of 4 bits of exponent and 3 of mantissa, read as f16, whose exponents begin 8 lower.
fn e4m3_256th(byte: u32) -> f32 {
    return unpack2x16float(((byte & 0x7fu) << 7u) | ((byte & 0x80u) << 8u)).x;
}

// The scale of a unit, and no bias.
fn scale(row: u32, unit: u32) -> vec2<f32> {
    let group = unit / GROUP_UNITS;
    return vec2<f32>({{SCALE_OF}}, 0.0);
}

// Columns 4c .. 4c+4 of a row of the matrix.
fn weight(row: u32, c: u32) -> vec4<f32> {
    let unit = c / RUNS;
    return scale(row, unit).x * run(words(row, unit), c % RUNS);
}
