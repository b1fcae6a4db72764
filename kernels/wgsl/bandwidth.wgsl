{{BINDINGS}}
{{SIZES}}

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) thread: vec3<u32>) {
    var at = thread.x;
    var sum = vec4<u32>();
    for (var round = 0u; round < ROUNDS; round++) {
        {{for i in UNROLL}}
        let v{{i}} = input[at + {{i}}u * STRIDE];
        {{end i}}
        {{for i in UNROLL}}
        sum ^= v{{i}};
        {{end i}}
        at += {{UNROLL}}u * STRIDE;
    }
    if all(sum == vec4({{UNSEEN}})) {
        out[0] = sum;
    }
}
