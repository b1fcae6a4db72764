// Metal loads matrices from arrays of scalars only.
fn put_x(at: u32, v: vec4<f16>) {
    tile_x[at] = v.x;
    tile_x[at + 1u] = v.y;
    tile_x[at + 2u] = v.z;
    tile_x[at + 3u] = v.w;
}

fn put_w(at: u32, v: vec4<f16>) {
    tile_w[at] = v.x;
    tile_w[at + 1u] = v.y;
    tile_w[at + 2u] = v.z;
    tile_w[at + 3u] = v.w;
}
