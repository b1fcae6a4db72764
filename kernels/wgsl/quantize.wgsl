// Rows of floats to scale * q + bias, a group of columns for each invocation, as MLX does it:
// https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.quantize.html

{{SIZES}}
{{BINDINGS}}

const MOST: f32 = {{MOST}}.0;

fn element(i: u32) -> f32 {
    return {{ELEMENT}};
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = (workgroup.y * workgroups.x + workgroup.x) * THREADS + thread;
    if (group >= step[0] * GROUPS) {
        return;
    }
    let start = group * GROUP;
    var low = element(start);
    var high = low;
    for (var i = 1u; i < GROUP; i++) {
        let v = element(start + i);
        low = min(low, v);
        high = max(high, v);
    }
    // Groups of equal values have no scale of their own.
    let size = max((high - low) / MOST, 1e-7);
    // The end that is further from 0 is hit exactly, and 0 as well.
    let is_low = abs(low) > abs(high);
    let edge = select(high, low, is_low);
    var scale = select(-size, size, is_low);
    var bias = 0.0;
    let steps = round(edge / scale);
    if (steps != 0.0) {
        scale = edge / steps;
        bias = edge;
    }
    let at = step[1] * GROUPS + group;
    scales[at] = pack2x16float(vec2<f32>(scale, bias));
    for (var w = 0u; w < GROUP / PER_WORD; w++) {
        var word = 0u;
        for (var e = 0u; e < PER_WORD; e++) {
            let q = u32(clamp(round((element(start + w * PER_WORD + e) - bias) / scale), 0.0, MOST));
            word |= q << (8u * (e % 4u) + BITS * (e / 4u));
        }
        quants[at * (GROUP / PER_WORD) + w] = word;
    }
}
