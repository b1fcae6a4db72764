    {
        var squares = 0.0;
        for (var j = thread; j < {{DIM}}u; j += THREADS) {
            squares += x[j] * x[j];
        }
        let scale = 1.0 / sqrt(lanes_sum(squares, thread) / {{DIM}}.0 + {{EPS}});
        for (var j = thread; j < {{DIM}}u; j += THREADS) {
            x[j] *= scale{{WEIGHT}};
        }
    }
