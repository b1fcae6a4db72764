// Piece `i` of the key or value that begins at word `at`.

fn key_piece(at: u32, i: u32) -> vec4<u32> {
    return cache[at / 4u + i];
}

fn value_piece(at: u32, i: u32) -> vec4<u32> {
    return cache[at / 4u + i];
}
