// One row against its keys: FOLD query heads that share a key head. A team of LANES threads reads
// four keys at a time, each thread the same pieces of every key, and keeps its own running softmax
// (arXiv:1805.02867); the teams' results are merged at the end.
{{BINDINGS}}
{{STEP}}
{{SIZES}}
{{LANE_FUNCTIONS}}
{{CACHE}}

var<workgroup> team_max: array<f32, TEAMS>;
var<workgroup> team_sum: array<f32, TEAMS>;
var<workgroup> team_out: array<vec4<f32>, TEAMS_OUT>;

fn query(row: u32, head: u32, dim: u32) -> f32 {
    return select(0.0, q[{{Q_AT}} + min(dim, DK - 1u)] * {{SCALE}}, dim < DK);
}

fn query4(row: u32, head: u32, dim: u32) -> vec4<f32> {
    return vec4<f32>(
        query(row, head, dim),
        query(row, head, dim + 1u),
        query(row, head, dim + 2u),
        query(row, head, dim + 3u),
    );
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, {{THREAD_INPUTS}}) {
    let thread = {{THREAD}};
    let lane = thread % LANES;
    let team = thread / LANES;
    let first_head = group.x * FOLD;
    let kv_head = first_head / (HEADS / KV_HEADS);
    let row = group.y;
    let table = row_word(row, ROW_TABLE);
    var lo = first_visible(row);
    var hi = row_word(row, ROW_END);
    {{for s in SPLIT}}
    lo = max(lo, group.z * step[SPLIT_KEYS]);
    hi = min(hi, (group.z + 1u) * step[SPLIT_KEYS]);
    {{end s}}
    {{for i in KEY_PIECES_EACH}}
    let key_piece{{i}} = min(lane + {{i}}u * LANES, KEY_PIECES - 1u);
    {{for g in FOLD}}
    let q{{g}}_{{i}}_low = query4(row, first_head + {{g}}u, 8u * (lane + {{i}}u * LANES));
    let q{{g}}_{{i}}_high = query4(row, first_head + {{g}}u, 8u * (lane + {{i}}u * LANES) + 4u);
    {{end g}}
    {{end i}}
    {{for i in VALUE_PIECES_EACH}}
    let value_piece{{i}} = min(lane + {{i}}u * LANES, VALUE_PIECES - 1u);
    {{for g in FOLD}}
    var o{{g}}_{{i}}_low = vec4<f32>();
    var o{{g}}_{{i}}_high = vec4<f32>();
    {{end g}}
    {{end i}}
    {{for g in FOLD}}
    var max{{g}} = NEVER;
    var sum{{g}} = 0.0;
    {{end g}}

    for (var first = lo; first < hi; first += 4u * TEAMS) {
        {{for u in FOUR}}
        let key{{u}} = first + {{u}}u * TEAMS + team;
        let slot{{u}} = slot_of(table, min(key{{u}}, hi - 1u)) * SLOT_WORDS;
        {{for i in KEY_PIECES_EACH}}
        let k{{u}}_{{i}} = key_piece(slot{{u}} + kv_head * (DK / 2u), key_piece{{i}});
        {{end i}}
        {{end u}}
        {{for u in FOUR}}
        {{for i in VALUE_PIECES_EACH}}
        let v{{u}}_{{i}} = value_piece(slot{{u}} + VALUES_AT + kv_head * (DV / 2u), value_piece{{i}});
        {{end i}}
        {{end u}}
        let hidden = vec4<u32>(key0, key1, key2, key3) >= vec4<u32>(hi);
        {{for g in FOLD}}
        var score{{g}} = vec4<f32>();
        {{end g}}
        {{for u in FOUR}}
        {{for i in KEY_PIECES_EACH}}
        let k{{u}}_{{i}}_low = low(k{{u}}_{{i}});
        let k{{u}}_{{i}}_high = high(k{{u}}_{{i}});
        {{for g in FOLD}}
        score{{g}}[{{u}}] += dot(q{{g}}_{{i}}_low, k{{u}}_{{i}}_low) + dot(q{{g}}_{{i}}_high, k{{u}}_{{i}}_high);
        {{end g}}
        {{end i}}
        {{end u}}
        {{for g in FOLD}}
        score{{g}} = select(capped(lanes_sum(score{{g}}, thread)), vec4<f32>(NEVER), hidden);
        let max{{g}}_next = max(max(max{{g}}, max(score{{g}}.x, score{{g}}.y)), max(score{{g}}.z, score{{g}}.w));
        let rescale{{g}} = exp(max{{g}} - max{{g}}_next);
        max{{g}} = max{{g}}_next;
        let p{{g}} = select(exp(score{{g}} - max{{g}}), vec4<f32>(), hidden);
        sum{{g}} = sum{{g}} * rescale{{g}} + p{{g}}.x + p{{g}}.y + p{{g}}.z + p{{g}}.w;
        {{for i in VALUE_PIECES_EACH}}
        o{{g}}_{{i}}_low *= rescale{{g}};
        o{{g}}_{{i}}_high *= rescale{{g}};
        {{end i}}
        {{end g}}
        {{for u in FOUR}}
        {{for i in VALUE_PIECES_EACH}}
        let v{{u}}_{{i}}_low = low(v{{u}}_{{i}});
        let v{{u}}_{{i}}_high = high(v{{u}}_{{i}});
        {{for g in FOLD}}
        o{{g}}_{{i}}_low += p{{g}}[{{u}}] * v{{u}}_{{i}}_low;
        o{{g}}_{{i}}_high += p{{g}}[{{u}}] * v{{u}}_{{i}}_high;
        {{end g}}
        {{end i}}
        {{end u}}
    }

    {{for g in FOLD}}
    {
        let head = first_head + {{g}}u;
        if (lane == 0u) {
            team_max[team] = max{{g}};
            team_sum[team] = sum{{g}};
        }
        {{for i in VALUE_PIECES_EACH}}
        if (lane + {{i}}u * LANES < VALUE_PIECES) {
            let at = 2u * (team * VALUE_PIECES + lane + {{i}}u * LANES);
            team_out[at] = o{{g}}_{{i}}_low;
            team_out[at + 1u] = o{{g}}_{{i}}_high;
        }
        {{end i}}
        workgroupBarrier();
        var largest = {{LEAST}};
        for (var t = 0u; t < TEAMS; t++) {
            largest = max(largest, team_max[t]);
        }
        var total = {{TOTAL}};
        for (var t = 0u; t < TEAMS; t++) {
            total += team_sum[t] * exp(team_max[t] - largest);
        }
        for (var d = thread; d < DV; d += THREADS) {
            var v = 0.0;
            for (var t = 0u; t < TEAMS; t++) {
                v += team_out[t * VALUE_PIECES * 2u + d / 4u][d % 4u] * exp(team_max[t] - largest);
            }
            {{STORE}}
        }
        {{for s in SPLIT}}
        if (thread == 0u) {
            out[{{PART_AT}} + DV] = largest;
            out[{{PART_AT}} + DV + 1u] = total;
        }
        {{end s}}
        workgroupBarrier();
    }
    {{end g}}
}
