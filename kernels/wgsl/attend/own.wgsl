// The row's own query, key and value are made here, out of the projections, and the latter two go to the
// cache as well: the step before attention, without a dispatch of its own.
var<workgroup> x: array<f32, {{OWN_ELEMENTS}}>;
// The key and then the value, in the cache's form.
var<workgroup> own: array<vec4<u32>, KEY_PIECES + VALUE_PIECES>;

fn packed(base: u32, dim: u32, j: u32) -> u32 {
    let pair = vec2<f32>(x[base + min(j, dim - 1u)], x[base + min(j + 1u, dim - 1u)]);
    // The largest f16: beyond it a cached value would be infinite, and 0 * infinity is NaN.
    return select(0u, pack2x16float(clamp(pair, vec2(-65504.0), vec2(65504.0))), j < dim);
}

fn packed_piece(base: u32, dim: u32, j: u32) -> vec4<u32> {
    return vec4<u32>(packed(base, dim, j), packed(base, dim, j + 2u), packed(base, dim, j + 4u), packed(base, dim, j + 6u));
}

fn make_own(thread: u32) {
    for (var i = thread; i < KEY_PIECES + VALUE_PIECES; i += THREADS) {
        if (i < KEY_PIECES) {
            own[i] = packed_piece({{KEY_BASE}}u, DK, 8u * i);
        } else {
            own[i] = packed_piece({{VALUE_BASE}}u, DV, 8u * (i - KEY_PIECES));
        }
    }
}

fn store_own(at: u32, kv_head: u32, thread: u32) {
    for (var i = thread; i < KEY_PIECES + VALUE_PIECES; i += THREADS) {
        if (i < KEY_PIECES) {
            store_piece(at + kv_head * KEY_WORDS, i, DK / 2u, own[i]);
        } else {
            store_piece(at + KV_HEADS * KEY_WORDS + kv_head * VALUE_WORDS, i - KEY_PIECES, DV / 2u, own[i]);
        }
    }
}
