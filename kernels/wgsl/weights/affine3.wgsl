// Affine, 2 + 1 bits. A unit is 16 columns, half a block of 3 words: its word of the wide plane, and
// its half of the narrow plane's one word.
alias Words = vec2<u32>;

fn words(row: u32, unit: u32) -> Words {
    let block = (row * (UNITS / 2u) + unit / 2u) * 3u;
    let half = unit % 2u;
    return vec2<u32>(quants[block + half], quants[block + 2u] >> (4u * half));
}

fn bytes(q: Words, j: u32) -> u32 {
    let low = (q.x >> (2u * j)) & 0x03030303u;
    let high = (q.y >> j) & 0x01010101u;
    return low | (high << 2u);
}
