// Columns 4c .. 4c+4 of a row of `{{BUFFER}}`, zero past the last.
fn {{NAME}}_one(row: u32, column: u32) -> f32 {
    if (column >= {{COLUMNS}}u) {
        return 0.0;
    }
    return {{BUFFER}}[{{OFFSET}}u + row * {{ROW}}u + column];
}

fn {{NAME}}(row: u32, c: u32) -> vec4<f32> {
    let j = 4u * c;
    return vec4<f32>({{NAME}}_one(row, j), {{NAME}}_one(row, j + 1u), {{NAME}}_one(row, j + 2u), {{NAME}}_one(row, j + 3u));
}
