// A workgroup normalizes one row.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const THREADS = 64u;

var<workgroup> sums: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.y * DIM;
    var sum = 0.0;
    for (var i = thread; i < PART; i += THREADS) {
        sum += x[row + i] * x[row + i];
    }
    sums[thread] = sum;
    workgroupBarrier();
    sum = 0.0;
    for (var i = 0u; i < THREADS; i += 1u) {
        sum += sums[i];
    }
    let scale = inverseSqrt(sum / f32(PART) + EPS);
    for (var i = thread; i < DIM; i += THREADS) {
        y[row + i] = x[row + i] * scale * weight[i];
    }
}
