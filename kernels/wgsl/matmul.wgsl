// Any number of rows of x times a matrix, in tiles of 16 * {{M}} rows by 16 * {{N}} outputs, 16
// columns at a time; what rows a tile has, `tile_of` says. Each invocation computes the outputs (i, j) with i = y and j = x modulo 16.

{{SIZES}}
{{BINDINGS}}
{{FUNCTIONS}}

// Four vectors a row, and one of padding, which spreads a column of rows over the memory's banks.
const STRIDE: u32 = 5u;
var<workgroup> tile_x: array<vec4<f32>, 16 * {{M}} * STRIDE>;
{{for g in MATRICES}}
var<workgroup> tile_w{{g}}: array<vec4<f32>, 16 * {{N}} * STRIDE>;
{{end g}}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let tile = tile_of(group.x);
    let token0 = tile.first;
    let tokens = tile.end;
    if (token0 >= tokens) {
        return;
    }
    let output0 = group.y * 16u * {{N}}u;
    let tx = thread % 16u;
    let ty = thread / 16u;
    // What this invocation stages: vector `part` of every 64th row of each tile.
    let part = thread % 4u;
    let row = thread / 4u;
{{for i in M}}
{{for j in N}}
{{for g in MATRICES}}
    var acc{{g}}_{{i}}_{{j}} = 0.0;
{{end g}}
{{end j}}
{{end i}}

    for (var c0 = 0u; c0 < QUADS; c0 += 4u) {
        let c = c0 + part;
{{for s in STAGES_X}}
        var x{{s}} = vec4<f32>();
{{end s}}
{{for s in STAGES_W}}
{{for g in MATRICES}}
        var w{{g}}_{{s}} = vec4<f32>();
{{end g}}
{{end s}}
        if (c < QUADS) {
{{for s in STAGES_X}}
            if (token0 + {{s}}u * 64u + row < tokens) {
                x{{s}} = x(source(token0 + {{s}}u * 64u + row), c);
            }
{{end s}}
{{for s in STAGES_W}}
{{for g in MATRICES}}
            w{{g}}_{{s}} = weight(weight_row(tile.matrix, {{g}}u, min(output0 + {{s}}u * 64u + row, OUTPUTS - 1u)), c);
{{end g}}
{{end s}}
        }
        workgroupBarrier();
{{for s in STAGES_X}}
        tile_x[({{s}}u * 64u + row) * STRIDE + part] = x{{s}};
{{end s}}
{{for s in STAGES_W}}
{{for g in MATRICES}}
        tile_w{{g}}[({{s}}u * 64u + row) * STRIDE + part] = w{{g}}_{{s}};
{{end g}}
{{end s}}
        workgroupBarrier();
        for (var p = 0u; p < 4u; p++) {
{{for i in M}}
            let a{{i}} = tile_x[({{i}}u * 16u + ty) * STRIDE + p];
{{end i}}
{{for j in N}}
{{for g in MATRICES}}
            {
                let b = tile_w{{g}}[({{j}}u * 16u + tx) * STRIDE + p];
{{for i in M}}
                acc{{g}}_{{i}}_{{j}} = add_dot(acc{{g}}_{{i}}_{{j}}, a{{i}}, b);
{{end i}}
            }
{{end g}}
{{end j}}
        }
    }

{{FINISH_TILE}}
}
