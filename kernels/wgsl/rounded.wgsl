// Results, rounded for the products that follow: see rounded.rs. Eight adjacent threads have a unit.

{{for s in EIGHT_SCRATCH}}
var<workgroup> eights: array<vec4<f32>, NEXT_THREADS>;
{{end s}}

// Sums and maxima over eight adjacent threads. All threads of the workgroup call them together.
fn eight_sum(v: vec4<f32>, thread: u32) -> vec4<f32> {
    var result = v;
{{for i in EIGHT_SHUFFLES}}
    result += subgroupShuffleXor(result, 1u << {{i}}u);
{{end i}}
{{for s in EIGHT_SCRATCH}}
    eights[thread] = v;
    workgroupBarrier();
    result = vec4<f32>();
{{for i in EIGHT}}
    result += eights[thread / 8u * 8u + {{i}}u];
{{end i}}
    workgroupBarrier();
{{end s}}
    return result;
}

fn eight_max(v: f32, thread: u32) -> f32 {
    var result = v;
{{for i in EIGHT_SHUFFLES}}
    result = max(result, subgroupShuffleXor(result, 1u << {{i}}u));
{{end i}}
{{for s in EIGHT_SCRATCH}}
    eights[thread] = vec4<f32>(v);
    workgroupBarrier();
{{for i in EIGHT}}
    result = max(result, eights[thread / 8u * 8u + {{i}}u].x);
{{end i}}
    workgroupBarrier();
{{end s}}
    return result;
}

// Rounds columns 4 quad .. 4 quad + 4 of a row; `before` is what they were before the norm's weight. All threads
// call it together, each eight of them for the quads of a unit; those that are not `inside` store nothing.
fn round_quad(row: u32, quad: u32, before: vec4<f32>, v: vec4<f32>, inside: bool, thread: u32) {
    let size = abs(v);
    let largest = eight_max(max(max(size.x, size.y), max(size.z, size.w)), thread);
    // 1e-30: its inverse is finite, and what is smaller may as well be zero.
    let scaled = v * select(0.0, 127.0 / largest, largest > 1e-30);
    let near = coarse(scaled);
    let bytes = low_bytes(near);
    var sum = f32(dot4I8Packed(bytes, 0x01010101u));
    let first = row * NEXT_WORDS;
    let word = first + ((quad / 4u % 2u) * NEXT_UNITS + quad / 8u) * 4u + quad % 4u;
    if (inside) {
        next[word] = bytes;
    }
{{for fine in SECOND}}
    let fine_bytes = low_bytes(finer(scaled, near));
    sum += f32(dot4I8Packed(fine_bytes, 0x01010101u)) / FINE;
    if (inside) {
        next[word + 8u * NEXT_UNITS] = fine_bytes;
    }
{{end fine}}
    let first_half = quad % 8u < 4u;
    let sums = eight_sum(vec4<f32>(dot(before, before), select(0.0, sum, first_half), select(sum, 0.0, first_half), 0.0), thread);
    if (inside && quad % 8u == 0u) {
        let worth = largest / 127.0;
        let record = bitcast<vec4<u32>>(vec4<f32>(worth, worth * sums.y, worth * sums.z, sums.x));
        let at = first + (NEXT_RECORDS + quad / 8u) * 4u;
        next[at] = record.x;
        next[at + 1u] = record.y;
        next[at + 2u] = record.z;
        next[at + 3u] = record.w;
    }
}
