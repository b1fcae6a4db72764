// One to {{TOKENS}} rows of x times a quantized matrix, in integers. A workgroup quantizes x to
// {{PLANES}} planes of 8 bits, with a scale for each unit of columns, and then goes through
// {{BATCHES}} times TEAMS times {{OUTPUTS}} outputs. A team of LANES invocations computes {{OUTPUTS}}
// of them for all rows; each invocation takes every LANES'th unit.

{{SIZES}}
{{BINDINGS}}
{{FUNCTIONS}}

// Four runs of four columns, unit after unit, so that neighbours read adjacent vectors.
{{for p in PLANES}}
var<workgroup> plane{{p}}: array<vec4<u32>, PLANE>;
{{end p}}
// Of each unit: what 1 in the first plane is worth, and the sum of its columns as quantized.
var<workgroup> unit_scales: array<vec2<f32>, {{TOKENS}} * UNITS>;
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

fn total(first: u32, parts: u32, value: u32) -> f32 {
    var sum = 0.0;
    for (var p = first; p < first + parts; p++) {
        sum += partial[p * VALUES + value];
    }
    return sum;
}

// Quantizes a unit of a row of x and returns the sum of its squares.
fn quantize(token: u32, row: u32, unit: u32) -> f32 {
    var squares = 0.0;
{{for j in RUNS}}
    var v{{j}} = x(row, unit * RUNS + {{j}}u);
{{for norm in NORM}}
    squares = add_dot(squares, v{{j}}, v{{j}});
    v{{j}} *= {{GAIN}};
{{end norm}}
{{end j}}
{{ROUND_UNIT}}
    let worth = largest / 127.0;
    unit_scales[token * UNITS + unit] = vec2<f32>(worth, worth * ({{SUM}}));
    return squares;
}

// q of columns 4j .. 4j+4, as signed bytes that are ZERO too small.
fn signed_bytes(q: Words, j: u32) -> u32 {
    return bytes(q, j) ^ {{FLIP}};
}

// The first output of a team in a batch.
fn first_output(group: vec3<u32>, team: u32, batch: u32) -> u32 {
    return (((group.y * GRID + group.x) * BATCHES + batch) * TEAMS + team) * {{OUTPUTS}}u;
}

