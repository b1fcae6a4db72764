    for (var j = thread; j < {{DIM}}u; j += THREADS) {
        x[j] *= {{SCALE}};
    }
