// A row times the matrices of its experts: of one choice (z counts the choices of all rows), or of all of
// them, weighted and summed (z counts the rows). A team of LANES invocations computes {{OUTPUTS}} outputs;
// each invocation takes every LANES'th unit of columns, through all the experts.

{{SIZES}}
{{BINDINGS}}
{{ROUTE}}
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
    let row = group.z / (TOP_K / CHOICES);
    let slot0 = group.z % (TOP_K / CHOICES);
{{for r in OUTPUTS}}
{{for g in MATRICES}}
    var acc{{g}}_{{r}} = 0.0;
{{end g}}
{{end r}}
    for (var u = place.lane; u < CHOICES * UNITS; u += LANES) {
        let slot = slot0 + u / UNITS;
        let unit = u % UNITS;
        // Below FIRST_EXPERT the difference wraps around to a large number.
        let expert = expert_of(row, slot) - FIRST_EXPERT;
        if (expert < HELD) {
{{for sum in SUM}}
            let weight = weight_of(row, slot);
{{end sum}}
{{for r in OUTPUTS}}
{{for g in MATRICES}}
            let row{{g}}_{{r}} = weight_row(expert, {{g}}u, min(first + {{r}}u, N - 1u));
            let q{{g}}_{{r}} = words(row{{g}}_{{r}}, unit);
{{for scaled in SCALED}}
            let s{{g}}_{{r}} = scale(row{{g}}_{{r}}, unit);
{{end scaled}}
            var dot{{g}}_{{r}} = 0.0;
{{end g}}
{{end r}}
{{for scaled in SCALED}}
            var sum = vec4<f32>();
{{end scaled}}
{{for j in RUNS}}
            {
                let v = x({{X_ROW}}, unit * RUNS + {{j}}u);
{{for scaled in SCALED}}
                sum += v;
{{end scaled}}
{{for r in OUTPUTS}}
{{for g in MATRICES}}
                dot{{g}}_{{r}} = add_dot(dot{{g}}_{{r}}, run(q{{g}}_{{r}}, {{j}}u), v);
{{end g}}
{{end r}}
            }
{{end j}}
{{for scaled in SCALED}}
            let all = sum.x + sum.y + sum.z + sum.w;
{{end scaled}}
{{for r in OUTPUTS}}
{{for g in MATRICES}}
            acc{{g}}_{{r}} += {{TERM}};
{{end g}}
{{end r}}
        }
    }

{{for g in MATRICES}}
{{for r in OUTPUTS}}
    reduce(place, {{g}}u * {{OUTPUTS}}u + {{r}}u, acc{{g}}_{{r}});
{{end r}}
{{end g}}
    workgroupBarrier();

    for (var r = place.lane; r < {{OUTPUTS}}u; r += LANES) {
        if (first + r < N && {{HOLDS}}) {
            let a = total(place, r);
            var b = 0.0;
{{for gate in GATE}}
            b = total(place, {{OUTPUTS}}u + r);
{{end gate}}
            finish(group.z, first + r, a, b);
        }
    }
}
