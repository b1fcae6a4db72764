// One head of {{ROLE}}, held in workgroup memory while its steps change it. Thread `t` owns the
// elements t, t + THREADS, ...
fn prepare_{{ROLE}}(row: u32, head: u32, thread: u32) {
    for (var j = thread; j < {{DIM}}u; j += THREADS) {
        x[j] = {{INPUT}}[{{AT}} + j];
    }
    {{STEPS}}
    {{STORE}}
}
