// Sorts the choices of all rows by expert, and cuts those of each expert into tiles. One workgroup.

{{SIZES}}
{{BINDINGS}}
{{ROUTE}}

var<workgroup> counts: array<atomic<u32>, EXPERTS>;
var<workgroup> firsts: array<atomic<u32>, EXPERTS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32) {
    let choices = step[{{ROWS}}] * TOP_K;
    for (var e = thread; e < EXPERTS; e += THREADS) {
        atomicStore(&counts[e], 0u);
    }
    workgroupBarrier();
    for (var c = thread; c < choices; c += THREADS) {
        let expert = expert_of(c / TOP_K, c % TOP_K);
        if (expert < EXPERTS) {
            atomicAdd(&counts[expert], 1u);
        }
    }
    workgroupBarrier();
    for (var e = thread; e < EXPERTS; e += THREADS) {
        var first = 0u;
        var tile = 0u;
        for (var i = 0u; i < e; i++) {
            let count = atomicLoad(&counts[i]);
            first += count;
            tile += (count + TILE - 1u) / TILE;
        }
        let end = first + atomicLoad(&counts[e]);
        for (var i = first; i < end; i += TILE) {
            tile++;
            tiles[tile] = vec4<u32>(e, i, min(i + TILE, end), 0u);
        }
        if (e == EXPERTS - 1u) {
            tiles[0] = vec4<u32>(tile, 0u, 0u, 0u);
        }
        atomicStore(&firsts[e], first);
    }
    workgroupBarrier();
    // In any order within an expert: each row's result is its own.
    for (var c = thread; c < choices; c += THREADS) {
        let expert = expert_of(c / TOP_K, c % TOP_K);
        if (expert < EXPERTS) {
            sorted[atomicAdd(&firsts[expert], 1u)] = c;
        }
    }
}
