// A causal convolution of each channel: one thread has a pair of channels of a row. Rows of this step are read where
// they lie, those before it from the cache.
{{BINDINGS}}
{{STEP}}
{{FUNCTIONS}}

fn input(row: u32, channel: u32) -> f32 {
    return {{INPUT}};
}

// An odd last channel has no other one.
fn inputs(row: u32, pair: u32) -> vec2<f32> {
    let last = CHANNELS - 1u;
    return vec2<f32>(input(row, 2u * pair), input(row, min(2u * pair + 1u, last)));
}

fn taps(pair: u32, tap: u32) -> vec2<f32> {
    let last = CHANNELS - 1u;
    return vec2<f32>(weight[2u * pair * TAPS + tap], weight[min(2u * pair + 1u, last) * TAPS + tap]);
}

fn store(row: u32, channel: u32, sum: f32) {
    if (channel < CHANNELS) {
        var v = sum + {{BIAS}};
        {{POST}}
        out[{{OUT_AT}}] = v;
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.y;
    let pair = group.x * THREADS + thread;
    if (pair >= PAIRS) {
        return;
    }
    let position = row_word(row, ROW_POSITION);
    let here = row - row_word(row, ROW_FIRST);
    let table = row_word(row, ROW_TABLE);
    let own = inputs(row, pair);
    var sum = own * taps(pair, TAPS - 1u);
    for (var back = 1u; back < min(TAPS, position + 1u); back++) {
        var x = vec2<f32>();
        if (back <= here) {
            x = inputs(row - back, pair);
        } else {
            x = unpack2x16float(cache[slot_of(table, position - back) % FULL_SLOT * PAIRS + pair]);
        }
        sum += x * taps(pair, TAPS - 1u - back);
    }
    store(row, 2u * pair, sum.x);
    store(row, 2u * pair + 1u, sum.y);
    // The largest f16: beyond it a cached value would be infinite.
    cache[row_word(row, ROW_SLOT) % FULL_SLOT * PAIRS + pair] = pack2x16float(clamp(own, vec2(-65504.0), vec2(65504.0)));
}
