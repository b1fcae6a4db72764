    for (var i = thread; i < {{PAIRS}}u; i += THREADS) {
        let turn = {{TURN}};
        let at = vec2<u32>({{PAIR}}) + {{BASE}}u;
        let pair = vec2<f32>(x[at.x], x[at.y]);
        x[at.x] = pair.x * turn.x - pair.y * turn.y;
        x[at.y] = pair.y * turn.x + pair.x * turn.y;
    }
