    let at = {{SLOT_AT}} + {{FIRST_WORD}}u + head * {{HEAD_WORDS}}u;
    for (var i = thread; i < {{HEAD_WORDS}}u; i += THREADS) {
        let pair = vec2<f32>(x[2u * i], x[2u * i + 1u]);
        // The largest f16: beyond it a cached value would be infinite, and 0 * infinity is NaN.
        cache[at + i] = pack2x16float(clamp(pair, vec2(-65504.0), vec2(65504.0)));
    }
