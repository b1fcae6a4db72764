fn put_x(at: u32, v: vec4<f16>) {
    tile_x[at / 4u] = v;
}

fn put_w(at: u32, v: vec4<f16>) {
    tile_w[at / 4u] = v;
}
