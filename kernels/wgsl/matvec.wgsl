// One to {{TOKENS}} rows of x times a matrix. A team of LANES invocations computes {{OUTPUTS}} outputs
// for all rows; each invocation takes every LANES'th unit of columns.

{{SIZES}}
{{BINDINGS}}
{{FUNCTIONS}}

// What a team's sums are made of: PARTS_PER_TEAM at most, VALUES in each.
var<workgroup> partial: array<f32, PARTIALS>;

struct Place {
    team: u32,
    lane: u32, // in the team
    part: u32, // of `partial`
    parts: u32, // of the team
    writer: bool, // of the part
}

{{REDUCE}}

fn total(place: Place, value: u32) -> f32 {
    var sum = 0.0;
    for (var p = 0u; p < place.parts; p++) {
        sum += partial[(place.team * place.parts + p) * VALUES + value];
    }
    return sum;
}

@compute @workgroup_size({{SIZE}})
fn main(@builtin(workgroup_id) group: vec3<u32>, {{PARAMETERS}}) {
    let place = {{PLACE}};
    let first = ((group.y * GRID + group.x) * TEAMS + place.team) * {{OUTPUTS}}u;
    let tokens = step[{{ROWS}}];
{{for m in TOKENS}}
    let token{{m}} = min({{m}}u, max(tokens, 1u) - 1u);
{{end m}}
{{for r in OUTPUTS}}
    let row0_{{r}} = min(first + {{r}}u, N - 1u);
{{for glu in GLU}}
    let row1_{{r}} = row0_{{r}} + N;
{{end glu}}
{{for g in MATRICES}}
{{for m in TOKENS}}
    var acc{{g}}_{{r}}_{{m}} = 0.0;
{{end m}}
{{end g}}
{{end r}}
{{for norm in NORM}}
{{for m in TOKENS}}
    var squares{{m}} = 0.0;
{{end m}}
{{end norm}}

    for (var unit = place.lane; unit < UNITS; unit += LANES) {
{{for r in OUTPUTS}}
{{for g in MATRICES}}
        let q{{g}}_{{r}} = words(row{{g}}_{{r}}, unit);
{{for affine in AFFINE}}
        let s{{g}}_{{r}} = scale(row{{g}}_{{r}}, unit);
{{end affine}}
{{for late in LATE}}
        var dot{{g}}_{{r}} = 0.0;
{{end late}}
{{end g}}
{{end r}}
{{for late in LATE}}
        var sum = vec4<f32>();
{{end late}}
{{for j in RUNS}}
        {
{{for norm in NORM}}
            let gain = {{GAIN}};
{{end norm}}
{{for m in TOKENS}}
            var x{{m}} = x(token{{m}}, unit * RUNS + {{j}}u);
{{for norm in NORM}}
            squares{{m}} = add_dot(squares{{m}}, x{{m}}, x{{m}});
            x{{m}} *= gain;
{{end norm}}
{{end m}}
{{for late in LATE}}
            sum += x0;
{{end late}}
{{for r in OUTPUTS}}
{{for g in MATRICES}}
{{for late in LATE}}
            dot{{g}}_{{r}} = add_dot(dot{{g}}_{{r}}, run(q{{g}}_{{r}}, {{j}}u), x0);
{{end late}}
{{for early in EARLY}}
            let w{{g}}_{{r}} = {{WEIGHT}};
{{for m in TOKENS}}
            acc{{g}}_{{r}}_{{m}} = add_dot(acc{{g}}_{{r}}_{{m}}, w{{g}}_{{r}}, x{{m}});
{{end m}}
{{end early}}
{{end g}}
{{end r}}
        }
{{end j}}
{{for late in LATE}}
        let all = sum.x + sum.y + sum.z + sum.w;
{{for r in OUTPUTS}}
{{for g in MATRICES}}
        acc{{g}}_{{r}}_0 = fma(s{{g}}_{{r}}.x, dot{{g}}_{{r}}, fma(s{{g}}_{{r}}.y, all, acc{{g}}_{{r}}_0));
{{end g}}
{{end r}}
{{end late}}
    }

{{for g in MATRICES}}
{{for r in OUTPUTS}}
{{for m in TOKENS}}
    reduce(place, ({{g}}u * {{OUTPUTS}}u + {{r}}u) * {{TOKENS}}u + {{m}}u, acc{{g}}_{{r}}_{{m}});
{{end m}}
{{end r}}
{{end g}}
{{for norm in NORM}}
{{for m in TOKENS}}
    reduce(place, SQUARES + {{m}}u, squares{{m}});
{{end m}}
{{end norm}}
    workgroupBarrier();

    for (var o = place.lane; o < {{OUTPUTS}}u * {{TOKENS}}u; o += LANES) {
        let r = o % {{OUTPUTS}}u;
        let token = o / {{OUTPUTS}}u;
        if (token < tokens && first + r < N) {
            var a = total(place, r * {{TOKENS}}u + token);
            var b = 0.0;
{{for glu in GLU}}
            b = total(place, ({{OUTPUTS}}u + r) * {{TOKENS}}u + token);
{{end glu}}
{{for norm in NORM}}
            let size = inverseSqrt(total(place, SQUARES + token) / f32(K) + {{EPS}});
            a *= size;
            b *= size;
{{end norm}}
            finish(token, first + r, a, b);
        }
    }
}
