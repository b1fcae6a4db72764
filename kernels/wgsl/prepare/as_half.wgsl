// The nearest half floats, as f32. By their bits: NVIDIA's compiler takes unpack2x16float(pack2x16float(v)) for v.
fn as_half(v: vec2<f32>) -> vec2<f32> {
    let bits = bitcast<vec2<u32>>(v);
    let odd = (bits >> vec2(13u)) & vec2(1u);
    let normal = bitcast<vec2<f32>>((bits + vec2(0xfffu) + odd) & vec2(0xffffe000u));
    // Below 2^-14 there is one every 2^-24.
    return select(round(v * 0x1p24f) * 0x1p-24f, normal, abs(v) >= vec2(0x1p-14f));
}
