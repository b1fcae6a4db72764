// Piece `i` of the key or value that begins at word `at`.

fn key_piece(at: u32, i: u32) -> vec4<u32> {
    return piece(at, 4u * i, DK / 2u);
}

fn value_piece(at: u32, i: u32) -> vec4<u32> {
    return piece(at, 4u * i, DV / 2u);
}

fn piece(at: u32, first: u32, words: u32) -> vec4<u32> {
    let last = words - 1u;
    let all = vec4<u32>(
        cache[at + first],
        cache[at + min(first + 1u, last)],
        cache[at + min(first + 2u, last)],
        cache[at + min(first + 3u, last)],
    );
    return select(vec4<u32>(0u), all, vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(words));
}
