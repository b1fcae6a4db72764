// One head of {{ROLE}}, held in workgroup memory while its steps change it. Thread `t` owns the
// elements t, t + THREADS, ...; each step ends with a barrier.
fn prepare_{{ROLE}}(row: u32, head: u32, thread: u32) {
    for (var j = thread; j < {{DIM}}u; j += THREADS) {
        x[j] = {{INPUT}}[{{AT}} + j];
    }
    workgroupBarrier();
    {{STEPS}}
    {{STORE}}
}
