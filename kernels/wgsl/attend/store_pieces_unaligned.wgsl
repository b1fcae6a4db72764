fn store_piece(at: u32, i: u32, words: u32, piece: vec4<u32>) {
    for (var j = 0u; j < 4u; j++) {
        if (4u * i + j < words) {
            cache[at + 4u * i + j] = piece[j];
        }
    }
}
