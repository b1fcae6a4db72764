fn put_{{TILE}}(at: u32, v: vec4<f16>) {
    {{TILE}}[at / 4u] = v;
}
