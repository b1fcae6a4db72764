// Affine, 4 + 2 bits. A unit is 16 columns, half a block of 3 pairs of words: its pair of the wide
// plane, and its word of the narrow plane's pair.
alias Words = vec3<u32>;

fn words(row: u32, unit: u32) -> Words {
    let block = (row * (UNITS / 2u) + unit / 2u) * 3u;
    let half = unit % 2u;
    return vec3<u32>(quants[block + half], quants[block + 2u][half]);
}

fn bytes(q: Words, j: u32) -> u32 {
    let low = (q[j / 2u] >> (4u * (j % 2u))) & 0x0f0f0f0fu;
    let high = (q.z >> (2u * j)) & 0x03030303u;
    return low | (high << 4u);
}
