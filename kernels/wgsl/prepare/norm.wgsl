    {
        var squares = 0.0;
        for (var j = thread % LANES; j < {{DIM}}u; j += LANES) {
            squares += x[{{BASE}}u + j] * x[{{BASE}}u + j];
        }
        let scale = 1.0 / sqrt(lanes_sum({{ELEMENT}}(squares), thread){{ONE}} / {{DIM}}.0 + {{EPS}});
        workgroupBarrier();
        for (var j = thread; j < {{DIM}}u; j += THREADS) {
            x[{{BASE}}u + j] *= scale{{WEIGHT}};
        }
    }
    workgroupBarrier();
