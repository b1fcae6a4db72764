    let at = {{SLOT_AT}} + {{FIRST_WORD}}u + head * {{HEAD_WORDS}}u;
    for (var i = thread; i < {{DIM}}u * {{BITS}}u / 32u; i += THREADS) {
        let first = i * (32u / {{BITS}}u);
        let group = first / {{GROUP}}u;
        var least = x[group * {{GROUP}}u];
        var most = least;
        for (var j = 1u; j < {{GROUP}}u; j++) {
            least = min(least, x[group * {{GROUP}}u + j]);
            most = max(most, x[group * {{GROUP}}u + j]);
        }
        let top = f32((1u << {{BITS}}u) - 1u);
        // Codes are chosen for scale and bias as they are kept.
        let kept = as_half(clamp(vec2((most - least) / top, least), vec2(-65504.0), vec2(65504.0)));
        if (first % {{GROUP}}u == 0u) {
            cache[at + {{DIM}}u * {{BITS}}u / 32u + group] = pack2x16float(kept);
        }
        let inverse = select(0.0, 1.0 / kept.x, kept.x > 0.0);
        var word = 0u;
        for (var j = 0u; j < 32u / {{BITS}}u; j++) {
            word |= u32(clamp(round((x[first + j] - kept.y) * inverse), 0.0, top)) << (j * {{BITS}}u);
        }
        cache[at + i] = word;
    }
