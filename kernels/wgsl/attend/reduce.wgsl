// Merges the parts of a split attention: one row and head. Threads share out its elements and its parts;
// where each part's values lie depends on nothing, so that they are under way before anything is known.
{{BINDINGS}}
{{STEP}}
{{SIZES}}
{{NEXT_FUNCTIONS}}

var<workgroup> maxima: array<f32, MAX_SPLITS>;
var<workgroup> totals: array<f32, MAX_SPLITS>;
var<workgroup> weights: array<f32, MAX_SPLITS>;
var<workgroup> merged: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let head = group.x;
    let row = group.y;
    let splits = step[SPLITS];
    let first = (row * HEADS + head) * MAX_SPLITS * (DV + 2u);
    let own = thread / WIDE;
    {{for c in CHUNKS}}
    let d{{c}} = {{c}}u * WIDE + thread % WIDE;
    {{for i in EACH}}
    let value{{c}}_{{i}} = parts[first + (own + {{i}}u * GROUPS) * (DV + 2u) + min(d{{c}}, DV - 1u)];
    {{end i}}
    {{end c}}
    for (var s = thread; s < MAX_SPLITS; s += THREADS) {
        let at = first + s * (DV + 2u) + DV;
        // Parts that this step has not are left over from another.
        maxima[s] = select(NEVER, parts[at], s < splits);
        totals[s] = select(0.0, parts[at + 1u], s < splits);
    }
    workgroupBarrier();
    var largest = {{LEAST}};
    for (var s = 0u; s < MAX_SPLITS; s++) {
        largest = max(largest, maxima[s]);
    }
    for (var s = thread; s < MAX_SPLITS; s += THREADS) {
        let weight = exp(maxima[s] - largest);
        weights[s] = weight;
        totals[s] *= weight;
    }
    workgroupBarrier();
    var total = {{TOTAL}};
    for (var s = 0u; s < MAX_SPLITS; s++) {
        total += totals[s];
    }
    {{for c in CHUNKS}}
    {
        let d = d{{c}};
        var sum = 0.0;
        {{for i in EACH}}
        sum += select(0.0, value{{c}}_{{i}} * weights[own + {{i}}u * GROUPS], own + {{i}}u * GROUPS < splits);
        {{end i}}
        merged[thread] = sum;
        workgroupBarrier();
        if (own == 0u && d < DV) {
            var v = 0.0;
            for (var g = 0u; g < GROUPS; g++) {
                v += merged[g * WIDE + thread];
            }
            {{STORE}}
        }
        workgroupBarrier();
    }
    {{end c}}
    {{for next in NEXT}}
    round_tile(row, head * DV / 4u, thread);
    {{end next}}
}
