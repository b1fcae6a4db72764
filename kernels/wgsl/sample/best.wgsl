// The larger value wins, and of equals the lower index. What is no number never wins.
struct Best {
    value: f32,
    index: u32,
}

const NOTHING: Best = Best(-3.4e38, 0xffffffffu);

fn better(a: Best, b: Best) -> Best {
    let wins = b.value > a.value || (b.value == a.value && b.index < a.index);
    return Best(select(a.value, b.value, wins), select(a.index, b.index, wins));
}

var<workgroup> values: array<f32, THREADS>;
var<workgroup> indices: array<u32, THREADS>;

// The best of all threads, in thread 0.
fn best_of_all(mine: Best, thread: u32) -> Best {
    values[thread] = mine.value;
    indices[thread] = mine.index;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (thread < half) {
            let both = better(Best(values[thread], indices[thread]), Best(values[thread + half], indices[thread + half]));
            values[thread] = both.value;
            indices[thread] = both.index;
        }
    }
    return Best(values[0], indices[0]);
}
