// A tile of rows of one query head against blocks of keys, in matrices that subgroups multiply
// together. Each subgroup has SUB_ROWS rows, of which each pair of invocations sees one.
//
// The softmax is online (arXiv:2205.14135), but such a matrix cannot be scaled row by row: sums go
// through workgroup memory for that. So weights are taken relative to a reference, which is the largest score only when
// it is set, and which a row may pass by HEADROOM before sums are scaled to a new one. That is seldom.
enable f16;
enable wgpu_cooperative_matrix;

{{BINDINGS}}
{{STEP}}
{{SIZES}}
{{CACHE}}

// [row][dim], each row scaled by a power of two such that f16 holds it.
var<workgroup> queries: array<{{HALF}}, QUERY_TILE>;
// [key][dim]: the block's keys, then its values.
var<workgroup> block: array<{{HALF}}, BLOCK_TILE>;
// [row][key]; behind the keys of a subgroup's first row stands whether one of its rows has a new reference. (An array of
// its own could end where no matrix may begin.)
var<workgroup> scores: array<f32, SCORE_TILE>;
var<workgroup> weights: array<{{HALF}}, WEIGHT_TILE>;

// A key as large as the reference has this weight: f16 keeps those of keys that a row hardly sees, and of
// larger ones as far as HEADROOM goes.
const WEIGHT: f32 = 128.0;
// By how much a score may pass the reference: weights reach 2^15.
const HEADROOM: f32 = 5.5;

{{SEQUENCE_END}}

{{PUTS}}

fn query4(row: u32, head: u32, dim: u32) -> vec4<f32> {
    let at = {{Q_AT}} + dim;
    {{for a in ALIGNED}}
    return q[at / 4u];
    {{end a}}
    {{for u in UNALIGNED}}
    return vec4<f32>(q[at], q[at + 1u], q[at + 2u], q[at + 3u]);
    {{end u}}
}

// Four elements, from the `quad`th on, of the key or value that begins at `head`; zeros past its end. Keys past the
// last are the last one.
fn cached(table: u32, key: u32, end: u32, head: u32, quad: u32, quads: u32) -> vec4<f16> {
    let v = cache[slot_of(table, min(key, end - 1u)) * SLOT_QUADS + head + min(quad, quads - 1u)];
    return select(vec4<f16>(), v, quad < quads);
}

