// A tile of rows of one query head against blocks of keys, in matrices that subgroups multiply
// together. Such a matrix cannot be scaled row by row, as an online softmax would (arXiv:2205.14135): scores
// are computed twice, once for the largest of each row, and then for the weights of the values. Each
// subgroup has SUB_ROWS rows, of which each pair of invocations sees one.
enable f16;
enable wgpu_cooperative_matrix;

{{BINDINGS}}
{{STEP}}
{{SIZES}}
{{CACHE}}

// [row][dim], each row scaled by a power of two such that f16 holds it.
var<workgroup> queries: array<f16, QUERY_TILE>;
// [key][dim]: the block's keys, then its values.
var<workgroup> block: array<f16, BLOCK_TILE>;
// [row][key]
var<workgroup> scores: array<f32, SCORE_TILE>;
var<workgroup> weights: array<f16, WEIGHT_TILE>;

// Weights are at most 2^15: f16 keeps those of keys that a row hardly sees.
const MOST_WEIGHT: f32 = 32768.0;

{{SEQUENCE_END}}

// Four elements of a key or value; zeros past its end.
fn put(at: u32, v: vec4<f16>) {
    block[at] = v.x;
    block[at + 1u] = v.y;
    block[at + 2u] = v.z;
    block[at + 3u] = v.w;
}

fn stage_keys(table: u32, first: u32, end: u32, kv_head: u32, thread: u32) {
    for (var i = thread; i < BLOCK_KEYS * KEY_DIMS / 4u; i += THREADS) {
        let key = i / (KEY_DIMS / 4u);
        let quad = i % (KEY_DIMS / 4u);
        let slot = slot_of(table, min(first + key, end - 1u)) * SLOT_QUADS;
        let v = cache[slot + kv_head * (DK / 4u) + min(quad, DK / 4u - 1u)];
        put(key * BLOCK_STRIDE + 4u * quad, select(vec4<f16>(), v, quad < DK / 4u));
    }
}

fn stage_values(table: u32, first: u32, end: u32, kv_head: u32, thread: u32) {
    for (var i = thread; i < BLOCK_KEYS * VALUE_DIMS / 4u; i += THREADS) {
        let key = i / (VALUE_DIMS / 4u);
        let quad = i % (VALUE_DIMS / 4u);
        let slot = slot_of(table, min(first + key, end - 1u)) * SLOT_QUADS;
        let v = cache[slot + VALUES_AT / 2u + kv_head * (DV / 4u) + min(quad, DV / 4u - 1u)];
        put(key * BLOCK_STRIDE + 4u * quad, select(vec4<f16>(), v, quad < DV / 4u));
    }
}

