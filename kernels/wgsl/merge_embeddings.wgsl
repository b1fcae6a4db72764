{{BINDINGS}}
{{STEP}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.y;
    let column = group.x * THREADS + thread;
    if (column >= WIDTH) {
        return;
    }
    let image = row_word(row, ROW_IMAGE);
    if (image == NO_IMAGE) {
        out[{{OUT_AT}}] = x[{{X_AT}}];
    } else {
        out[{{OUT_AT}}] = {{BESIDE}}images[image * {{ROW}} + {{FIRST}} + column];
    }
}
