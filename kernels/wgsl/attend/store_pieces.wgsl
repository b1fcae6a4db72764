fn store_piece(at: u32, i: u32, words: u32, piece: vec4<u32>) {
    cache[at / 4u + i] = piece;
}
