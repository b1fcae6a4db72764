// What a tile of 16 * {{M}} rows by 16 * {{N}} outputs ends with: its sums become outputs, where there are any.
{{for i in M}}
    if (token0 + {{i}}u * 16u + ty < tokens) {
        let token = target_row(token0 + {{i}}u * 16u + ty);
{{for j in N}}
        if (output0 + {{j}}u * 16u + tx < OUTPUTS) {
            finish(token, output0 + {{j}}u * 16u + tx, acc0_{{i}}_{{j}}, {{OTHER}});
        }
{{end j}}
    }
{{end i}}
