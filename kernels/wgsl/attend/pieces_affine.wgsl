// Piece `i` of the key or value that begins at word `at`: all its codes, then a scale and a bias for each group.

fn four_codes(at: u32, first: u32) -> vec4<f32> {
    let bit = first * {{BITS}}u;
    let word = vec4<u32>(cache[at + bit / 32u]);
    let shift = vec4<u32>(bit % 32u) + vec4<u32>(0u, 1u, 2u, 3u) * {{BITS}}u;
    return vec4<f32>((word >> shift) & vec4<u32>((1u << {{BITS}}u) - 1u));
}

fn affine_piece(at: u32, i: u32, dim: u32) -> vec4<u32> {
    let pair = unpack2x16float(cache[at + dim * {{BITS}}u / 32u + 8u * i / {{GROUP}}u]);
    let low = pair.x * four_codes(at, 8u * i) + pair.y;
    let high = pair.x * four_codes(at, 8u * i + 4u) + pair.y;
    return vec4<u32>(
        pack2x16float(clamp(low.xy, vec2(-65504.0), vec2(65504.0))),
        pack2x16float(clamp(low.zw, vec2(-65504.0), vec2(65504.0))),
        pack2x16float(clamp(high.xy, vec2(-65504.0), vec2(65504.0))),
        pack2x16float(clamp(high.zw, vec2(-65504.0), vec2(65504.0))),
    );
}

fn piece(at: u32, i: u32, dim: u32) -> vec4<u32> {
    {{for m in MIXED}}
    if (at >= FULL_SLOT) {
        let first = at - FULL_SLOT + 4u * i;
        return vec4<u32>(cache[first], cache[first + 1u], cache[first + 2u], cache[first + 3u]);
    }
    {{end m}}
    return affine_piece(at, i, dim);
}

fn key_piece(at: u32, i: u32) -> vec4<u32> {
    return piece(at, i, DK);
}

fn value_piece(at: u32, i: u32) -> vec4<u32> {
    return piece(at, i, {{VALUE_DIM}}u);
}
