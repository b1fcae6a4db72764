// Sums and maxima over LANES adjacent threads, each of which gets the result. All threads of the
// workgroup call them together. Shuffles cover blocks of BLOCK threads, workgroup memory the rest.

{{for s in SCRATCH}}
var<workgroup> scratch: array<{{ELEMENT}}, THREADS>;
{{end s}}

fn lanes_sum(v: {{ELEMENT}}, thread: u32) -> {{ELEMENT}} {
    var result = v;
    {{for i in SHUFFLES}}
    result += subgroupShuffleXor(result, 1u << {{i}}u);
    {{end i}}
    {{for s in SCRATCH}}
    scratch[thread] = result;
    workgroupBarrier();
    let first = thread - thread % LANES;
    result = scratch[first];
    for (var i = BLOCK; i < LANES; i += BLOCK) {
        result += scratch[first + i];
    }
    workgroupBarrier();
    {{end s}}
    return result;
}

fn lanes_max(v: {{ELEMENT}}, thread: u32) -> {{ELEMENT}} {
    var result = v;
    {{for i in SHUFFLES}}
    result = max(result, subgroupShuffleXor(result, 1u << {{i}}u));
    {{end i}}
    {{for s in SCRATCH}}
    scratch[thread] = result;
    workgroupBarrier();
    let first = thread - thread % LANES;
    result = scratch[first];
    for (var i = BLOCK; i < LANES; i += BLOCK) {
        result = max(result, scratch[first + i]);
    }
    workgroupBarrier();
    {{end s}}
    return result;
}
