// One row against its keys: FOLD query heads that share a key head. A team of LANES threads reads
// four adjacent keys at a time, which one page has, each thread the same pieces of every key, and keeps its own running softmax
// (arXiv:1805.02867); the teams' results are merged at the end.
{{BINDINGS}}
{{STEP}}
{{SIZES}}
{{LANE_FUNCTIONS}}
{{CACHE}}

var<workgroup> team_max: array<f32, TEAMS_ALL>;
var<workgroup> team_sum: array<f32, TEAMS_ALL>;
var<workgroup> team_out: array<vec4<f32>, TEAMS_OUT>;
{{OWN_FUNCTIONS}}
{{NEXT_FUNCTIONS}}

fn query(row: u32, head: u32, fold: u32, dim: u32) -> f32 {
    return select(0.0, {{QUERY}} * {{SCALE}}, dim < DK);
}

fn query4(row: u32, head: u32, fold: u32, dim: u32) -> vec4<f32> {
    return vec4<f32>(
        query(row, head, fold, dim),
        query(row, head, fold, dim + 1u),
        query(row, head, fold, dim + 2u),
        query(row, head, fold, dim + 3u),
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
    // What does not wait for the step's words comes first.
    {{OWN_AHEAD}}
    let pages = {{PAGES}};
    var lo = first_visible(row);
    let end = row_word(row, ROW_END);
    var hi = end;
    {{for s in SPLIT}}
    lo = max(lo, group.z * step[SPLIT_KEYS]);
    hi = min(hi, (group.z + 1u) * step[SPLIT_KEYS]);
    {{end s}}
    {{for i in KEY_PIECES_EACH}}
    let key_piece{{i}} = min(lane + {{i}}u * LANES, KEY_PIECES - 1u);
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

    // The first keys and values are on their way while the query is made, the next ones while these count.
    {{for u in FOUR}}
    var key{{u}} = 0u;
    {{for i in KEY_PIECES_EACH}}
    var k{{u}}_{{i}} = vec4<u32>();
    {{end i}}
    {{for i in VALUE_PIECES_EACH}}
    var v{{u}}_{{i}} = vec4<u32>();
    {{end i}}
    {{end u}}
    let start = lo / 4u * 4u;
    var page_ahead = page_of(pages, start + 4u * team);
    {
        let from_key = start;
        {{LOAD}}
    }
    {{OWN_MAIN}}
    {{for i in KEY_PIECES_EACH}}
    {{for g in FOLD}}
    let q{{g}}_{{i}}_low = query4(row, first_head + {{g}}u, {{g}}u, 8u * (lane + {{i}}u * LANES));
    let q{{g}}_{{i}}_high = query4(row, first_head + {{g}}u, {{g}}u, 8u * (lane + {{i}}u * LANES) + 4u);
    {{end g}}
    {{end i}}

    for (var first = start; first < hi; first += 4u * TEAMS) {
        {{for own in OWN}}
        {{for u in FOUR}}
        // A key past the end was loaded from the last slot, which is not written yet: any finite one will do.
        if (key{{u}} + 1u >= end) {
            {{for i in KEY_PIECES_EACH}}
            k{{u}}_{{i}} = own[key_piece{{i}}];
            {{end i}}
            {{for i in VALUE_PIECES_EACH}}
            v{{u}}_{{i}} = own[KEY_PIECES + value_piece{{i}}];
            {{end i}}
        }
        {{end u}}
        {{end own}}
        let keys = vec4<u32>(key0, key1, key2, key3);
        let hidden = (keys >= vec4<u32>(hi)) | (keys < vec4<u32>(lo));
        {{for g in FOLD}}
        var score{{g}} = vec4<f32>();
        {{end g}}
        {{for u in FOUR}}
        {{for i in VALUE_PIECES_EACH}}
        let value{{u}}_{{i}} = v{{u}}_{{i}};
        {{end i}}
        {{end u}}
        {{for u in FOUR}}
        {{for i in KEY_PIECES_EACH}}
        let k{{u}}_{{i}}_low = low(k{{u}}_{{i}});
        let k{{u}}_{{i}}_high = high(k{{u}}_{{i}});
        {{for g in FOLD}}
        score{{g}}[{{u}}] += dot(q{{g}}_{{i}}_low, k{{u}}_{{i}}_low) + dot(q{{g}}_{{i}}_high, k{{u}}_{{i}}_high);
        {{end g}}
        {{end i}}
        {{end u}}
        if (first + 4u * TEAMS < hi) {
            let from_key = first + 4u * TEAMS;
            {{LOAD}}
        }
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
        let v{{u}}_{{i}}_low = low(value{{u}}_{{i}});
        let v{{u}}_{{i}}_high = high(value{{u}}_{{i}});
        {{for g in FOLD}}
        o{{g}}_{{i}}_low += p{{g}}[{{u}}] * v{{u}}_{{i}}_low;
        o{{g}}_{{i}}_high += p{{g}}[{{u}}] * v{{u}}_{{i}}_high;
        {{end g}}
        {{end i}}
        {{end u}}
    }

    {{for g in FOLD}}
    if (lane == 0u) {
        team_max[{{g}}u * TEAMS + team] = max{{g}};
        team_sum[{{g}}u * TEAMS + team] = sum{{g}};
    }
    {{for i in VALUE_PIECES_EACH}}
    if (lane + {{i}}u * LANES < VALUE_PIECES) {
        let at = 2u * (({{g}}u * TEAMS + team) * VALUE_PIECES + lane + {{i}}u * LANES);
        team_out[at] = o{{g}}_{{i}}_low;
        team_out[at + 1u] = o{{g}}_{{i}}_high;
    }
    {{end i}}
    {{end g}}
    workgroupBarrier();
    for (var at = thread; at < {{FOLD}}u * QUADS; at += THREADS) {
        let fold = at / QUADS;
        let quad = at % QUADS;
        let head = first_head + fold;
        var largest = {{LEAST}};
        for (var t = 0u; t < TEAMS; t++) {
            largest = max(largest, team_max[fold * TEAMS + t]);
        }
        var total = {{TOTAL}};
        var sum = vec4<f32>();
        for (var t = 0u; t < TEAMS; t++) {
            let weight = exp(team_max[fold * TEAMS + t] - largest);
            total += team_sum[fold * TEAMS + t] * weight;
            sum += team_out[(fold * TEAMS + t) * QUADS + quad] * weight;
        }
        {{for c in FOUR}}
        {
            let d = 4u * quad + {{c}}u;
            let v = sum[{{c}}];
            if (d < DV) {
                {{STORE}}
            }
        }
        {{end c}}
        {{for s in SPLIT}}
        if (quad == 0u) {
            out[{{PART_AT}} + DV] = largest;
            out[{{PART_AT}} + DV + 1u] = total;
        }
        {{end s}}
    }
    {{for next in NEXT}}
    round_tile(row, first_head * DV / 4u, thread);
    {{end next}}
}
