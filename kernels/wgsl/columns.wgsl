// Columns 4c .. 4c+4 of a row of `{{BUFFER}}`.
fn {{NAME}}(row: u32, c: u32) -> vec4<f32> {
    return {{BUFFER}}[{{OFFSET}}u / 4u + row * ({{ROW}}u / 4u) + c];
}