@compute @workgroup_size({{SIZE}})
fn main(@builtin(workgroup_id) group: vec3<u32>, {{PARAMETERS}}) {
    let place = {{PLACE}};
    let tokens = step[{{ROWS}}];
    // Weights are loaded one unit ahead, the first before x is there: memory never waits.
    let lane_unit = min(place.lane, UNITS - 1u);
    let first0 = first_output(group, place.team, 0u);
{{for r in OUTPUTS}}
{{for g in MATRICES}}
    let row{{g}}_{{r}} = min(first0 + {{r}}u, N - 1u) + {{g}}u * N;
    var q{{g}}_{{r}} = words(row{{g}}_{{r}}, lane_unit);
    var s{{g}}_{{r}} = scale(row{{g}}_{{r}}, lane_unit);
{{end g}}
{{end r}}

{{for m in TOKENS}}
    var squares{{m}} = 0.0;
{{end m}}
    for (var unit = place.team * LANES + place.lane; unit < UNITS; unit += LANES * TEAMS) {
{{for m in TOKENS}}
        squares{{m}} += quantize({{m}}u, min({{m}}u, max(tokens, 1u) - 1u), unit);
{{end m}}
    }
{{for norm in NORM}}
{{for m in TOKENS}}
    reduce(place, SQUARES + {{m}}u, squares{{m}});
{{end m}}
{{end norm}}
    workgroupBarrier();
{{for norm in NORM}}
{{for m in TOKENS}}
    let size{{m}} = inverseSqrt(total(0u, TEAMS * place.parts, SQUARES + {{m}}u) / f32(K) + {{EPS}});
{{end m}}
{{end norm}}

    for (var batch = 0u; batch < BATCHES; batch++) {
        let first = first_output(group, place.team, batch);
        let next_first = first_output(group, place.team, batch + 1u);
{{for g in MATRICES}}
{{for r in OUTPUTS}}
{{for m in TOKENS}}
        var acc{{g}}_{{r}}_{{m}} = 0.0;
{{end m}}
{{end r}}
{{end g}}
        for (var unit = place.lane; unit < UNITS; unit += LANES) {
            let ends = unit + LANES >= UNITS;
            let next_unit = select(unit + LANES, place.lane, ends);
            let next_output = select(first, next_first, ends);
{{for r in OUTPUTS}}
{{for g in MATRICES}}
            let w{{g}}_{{r}} = q{{g}}_{{r}};
            let affine{{g}}_{{r}} = s{{g}}_{{r}};
            q{{g}}_{{r}} = words(min(next_output + {{r}}u, N - 1u) + {{g}}u * N, next_unit);
            s{{g}}_{{r}} = scale(min(next_output + {{r}}u, N - 1u) + {{g}}u * N, next_unit);
{{end g}}
{{end r}}
{{for m in TOKENS}}
            {
                let worth = unit_scales[{{m}}u * UNITS + unit];
{{for p in UNIT_PARTS}}
                let high{{p}} = plane0[({{m}}u * PARTS + {{p}}u) * UNITS + unit];
{{for fine in SECOND}}
                let low{{p}} = plane1[({{m}}u * PARTS + {{p}}u) * UNITS + unit];
{{end fine}}
{{end p}}
{{for r in OUTPUTS}}
{{for g in MATRICES}}
                {
                    var dot = 0;
{{for fine in SECOND}}
                    var fine_dot = 0;
{{end fine}}
{{for p in UNIT_PARTS}}
{{for j in FOUR}}
                    {
                        let run = signed_bytes(w{{g}}_{{r}}, {{p}}u * 4u + {{j}}u);
                        dot += dot4I8Packed(run, high{{p}}[{{j}}]);
{{for fine in SECOND}}
                        fine_dot += dot4I8Packed(run, low{{p}}[{{j}}]);
{{end fine}}
                    }
{{end j}}
{{end p}}
                    let zero = fma(ZERO, affine{{g}}_{{r}}.x, affine{{g}}_{{r}}.y);
                    acc{{g}}_{{r}}_{{m}} = fma(affine{{g}}_{{r}}.x * worth.x, {{DOT}}, fma(zero, worth.y, acc{{g}}_{{r}}_{{m}}));
                }
{{end g}}
{{end r}}
            }
{{end m}}
        }
{{for g in MATRICES}}
{{for r in OUTPUTS}}
{{for m in TOKENS}}
        reduce(place, ({{g}}u * {{OUTPUTS}}u + {{r}}u) * {{TOKENS}}u + {{m}}u, acc{{g}}_{{r}}_{{m}});
{{end m}}
{{end r}}
{{end g}}
        workgroupBarrier();
        for (var o = place.lane; o < {{OUTPUTS}}u * {{TOKENS}}u; o += LANES) {
            let r = o % {{OUTPUTS}}u;
            let token = o / {{OUTPUTS}}u;
            if (token < tokens && first + r < N) {
                let part = place.team * place.parts;
                var a = total(part, place.parts, r * {{TOKENS}}u + token);
                var b = 0.0;
{{for glu in GLU}}
                b = total(part, place.parts, ({{OUTPUTS}}u + r) * {{TOKENS}}u + token);
{{end glu}}
{{for norm in NORM}}
                var size = 0.0;
{{for m in TOKENS}}
                size = select(size, size{{m}}, token == {{m}}u);
{{end m}}
                a *= size;
                b *= size;
{{end norm}}
                finish(token, first + r, a, b);
            }
        }
        workgroupBarrier();
    }
}
