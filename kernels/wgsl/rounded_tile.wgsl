// What a workgroup has made of a row, until all of it is there. Single elements: some drivers store one
// component of a vector by writing all four.
var<workgroup> tile: array<f32, 4u * TILE_QUADS>;

fn keep(i: u32, v: f32) {
    tile[i] = v;
}

// Rounds all that was kept of a row, whose first column is `4 * first_quad`.
fn round_tile(row: u32, first_quad: u32, thread: u32) {
    workgroupBarrier();
    for (var base = 0u; base < TILE_QUADS; base += NEXT_THREADS) {
        let quad = base + thread;
        let inside = quad < TILE_QUADS;
        let at = 4u * min(quad, TILE_QUADS - 1u);
        let before = vec4<f32>(tile[at], tile[at + 1u], tile[at + 2u], tile[at + 3u]);
        round_quad(row, first_quad + quad, before, before{{GAINED}}, inside, thread);
    }
}
