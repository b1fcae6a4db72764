// One to {{TOKENS}} rows of x, which were rounded by the kernel that made them, times a quantized matrix, in
// integers. A team of LANES invocations computes {{OUTPUTS}} outputs for all rows; each invocation takes every
// LANES'th unit of columns, {{CHUNK}} at a time, so that as many loads are under way.

{{SIZES}}
{{BINDINGS}}
{{FUNCTIONS}}

// What a team's sums are made of, VALUES in each part.
var<workgroup> partial: array<f32, PARTIALS>;

struct Place {
    team: u32,
    lane: u32, // in the team
    part: u32, // of `partial`
    parts: u32, // of the team
    writer: bool, // of the part
}

{{REDUCE}}

// A sum of team `team` in batch `batch`.
fn total(batch: u32, team: u32, parts: u32, value: u32) -> f32 {
    let first = batch * ALL_PARTS + team * parts;
    var sum = 0.0;
    for (var p = first; p < first + parts; p++) {
        sum += partial[p * VALUES + value];
    }
    return sum;
}

// q of columns 4j .. 4j+4, as signed bytes that are ZERO too small.
fn signed_bytes(q: Words, j: u32) -> u32 {
    return bytes(q, j) ^ {{FLIP}};
}

// A sum of products that began as the bits of ROUNDS: converting costs a subtraction, and a maximum that
// keeps compilers from adding up what comes after to the large number first.
fn float_of(sum: i32) -> f32 {
    return max(bitcast<f32>(sum) - ROUNDS, -ROUNDS);
}

@compute @workgroup_size({{SIZE}})
fn main(@builtin(workgroup_id) group_id: vec3<u32>, {{PARAMETERS}}) {
    let place = {{PLACE}};
    let group = group_id.y * GRID + group_id.x;
    let rows = step[{{ROWS}}];
    let index = place.team * LANES + place.lane;
    let group_first = group * PER_GROUP;
{{for early in EARLY}}
    // What the end takes besides: it is there by then.
    let early_quad = min(index, QUADS * {{TOKENS}}u - 1u) % QUADS;
    // Not a row of the step, perhaps: nothing here waits for how many there are.
    let early_row = min(index, QUADS * {{TOKENS}}u - 1u) / QUADS;
{{LOADS}}
{{end early}}
    for (var batch = 0u; batch < BATCHES; batch++) {
        var here = place;
        here.part += batch * ALL_PARTS;
        let first = group_first + (batch * TEAMS + place.team) * {{OUTPUTS}}u;
{{for g in MATRICES}}
{{for r in OUTPUTS}}
{{for m in TOKENS}}
        var acc{{g}}_{{r}}_{{m}} = 0.0;
{{end m}}
        let row{{g}}_{{r}} = min(first + {{r}}u, N - 1u) + {{g}}u * N;
{{end r}}
{{end g}}
{{for m in TOKENS}}
        var squares{{m}} = 0.0;
{{end m}}
        for (var base = place.lane; base < UNITS; base += LANES * {{CHUNK}}u) {
{{for c in CHUNK}}
            let unit{{c}} = min(base + {{c}}u * LANES, UNITS - 1u);
{{for g in MATRICES}}
{{for r in OUTPUTS}}
            let q{{g}}_{{r}}_{{c}} = words(row{{g}}_{{r}}, unit{{c}});
            let s{{g}}_{{r}}_{{c}} = scale(row{{g}}_{{r}}, unit{{c}});
{{end r}}
{{end g}}
{{end c}}
{{for c in CHUNK}}
{{for m in TOKENS}}
            {
                let x_unit = {{m}}u * X_ROW + unit{{c}} / X_PER;
                var record = bitcast<vec4<f32>>(x[X_RECORDS + x_unit]);
{{for ragged in RAGGED}}
                record = select(vec4<f32>(), record, base + {{c}}u * LANES < UNITS);
{{end ragged}}
{{for norm in NORM}}
                squares{{m}} += {{SQUARE}};
{{end norm}}
                let sum = {{SUM}};
{{for p in PARTS}}
                let high{{p}} = x[{{HALF}} * X_UNITS + x_unit];
{{for fine in SECOND}}
                let low{{p}} = x[(2u + {{HALF}}) * X_UNITS + x_unit];
{{end fine}}
{{end p}}
{{for g in MATRICES}}
{{for r in OUTPUTS}}
                {
                    var dot = bitcast<i32>(ROUNDS);
{{for fine in SECOND}}
                    var fine_dot = bitcast<i32>(ROUNDS);
{{end fine}}
{{for p in PARTS}}
{{for j in FOUR}}
                    {
                        let run = signed_bytes(q{{g}}_{{r}}_{{c}}, {{p}}u * 4u + {{j}}u);
                        dot += dot4I8Packed(run, high{{p}}[{{j}}]);
{{for fine in SECOND}}
                        fine_dot += dot4I8Packed(run, low{{p}}[{{j}}]);
{{end fine}}
                    }
{{end j}}
{{end p}}
                    let products = {{DOT}};
                    let s = s{{g}}_{{r}}_{{c}};
                    acc{{g}}_{{r}}_{{m}} = {{ACC}};
                }
{{end r}}
{{end g}}
            }
{{end m}}
{{end c}}
        }
{{for g in MATRICES}}
{{for r in OUTPUTS}}
{{for m in TOKENS}}
        reduce(here, ({{g}}u * {{OUTPUTS}}u + {{r}}u) * {{TOKENS}}u + {{m}}u, acc{{g}}_{{r}}_{{m}});
{{end m}}
{{end r}}
{{end g}}
{{for norm in NORM}}
{{for m in TOKENS}}
        reduce(here, SQUARES + {{m}}u, squares{{m}});
{{end m}}
{{end norm}}
    }
    workgroupBarrier();
    let parts = {{PARTS_EACH}};
    // Each thread finishes four outputs of a row.
    for (var base = 0u; base < QUADS * {{TOKENS}}u; base += {{SIZE}}u) {
        // Those who have none do what the last one does: they all read the same.
        let item = min(base + index, QUADS * {{TOKENS}}u - 1u);
        let quad = item % QUADS;
        let row = item / QUADS;
        let inside = base + index < QUADS * rows;
{{for late in LATE}}
        let early_quad = quad;
        let early_row = row;
{{LOADS}}
{{end late}}
{{for norm in NORM}}
        let size = inverseSqrt(total(0u, 0u, parts, SQUARES + row) / f32(K) + {{EPS}});
{{end norm}}
        var results = vec4<f32>();
{{for c in FOUR}}
        {
            let i = min(4u * quad + {{c}}u, PER_GROUP - 1u);
            let batch = i / (TEAMS * {{OUTPUTS}}u);
            let team = i / {{OUTPUTS}}u % TEAMS;
            let r = i % {{OUTPUTS}}u;
            let column = FIRST + group_first + i;
            var v = total(batch, team, parts, r * {{TOKENS}}u + row){{SIZED}};
{{for glu in GLU}}
            let b = total(batch, team, parts, ({{OUTPUTS}}u + r) * {{TOKENS}}u + row){{SIZED}};
{{end glu}}
{{LINES}}
            results[{{c}}] = v;
{{for store in STORES}}
            if (inside && 4u * quad + {{c}}u < PER_GROUP && group_first + i < N) {
                out[{{OUT}}] = v;
            }
{{end store}}
        }
{{end c}}
{{for next in NEXT}}
        round_quad(row, group_first / 4u + quad, results, results{{GAINED}}, inside && group_first + 4u * quad < N, index);
{{end next}}
    }
}
