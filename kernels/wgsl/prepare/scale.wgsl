    for (var j = thread; j < {{DIM}}u; j += THREADS) {
        x[{{BASE}}u + j] *= {{SCALE}};
    }
