// Any number of rows of x times a quantized matrix, in integers: tiles of 16 * {{M}} rows by 16 * {{N}}
// outputs, STAGED units of columns at a time; what rows a tile has, `tile_of` says. A workgroup rounds
// its part of x to {{PLANES}} planes of 8 bits on the way into its memory. Each invocation computes the
// outputs (i, j) with i = y and j = x modulo 16.

{{SIZES}}
{{BINDINGS}}
{{FUNCTIONS}}

const X_ROWS: u32 = 16u * {{M}}u;
const W_ROWS: u32 = 16u * {{N}}u;

// Four runs of four columns, part after part of the staged units, and in each part row after row.
{{for p in PLANES}}
var<workgroup> plane{{p}}: array<vec4<u32>, STAGED * PARTS * X_ROWS>;
{{end p}}
// Of each unit of x: what 1 in the last plane is worth, and the sum of its columns as rounded.
var<workgroup> worths: array<vec2<f32>, STAGED * X_ROWS>;
// The same of the matrices: q as signed bytes, what they are multiplied by, and what is added.
{{for g in MATRICES}}
var<workgroup> quants{{g}}: array<vec4<u32>, STAGED * PARTS * W_ROWS>;
var<workgroup> affines{{g}}: array<vec2<f32>, STAGED * W_ROWS>;
{{end g}}

// Rounds a unit of a row of x into place `slot` of row `i` of the tile.
fn stage_x(row: u32, unit: u32, slot: u32, i: u32) {
{{for j in RUNS}}
    let v{{j}} = x(row, unit * RUNS + {{j}}u);
{{end j}}
{{ROUND_UNIT}}
{{for fine in SECOND}}
    sum = sum * i32(FINE) + fine_sum;
{{end fine}}
    let worth = largest / {{LARGEST}};
    worths[slot * X_ROWS + i] = vec2<f32>(worth, worth * f32(sum));
}

{{for g in MATRICES}}
// A unit of a row of the matrix into place `slot` of row `j` of the tile.
fn stage{{g}}(row: u32, unit: u32, slot: u32, j: u32) {
    let q = words(row, unit);
{{for p in UNIT_PARTS}}
    quants{{g}}[(slot * PARTS + {{p}}u) * W_ROWS + j] = vec4<u32>(
        bytes(q, {{p}}u * 4u), bytes(q, {{p}}u * 4u + 1u), bytes(q, {{p}}u * 4u + 2u), bytes(q, {{p}}u * 4u + 3u)
    ) ^ vec4<u32>({{FLIP}});
{{end p}}
    let affine = scale(row, unit);
    affines{{g}}[slot * W_ROWS + j] = vec2<f32>(affine.x, fma(ZERO, affine.x, affine.y));
}
{{end g}}

fn add_dots(acc: i32, a: vec4<u32>, b: vec4<u32>) -> i32 {
    return acc + dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let tile = tile_of(group.x);
    let token0 = tile.first;
    let tokens = tile.end;
    if (token0 >= tokens) {
        return;
    }
    let output0 = group.y * W_ROWS;
    let tx = thread % 16u;
    let ty = thread / 16u;
{{for i in M}}
{{for j in N}}
{{for g in MATRICES}}
    var acc{{g}}_{{i}}_{{j}} = 0.0;
{{end g}}
{{end j}}
{{end i}}

    for (var unit0 = 0u; unit0 < UNITS; unit0 += STAGED) {
        let staged = min(STAGED, UNITS - unit0);
        workgroupBarrier();
        for (var n = thread; n < staged * X_ROWS; n += 256u) {
            let i = n % X_ROWS;
            stage_x(source(min(token0 + i, tokens - 1u)), unit0 + n / X_ROWS, n / X_ROWS, i);
        }
        // From the last thread down: those that had no part of x take one here.
        for (var n = 255u - thread; n < staged * W_ROWS; n += 256u) {
            let j = n % W_ROWS;
            let output = min(output0 + j, OUTPUTS - 1u);
{{for g in MATRICES}}
            stage{{g}}(weight_row(tile.matrix, {{g}}u, output), unit0 + n / W_ROWS, n / W_ROWS, j);
{{end g}}
        }
        workgroupBarrier();
        for (var s = 0u; s < staged; s++) {
{{for i in M}}
{{for j in N}}
{{for g in MATRICES}}
            var dot{{g}}_{{i}}_{{j}} = 0;
{{end g}}
{{end j}}
{{end i}}
{{for plane in PLANES}}
            // Both planes in one integer: 32 products of 7 and 8 bits, times 254, are less than 2^31.
{{for i in M}}
{{for j in N}}
{{for g in MATRICES}}
            dot{{g}}_{{i}}_{{j}} *= i32(FINE);
{{end g}}
{{end j}}
{{end i}}
{{for p in UNIT_PARTS}}
            {
                let part = s * PARTS + {{p}}u;
{{for i in M}}
                let a{{i}} = plane{{plane}}[part * X_ROWS + {{i}}u * 16u + ty];
{{end i}}
{{for j in N}}
{{for g in MATRICES}}
                {
                    let b = quants{{g}}[part * W_ROWS + {{j}}u * 16u + tx];
{{for i in M}}
                    dot{{g}}_{{i}}_{{j}} = add_dots(dot{{g}}_{{i}}_{{j}}, a{{i}}, b);
{{end i}}
                }
{{end g}}
{{end j}}
            }
{{end p}}
{{end plane}}
{{for i in M}}
            let worth{{i}} = worths[s * X_ROWS + {{i}}u * 16u + ty];
{{end i}}
{{for j in N}}
{{for g in MATRICES}}
            {
                let affine = affines{{g}}[s * W_ROWS + {{j}}u * 16u + tx];
{{for i in M}}
                acc{{g}}_{{i}}_{{j}} = fma(
                    affine.x * worth{{i}}.x, f32(dot{{g}}_{{i}}_{{j}}), fma(affine.y, worth{{i}}.y, acc{{g}}_{{i}}_{{j}})
                );
{{end i}}
            }
{{end g}}
{{end j}}
        }
    }

{{FINISH_TILE}}
}
