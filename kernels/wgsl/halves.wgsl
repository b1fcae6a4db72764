// Rows as f16, each with a power of two taken out, so that no element is too large for an f16 and
// the large ones, which count, keep all its bits. One workgroup a row.
{{BINDINGS}}
{{SIZES}}
{{LANE_FUNCTIONS}}
{{FUNCTIONS}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, {{THREAD_INPUTS}}) {
    let thread = {{THREAD}};
    let row = group.x;
    // Each thread keeps its values in registers from the first read to the store.
    {{for i in PER_THREAD}}
    let c{{i}} = thread + {{i}}u * THREADS;
    var x{{i}} = select(vec4<f32>(), x(row, min(c{{i}}, QUADS - 1u)), c{{i}} < QUADS);
    {{end i}}
    {{for n in NORM}}
    var squares = 0.0;
    {{for i in PER_THREAD}}
    squares += dot(x{{i}}, x{{i}});
    {{end i}}
    let size = 1.0 / sqrt(lanes_sum(squares, thread) / f32(K) + {{EPS}});
    {{for i in PER_THREAD}}
    x{{i}} *= size{{GAIN}};
    {{end i}}
    {{end n}}
    var largest = 0.0;
    {{for i in PER_THREAD}}
    largest = max(largest, max(max(abs(x{{i}}.x), abs(x{{i}}.y)), max(abs(x{{i}}.z), abs(x{{i}}.w))));
    {{end i}}
    // The exponent alone: scaling is exact. The largest becomes 1024 to 2048.
    let exponent = clamp(bitcast<u32>(lanes_max(largest, thread)) >> 23u, 20u, 240u);
    let scale = bitcast<f32>((264u - exponent) << 23u);
    {{for i in PER_THREAD}}
    if (c{{i}} < PADDED_QUADS) {
        let v = x{{i}} * scale;
        halves[row * PADDED_QUADS + c{{i}}] = vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw));
    }
    {{end i}}
    if (thread == 0u) {
        worths[row] = 1.0 / scale;
    }
}
