fn {{ROLE}}_quad(i: u32, table: u32, first: u32, end: u32, head: u32) -> vec4<f16> {
    let quads = {{DIMS}} / 4u;
    return cached(table, first + i / quads, end, {{HEAD_AT}}, i % quads, {{DIM}} / 4u);
}
fn put_{{ROLE}}(i: u32, v: vec4<f16>) {
    put_block(i / ({{DIMS}} / 4u) * BLOCK_STRIDE + i % ({{DIMS}} / 4u) * 4u, v);
}
