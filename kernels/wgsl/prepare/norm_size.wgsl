    var {{SIZE}} = 0.0;
    {
        var squares = 0.0;
        for (var j = thread % LANES; j < {{DIM}}u; j += LANES) {
            squares += x[{{BASE}}u + j] * x[{{BASE}}u + j];
        }
        {{SIZE}} = 1.0 / sqrt(lanes_sum({{ELEMENT}}(squares), thread){{ONE}} / {{DIM}}.0 + {{EPS}});
    }
