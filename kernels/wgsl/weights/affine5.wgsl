// Affine, 4 + 1 bits. A unit is 16 columns, half a block of 5 words: its two words of the wide
// plane, and its half of the narrow plane's one word.
alias Words = vec3<u32>;

fn words(row: u32, unit: u32) -> Words {
    let block = (row * (UNITS / 2u) + unit / 2u) * 5u;
    let half = unit % 2u;
    let low = block + 2u * half;
    return vec3<u32>(quants[low], quants[low + 1u], quants[block + 4u] >> (4u * half));
}

fn bytes(q: Words, j: u32) -> u32 {
    let low = (q[j / 2u] >> (4u * (j % 2u))) & 0x0f0f0f0fu;
    let high = (q.z >> j) & 0x01010101u;
    return low | (high << 4u);
}
