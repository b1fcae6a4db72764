// Metal loads matrices from arrays of scalars only.
fn put_{{TILE}}(at: u32, v: vec4<f16>) {
    {{TILE}}[at] = v.x;
    {{TILE}}[at + 1u] = v.y;
    {{TILE}}[at + 2u] = v.z;
    {{TILE}}[at + 3u] = v.w;
}
