// Rows of x times a matrix, in tiles of ROWS_TILE rows by WEIGHTS_TILE rows of the weight, DEPTH
// columns at a time. Both are staged as f16; each subgroup multiplies a part of the tile, in matrices of
// SIDE by SIDE. Subgroups of one part share out the columns and are summed at the end.
enable f16;
enable wgpu_cooperative_matrix;

{{SIZES}}
{{BINDINGS}}
{{FUNCTIONS}}

var<workgroup> tile_x: array<{{HALF}}, TILE_X>;
var<workgroup> tile_w: array<{{HALF}}, TILE_W>;
var<workgroup> sums: array<f32, SUMS>;

{{PUTS}}

// Which row of the weight is row `r` of a tile: those of one part are its gates, then its ups.
fn weight_row(first: u32, r: u32) -> u32 {
    let within = r % SUB_WEIGHTS;
    let output = first + r / SUB_WEIGHTS * SUB_OUTPUTS + within % SUB_OUTPUTS;
    return min(output, OUTPUTS - 1u) + within / SUB_OUTPUTS * OUTPUTS;
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(local_invocation_index) thread: u32,
) {
    let tokens = step[{{ROWS}}];
    let token0 = group.x * ROWS_TILE;
    let output0 = group.y * OUTPUTS_TILE;
    let part = subgroup % PARTS;
    let share = subgroup / PARTS;
    let sub_row = part / ACROSS * SUB_ROWS;
    let sub_weight = part % ACROSS * SUB_WEIGHTS;
    // Rows past the last are computed, and not stored.
{{for s in STAGES_X}}
    let ex{{s}} = min({{s}}u * THREADS + thread, ROWS_TILE * DEPTH / 4u - 1u);
    let row_x{{s}} = ex{{s}} / (DEPTH / 4u);
    let column_x{{s}} = ex{{s}} % (DEPTH / 4u);
    let from_x{{s}} = min(token0 + row_x{{s}}, tokens - 1u) * X_QUADS + column_x{{s}};
    var x{{s}}: vec4<f16>;
{{end s}}
{{for s in STAGES_W}}
    let ew{{s}} = min({{s}}u * THREADS + thread, WEIGHTS_TILE * STEP_UNITS - 1u);
    let row_w{{s}} = ew{{s}} / STEP_UNITS;
    let unit_w{{s}} = ew{{s}} % STEP_UNITS;
    let from_w{{s}} = weight_row(output0, row_w{{s}});
    var w{{s}}: Words;
{{for affine in AFFINE}}
    var scale{{s}}: vec2<f32>;
{{end affine}}
{{end s}}
{{for i in SUB_I}}
{{for g in MATRICES}}
{{for j in SUB_J}}
    var c{{i}}_{{g}}_{{j}}: {{COOP}}<f32, C>;
{{end j}}
{{end g}}
{{end i}}

    let first = group.z * SPLIT_STEPS;
    let end = min(first + SPLIT_STEPS, STEPS);
{{for early in EARLY}}
    var at = first;
{{LOAD}}
{{end early}}
    for (var step_at = first; step_at < end; step_at++) {
{{for late in LATE}}
        let at = step_at;
{{LOAD}}
{{end late}}
        workgroupBarrier();
{{for s in STAGES_X}}
        put_tile_x(row_x{{s}} * STRIDE + column_x{{s}} * 4u, x{{s}});
{{end s}}
{{for s in STAGES_W}}
{{for j in RUNS}}
        put_tile_w(row_w{{s}} * STRIDE + unit_w{{s}} * (4u * RUNS) + {{j}}u * 4u, vec4<f16>({{WEIGHT}}));
{{end j}}
{{end s}}
        workgroupBarrier();
{{for early in EARLY}}
        // The next columns are on their way while these are multiplied.
        at = min(step_at + 1u, STEPS - 1u);
{{LOAD}}
{{end early}}
{{for k in SUB_K}}
        {
            let column = ({{k}}u * SHARES + share) * SIDE;
{{for i in SUB_I}}
            let at_x{{i}} = ((sub_row + {{i}}u * SIDE) * STRIDE + column) / WIDTH;
            let a{{i}} = coopLoadT<{{COOP}}<f16, A>>(&tile_x[at_x{{i}}], {{COOP_STRIDE}}u);
{{end i}}
{{for g in MATRICES}}
{{for j in SUB_J}}
            let at_w{{g}}_{{j}} = ((sub_weight + {{g}}u * SUB_OUTPUTS + {{j}}u * SIDE) * STRIDE + column) / WIDTH;
            let b{{g}}_{{j}} = coopLoad<{{COOP}}<f16, B>>(&tile_w[at_w{{g}}_{{j}}], {{COOP_STRIDE}}u);
{{for i in SUB_I}}
            c{{i}}_{{g}}_{{j}} = coopMultiplyAdd(a{{i}}, b{{g}}_{{j}}, c{{i}}_{{g}}_{{j}});
{{end i}}
{{end j}}
{{end g}}
        }
{{end k}}
    }

{{for i in SUB_I}}
{{for j in SUB_J}}
    {
{{for g in MATRICES}}
        let at_sum{{g}} = (subgroup * MATRICES + {{g}}u) * SIDE * SIDE;
        coopStoreT(c{{i}}_{{g}}_{{j}}, &sums[at_sum{{g}}], {{SIDE}}u);
{{end g}}
        workgroupBarrier();
        for (var e = thread; e < PARTS * SIDE * SIDE; e += THREADS) {
            let p = e / (SIDE * SIDE);
            let token = token0 + p / ACROSS * SUB_ROWS + {{i}}u * SIDE + e / SIDE % SIDE;
            let output = output0 + p % ACROSS * SUB_OUTPUTS + {{j}}u * SIDE + e % SIDE;
            if (token < tokens && output < OUTPUTS) {
                var sum0 = 0.0;
                var sum1 = 0.0;
{{for h in SHARES}}
{{for g in MATRICES}}
                sum{{g}} += sums[(({{h}}u * PARTS + p) * MATRICES + {{g}}u) * SIDE * SIDE + e % (SIDE * SIDE)];
{{end g}}
{{end h}}
{{STORE}}
            }
        }
        workgroupBarrier();
    }
{{end j}}
{{end i}}
}
