// The second plane is what rounding left of the first, in parts of this.
const FINE: f32 = 254.0;

// A number that is added to a small one rounds it to an integer, which is then in the lowest bits: 1.5 * 2^23.
const ROUNDS: f32 = 12582912.0;

// The lowest byte of each.
fn low_bytes(v: vec4<f32>) -> u32 {
    let b = bitcast<vec4<u32>>(v);
    return (b.x & 255u) | ((b.y & 255u) << 8u) | ((b.z & 255u) << 16u) | (b.w << 24u);
}

// v, whose elements are at most 127, in the first plane: near it, an integer in the lowest bits.
fn coarse(v: vec4<f32>) -> vec4<f32> {
    return v + vec4<f32>(ROUNDS);
}

// What the first plane leaves, for the second.
fn finer(v: vec4<f32>, near: vec4<f32>) -> vec4<f32> {
    // By its bits: compilers may say that (ROUNDS + v) - ROUNDS is v.
    let rounded = vec4<f32>(bitcast<vec4<i32>>(near) - vec4<i32>(bitcast<i32>(ROUNDS)));
    return fma(v - rounded, vec4<f32>(FINE), vec4<f32>(ROUNDS));
}
