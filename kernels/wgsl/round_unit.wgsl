// Rounds the columns of a unit, `v0` and so on, to planes of 8 bits. Leaves the `largest` of them, and what those in each plane
// sum up to: `sum` and `fine_sum`.
    var largest = 0.0;
{{for j in RUNS}}
    let size{{j}} = abs(v{{j}});
    largest = max(largest, max(max(size{{j}}.x, size{{j}}.y), max(size{{j}}.z, size{{j}}.w)));
{{end j}}
    // 1e-30: its inverse is finite, and what is smaller may as well be zero.
    let inverse = select(0.0, 127.0 / largest, largest > 1e-30);
    var sum = 0;
{{for fine in SECOND}}
    var fine_sum = 0;
{{end fine}}
{{for j in RUNS}}
    let near{{j}} = coarse(v{{j}} * inverse);
    let bytes{{j}} = low_bytes(near{{j}});
    let at{{j}} = {{RUN_AT}};
    plane0[at{{j}}][{{j}}u % 4u] = bytes{{j}};
    sum += dot4I8Packed(bytes{{j}}, 0x01010101u);
{{for fine in SECOND}}
    let fine_bytes{{j}} = low_bytes(finer(v{{j}} * inverse, near{{j}}));
    plane1[at{{j}}][{{j}}u % 4u] = fine_bytes{{j}};
    fine_sum += dot4I8Packed(fine_bytes{{j}}, 0x01010101u);
{{end fine}}
{{end j}}
