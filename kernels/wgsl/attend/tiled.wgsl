// A tile of rows of one query head against blocks of keys, FlashAttention style (arXiv:2205.14135).
// A thread has four rows, the components of every vec4 here: with BLOCK_KEYS / LANES keys of each
// block when it scores, and with each LANES-th piece of the values when it sums.
{{BINDINGS}}
{{STEP}}
{{SIZES}}
{{LANE_FUNCTIONS}}
{{CACHE}}

// [dim][four rows], scaled.
var<workgroup> queries: array<vec4<f32>, QUERY_TILE>;
// [key][piece]: the block's keys, then its values. Rows are an odd number of pieces apart, so that
// neighbouring keys lie in different banks.
var<workgroup> pieces: array<vec4<u32>, PIECE_TILE>;
// [key][four rows]
var<workgroup> weights: array<vec4<f32>, WEIGHT_TILE>;

fn query(row: u32, head: u32, dim: u32) -> f32 {
    return select(0.0, q[{{Q_AT}} + min(dim, DK - 1u)] * {{SCALE}}, dim < DK);
}

{{SEQUENCE_END}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, {{THREAD_INPUTS}}) {
    let thread = {{THREAD}};
    let lane = thread % LANES;
    let four = thread / LANES;
    let head = group.x;
    let kv_head = head / (HEADS / KV_HEADS);
    let tile = group.y * TILE_ROWS;
    let tile_end = min(tile + TILE_ROWS, rows());
    let my_rows = vec4<u32>(tile + 4u * four) + vec4<u32>(0u, 1u, 2u, 3u);
    for (var i = thread; i < KEY_PIECES * 8u * FOURS; i += THREADS) {
        let dim = i % (KEY_PIECES * 8u);
        let row = vec4<u32>(tile + 4u * (i / (KEY_PIECES * 8u))) + vec4<u32>(0u, 1u, 2u, 3u);
        let last = tile_end - 1u;
        queries[dim * FOURS + i / (KEY_PIECES * 8u)] = vec4<f32>(
            query(min(row.x, last), head, dim),
            query(min(row.y, last), head, dim),
            query(min(row.z, last), head, dim),
            query(min(row.w, last), head, dim),
        );
    }
    {{for i in VALUE_PIECES_EACH}}
    let value_piece{{i}} = min(lane + {{i}}u * LANES, VALUE_PIECES - 1u);
    {{for d in EIGHT}}
    var o{{i}}_{{d}} = vec4<f32>();
    {{end d}}
    {{end i}}
    // The sink is one more key, which one lane counts.
    var largest = vec4<f32>({{LEAST}});
    var sum = vec4<f32>(select(0.0, {{TOTAL}}, lane == 0u));

    // One sequence after the other: a row hides the keys of all others.
    for (var first = tile; first < tile_end;) {
        let end = sequence_end(first, tile_end);
        let table = row_word(first, ROW_TABLE);
        let lo = first_visible(first);
        // Positions of a sequence's rows grow, and so do the ends of what they see.
        let hi = row_word(end - 1u, ROW_END);
        var my_lo = vec4<u32>();
        var my_hi = vec4<u32>();
        {{for c in FOUR}}
        if (my_rows[{{c}}] >= first && my_rows[{{c}}] < end) {
            my_lo[{{c}}] = first_visible(my_rows[{{c}}]);
            my_hi[{{c}}] = row_word(my_rows[{{c}}], ROW_END);
        }
        {{end c}}
        for (var block = lo; block < hi; block += BLOCK_KEYS) {
            for (var i = thread; i < BLOCK_KEYS * KEY_PIECES; i += THREADS) {
                let slot = slot_of(table, min(block + i / KEY_PIECES, hi - 1u));
                let piece = i % KEY_PIECES;
                pieces[i / KEY_PIECES * PIECE_STRIDE + piece] = key_piece(key_at(slot, kv_head), piece);
            }
            workgroupBarrier();
            {{for n in KEYS_EACH}}
            var score{{n}} = vec4<f32>();
            {{end n}}
            for (var i = 0u; i < KEY_PIECES; i++) {
                {{for d in EIGHT}}
                let q{{d}} = queries[(8u * i + {{d}}u) * FOURS + four];
                {{end d}}
                {{for n in KEYS_EACH}}
                {
                    let piece = pieces[(lane + {{n}}u * LANES) * PIECE_STRIDE + i];
                    let a = low(piece);
                    let b = high(piece);
                    score{{n}} += q0 * a.x + q1 * a.y + q2 * a.z + q3 * a.w;
                    score{{n}} += q4 * b.x + q5 * b.y + q6 * b.z + q7 * b.w;
                }
                {{end n}}
            }
            var block_max = vec4<f32>(NEVER);
            {{for n in KEYS_EACH}}
            let key{{n}} = vec4<u32>(block + lane + {{n}}u * LANES);
            let hidden{{n}} = (key{{n}} < my_lo) | (key{{n}} >= my_hi);
            score{{n}} = select(capped(score{{n}}), vec4<f32>(NEVER), hidden{{n}});
            block_max = max(block_max, score{{n}});
            {{end n}}
            let next = max(largest, lanes_max(block_max, thread));
            let rescale = exp(largest - next);
            largest = next;
            sum *= rescale;
            {{for n in KEYS_EACH}}
            let p{{n}} = select(exp(score{{n}} - largest), vec4<f32>(), hidden{{n}});
            weights[(lane + {{n}}u * LANES) * FOURS + four] = p{{n}};
            sum += p{{n}};
            {{end n}}
            // The keys have been read.
            workgroupBarrier();
            for (var i = thread; i < BLOCK_KEYS * VALUE_PIECES; i += THREADS) {
                let slot = slot_of(table, min(block + i / VALUE_PIECES, hi - 1u));
                let piece = i % VALUE_PIECES;
                pieces[i / VALUE_PIECES * PIECE_STRIDE + piece] = value_piece(value_at(slot, kv_head), piece);
            }
            {{for i in VALUE_PIECES_EACH}}
            {{for d in EIGHT}}
            o{{i}}_{{d}} *= rescale;
            {{end d}}
            {{end i}}
            workgroupBarrier();
            for (var key = 0u; key < BLOCK_KEYS; key++) {
                let p = weights[key * FOURS + four];
                {{for i in VALUE_PIECES_EACH}}
                let v{{i}} = pieces[key * PIECE_STRIDE + value_piece{{i}}];
                let a{{i}} = low(v{{i}});
                let b{{i}} = high(v{{i}});
                {{for d in FOUR}}
                o{{i}}_{{d}} += p * a{{i}}[{{d}}];
                {{end d}}
                o{{i}}_4 += p * b{{i}}.x;
                o{{i}}_5 += p * b{{i}}.y;
                o{{i}}_6 += p * b{{i}}.z;
                o{{i}}_7 += p * b{{i}}.w;
                {{end i}}
            }
            workgroupBarrier();
        }
        first = end;
    }

    let total = lanes_sum(sum, thread);
    {{for i in VALUE_PIECES_EACH}}
    {{for d in EIGHT}}
    if (8u * (lane + {{i}}u * LANES) + {{d}}u < DV) {
        let v = o{{i}}_{{d}} / total;
        let d = 8u * (lane + {{i}}u * LANES) + {{d}}u;
        {{for c in FOUR}}
        if (my_rows[{{c}}] < tile_end) {
            let row = my_rows[{{c}}];
            out[{{OUT_AT}} + d] = v[{{c}}];
        }
        {{end c}}
    }
    {{end d}}
    {{end i}}
}
