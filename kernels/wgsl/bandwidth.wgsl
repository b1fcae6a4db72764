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
    // The host never writes such words; no compiler knows that, and so every load has to happen.
    if all(sum == vec4(0x7f4a7c15u, 0x9e3779b9u, 0x2545f491u, 0x4f6cdd1du)) {
        out[0] = sum;
    }
}
