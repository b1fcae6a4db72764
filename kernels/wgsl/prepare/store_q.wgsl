    for (var j = thread; j < {{DIM}}u; j += THREADS) {
        q_out[{{OUT_AT}} + j] = x[j];
    }