// Scores of four keys of the invocation's row, NEVER where the row does not see them.
fn four_scores(at: u32, key: u32, factor: f32, lo: u32, hi: u32) -> vec4<f32> {
    let raw = vec4<f32>(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
    let keys = vec4<u32>(key) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(capped(raw * factor), vec4<f32>(NEVER), (keys < vec4<u32>(lo)) | (keys >= vec4<u32>(hi)));
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    let thread = subgroup * (THREADS / SUBGROUPS) + member;
    let head = group.x;
    let kv_head = head / (HEADS / KV_HEADS);
    let tile = group.y * TILE_ROWS;
    let tile_end = min(tile + TILE_ROWS, rows());
    // This invocation's row and its half of what a row has.
    let my_place = thread / 2u;
    let half = thread % 2u;
    let my_row = tile + my_place;
    let sub_row = subgroup * SUB_ROWS;

    let row = min(my_row, tile_end - 1u);
    var size = 0.0;
    for (var d = half * (KEY_DIMS / 2u); d < min((half + 1u) * (KEY_DIMS / 2u), DK); d++) {
        size = max(size, abs(q[{{Q_AT}} + d]));
    }
    size = max(size, subgroupShuffleXor(size, 1u));
    let exponent = clamp(bitcast<u32>(size) >> 23u, 20u, 240u);
    let shrink = bitcast<f32>((264u - exponent) << 23u);
    for (var d = half * (KEY_DIMS / 2u); d < (half + 1u) * (KEY_DIMS / 2u); d++) {
        let v = q[{{Q_AT}} + min(d, DK - 1u)] * shrink;
        queries[my_place * QUERY_STRIDE + d] = f16(select(0.0, v, d < DK));
    }
    let factor = {{SCALE}} / shrink;

    {{for i in SUB_I}}
    {{for d in VALUE_TILES}}
    var o{{i}}_{{d}}: {{COOP}}<f32, C>;
    {{end d}}
    {{end i}}
    // The sink is one more key.
    var largest = {{LEAST}};
    var sum = 0.0;

    // One sequence after the other: a row hides the keys of all others.
    for (var first = tile; first < tile_end;) {
        let end = sequence_end(first, tile_end);
        let table = row_word(first, ROW_TABLE);
        let lo = first_visible(first);
        // Positions of a sequence's rows grow, and so do the ends of what they see.
        let hi = row_word(end - 1u, ROW_END);
        let mine = my_row >= first && my_row < end;
        let my_lo = select(0u, first_visible(row), mine);
        let my_hi = select(0u, row_word(row, ROW_END), mine);
        for (var at = lo; at < hi; at += BLOCK_KEYS) {
            stage_keys(table, at, hi, kv_head, thread);
            workgroupBarrier();
            {{SCORE}}
            workgroupBarrier();
            {{for k in FOURS}}
            {
                let key = half * (BLOCK_KEYS / 2u) + {{k}}u * 4u;
                let s = four_scores(my_place * SCORE_STRIDE + key, at + key, factor, my_lo, my_hi);
                largest = max(largest, max(max(s.x, s.y), max(s.z, s.w)));
            }
            {{end k}}
        }
        largest = max(largest, subgroupShuffleXor(largest, 1u));
        for (var at = lo; at < hi; at += BLOCK_KEYS) {
            workgroupBarrier();
            stage_keys(table, at, hi, kv_head, thread);
            workgroupBarrier();
            {{SCORE}}
            workgroupBarrier();
            {{for k in FOURS}}
            {
                let key = half * (BLOCK_KEYS / 2u) + {{k}}u * 4u;
                let s = four_scores(my_place * SCORE_STRIDE + key, at + key, factor, my_lo, my_hi);
                let weight = select(MOST_WEIGHT * exp(s - largest), vec4<f32>(), s == vec4<f32>(NEVER));
                let p = vec4<f16>(weight);
                let p_at = my_place * WEIGHT_STRIDE + key;
                weights[p_at] = p.x;
                weights[p_at + 1u] = p.y;
                weights[p_at + 2u] = p.z;
                weights[p_at + 3u] = p.w;
                // As rounded, so that weights add up to 1.
                sum += dot(vec4<f32>(p), vec4<f32>(1.0));
            }
            {{end k}}
            stage_values(table, at, hi, kv_head, thread);
            workgroupBarrier();
            {{for k in KEY_TILES}}
            {
                {{for i in SUB_I}}
                let p_at{{i}} = (sub_row + {{i}}u * SIDE) * WEIGHT_STRIDE + {{k}}u * SIDE;
                let p{{i}} = coopLoadT<{{COOP}}<f16, A>>(&weights[p_at{{i}}], {{WEIGHT_STRIDE}}u);
                {{end i}}
                {{for d in VALUE_TILES}}
                let v_at{{d}} = {{k}}u * SIDE * BLOCK_STRIDE + {{d}}u * SIDE;
                let v{{d}} = coopLoadT<{{COOP}}<f16, B>>(&block[v_at{{d}}], {{BLOCK_STRIDE}}u);
                {{for i in SUB_I}}
                o{{i}}_{{d}} = coopMultiplyAdd(p{{i}}, v{{d}}, o{{i}}_{{d}});
                {{end i}}
                {{end d}}
            }
            {{end k}}
        }
        workgroupBarrier();
        first = end;
    }

    let total = sum + subgroupShuffleXor(sum, 1u) + {{TOTAL}};
    {{for d in VALUE_TILES}}
    {
        {{for i in SUB_I}}
        let o_at{{i}} = (sub_row + {{i}}u * SIDE) * SCORE_STRIDE;
        coopStoreT(o{{i}}_{{d}}, &scores[o_at{{i}}], {{SCORE_STRIDE}}u);
        {{end i}}
        workgroupBarrier();
        if (my_row < tile_end) {
            for (var i = half * (SIDE / 2u); i < (half + 1u) * (SIDE / 2u); i++) {
                let d = {{d}}u * SIDE + i;
                if (d < DV) {
                    out[{{OUT_AT}} + d] = scores[my_place * SCORE_STRIDE + i] / total;
                }
            }
        }
        workgroupBarrier();
    }
    {{end d}}
}
