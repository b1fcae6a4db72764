// Columns 4c .. 4c+4 of a row of `{{BUFFER}}`, zero past the last. No branches: they would be inlined
// once for each column, which makes some compilers run out of memory.
fn {{NAME}}_one(row: u32, column: u32) -> f32 {
    let value = {{BUFFER}}[{{OFFSET}}u + row * {{ROW}}u + min(column, {{COLUMNS}}u - 1u)];
    return select(0.0, value, column < {{COLUMNS}}u);
}

fn {{NAME}}(row: u32, c: u32) -> vec4<f32> {
    let j = 4u * c;
    return vec4<f32>({{NAME}}_one(row, j), {{NAME}}_one(row, j + 1u), {{NAME}}_one(row, j + 2u), {{NAME}}_one(row, j + 3u));
}