{{KEY_FUNCTIONS}}
{{VALUE_FUNCTIONS}}
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
    {{for d in QUERY_QUADS}}
    let quad{{d}} = half * {{QUERY_QUADS}}u + {{d}}u;
    let q{{d}} = select(vec4<f32>(), query4(row, head, 4u * min(quad{{d}}, DK / 4u - 1u)), quad{{d}} < DK / 4u);
    {{end d}}
    var size = 0.0;
    {{for d in QUERY_QUADS}}
    size = max(size, max(max(abs(q{{d}}.x), abs(q{{d}}.y)), max(abs(q{{d}}.z), abs(q{{d}}.w))));
    {{end d}}
    size = max(size, subgroupShuffleXor(size, 1u));
    let exponent = clamp(bitcast<u32>(size) >> 23u, 20u, 240u);
    let shrink = bitcast<f32>((264u - exponent) << 23u);
    {{for d in QUERY_QUADS}}
    put_queries(my_place * QUERY_STRIDE + 4u * quad{{d}}, vec4<f16>(q{{d}} * shrink));
    {{end d}}
    let factor = {{SCALE}} / shrink;

    {{for i in SUB_I}}
    {{for d in VALUE_TILES}}
    var o{{i}}_{{d}}: {{COOP}}<f32, C>;
    {{end d}}
    {{end i}}
    // The sink is one more key.
    var reference = {{LEAST}};
    var sum = select(0.0, {{TOTAL}}, half == 0u);

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
        {{for early in EARLY}}
        {{for s in KEY_STAGES}}
        let i_k{{s}} = min({{s}}u * THREADS + thread, BLOCK_KEYS * KEY_DIMS / 4u - 1u);
        var k{{s}} = key_quad(i_k{{s}}, table, lo, hi, kv_head);
        {{end s}}
        {{end early}}
        for (var at = lo; at < hi; at += BLOCK_KEYS) {
            // The values before have been multiplied.
            workgroupBarrier();
            {{for early in EARLY}}
            {{for s in KEY_STAGES}}
            put_key(i_k{{s}}, k{{s}});
            {{end s}}
            // Memory answers while keys are multiplied.
            {{for s in VALUE_STAGES}}
            let i_v{{s}} = min({{s}}u * THREADS + thread, BLOCK_KEYS * VALUE_DIMS / 4u - 1u);
            let v{{s}} = value_quad(i_v{{s}}, table, at, hi, kv_head);
            {{end s}}
            {{end early}}
            {{for late in LATE}}
            {{STAGE_KEYS}}
            {{end late}}
            workgroupBarrier();
            {{SCORE}}
            workgroupBarrier();
            var largest = NEVER;
            {{for k in FOURS}}
            let key{{k}} = half * (BLOCK_KEYS / 2u) + {{k}}u * 4u;
            let s{{k}} = four_scores(my_place * SCORE_STRIDE + key{{k}}, at + key{{k}}, factor, my_lo, my_hi);
            largest = max(largest, max(max(s{{k}}.x, s{{k}}.y), max(s{{k}}.z, s{{k}}.w)));
            {{end k}}
            largest = max(largest, subgroupShuffleXor(largest, 1u));
            let passed = largest > reference + HEADROOM || reference == NEVER;
            let next = select(reference, largest, passed);
            let rescale = exp(reference - next);
            // Nothing has been summed before there is a reference.
            let grown = subgroupAny(passed && reference != NEVER);
            reference = next;
            if (member == 0u) {
                scores[sub_row * SCORE_STRIDE + BLOCK_KEYS] = f32(grown);
            }
            sum *= rescale;
            {{for k in FOURS}}
            let p{{k}} = vec4<f16>(select(WEIGHT * exp(s{{k}} - reference), vec4<f32>(), s{{k}} == vec4<f32>(NEVER)));
            put_weights(my_place * WEIGHT_STRIDE + key{{k}}, p{{k}});
            // As rounded, so that weights add up to 1.
            sum += dot(vec4<f32>(p{{k}}), vec4<f32>(1.0));
            {{end k}}
            {{for early in EARLY}}
            {{for s in VALUE_STAGES}}
            put_value(i_v{{s}}, v{{s}});
            {{end s}}
            {{for s in KEY_STAGES}}
            k{{s}} = key_quad(i_k{{s}}, table, at + BLOCK_KEYS, hi, kv_head);
            {{end s}}
            {{end early}}
            {{for late in LATE}}
            {{STAGE_VALUES}}
            {{end late}}
            workgroupBarrier();
            if ({{for s in SUBGROUPS}}scores[{{s}}u * SUB_ROWS * SCORE_STRIDE + BLOCK_KEYS] + {{end s}}0.0 > 0.0) {
                {{for d in VALUE_TILES}}
                {{for i in SUB_I}}
                let to{{i}}_{{d}} = (sub_row + {{i}}u * SIDE) * SCORE_STRIDE;
                coopStoreT(o{{i}}_{{d}}, &scores[to{{i}}_{{d}}], {{SCORE_STRIDE}}u);
                {{end i}}
                workgroupBarrier();
                for (var i = half * (SIDE / 2u); i < (half + 1u) * (SIDE / 2u); i++) {
                    scores[my_place * SCORE_STRIDE + i] *= rescale;
                }
                workgroupBarrier();
                {{for i in SUB_I}}
                o{{i}}_{{d}} = coopLoadT<{{COOP}}<f32, C>>(&scores[to{{i}}_{{d}}], {{SCORE_STRIDE}}u);
                {{end i}}
                workgroupBarrier();
                {{end d}}
            }
            {{for k in KEY_TILES}}
            {
                {{for i in SUB_I}}
                let p_at{{i}} = ((sub_row + {{i}}u * SIDE) * WEIGHT_STRIDE + {{k}}u * SIDE) / WIDTH;
                let weights{{i}} = coopLoadT<{{COOP}}<f16, A>>(&weights[p_at{{i}}], {{WEIGHT_COOP}}u);
                {{end i}}
                {{for d in VALUE_TILES}}
                let v_at{{d}} = ({{k}}u * SIDE * BLOCK_STRIDE + {{d}}u * SIDE) / WIDTH;
                let values{{d}} = coopLoadT<{{COOP}}<f16, B>>(&block[v_at{{d}}], {{BLOCK_COOP}}u);
                {{for i in SUB_I}}
                o{{i}}_{{d}} = coopMultiplyAdd(weights{{i}}, values{{d}}, o{{i}}_{{d}});
                {{end i}}
                {{end d}}
            }
            {{end k}}
        }
        workgroupBarrier();
        first = end;
    }

    let total = sum + subgroupShuffleXor(sum, 1u);
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
