// The experts that each row of logits chooses, and their weights. One workgroup a row; every invocation
// goes through all experts where it has to know them all: they are few.

{{SIZES}}
{{BINDINGS}}

const NEG_INF: f32 = -3.4e38;

var<workgroup> scores: array<f32, EXPERTS>;
// The scores by which experts are chosen.
var<workgroup> choice: array<f32, EXPERTS>;
// How many experts are better than each.
var<workgroup> ranks: array<u32, EXPERTS>;
var<workgroup> worth: array<f32, GROUPS>;
var<workgroup> chosen: array<u32, TOP_K>;
var<workgroup> weights: array<f32, TOP_K>;

fn logit(row: u32, e: u32) -> f32 {
    return logits[{{LOGITS_AT}}];
}

fn group_rank(g: u32) -> u32 {
    var rank = 0u;
    for (var i = 0u; i < GROUPS; i++) {
        rank += u32(worth[i] > worth[g] || (worth[i] == worth[g] && i < g));
    }
    return rank;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.x;
    for (var e = thread; e < EXPERTS; e += THREADS) {
        scores[e] = logit(row, e);
    }
    workgroupBarrier();
{{for softmax in SOFTMAX}}
    var largest = NEG_INF;
    for (var e = 0u; e < EXPERTS; e++) {
        largest = max(largest, scores[e]);
    }
    var total = 0.0;
    for (var e = 0u; e < EXPERTS; e++) {
        total += exp(scores[e] - largest);
    }
    workgroupBarrier();
    for (var e = thread; e < EXPERTS; e += THREADS) {
        scores[e] = exp(scores[e] - largest) / total;
    }
{{end softmax}}
{{for sigmoid in SIGMOID}}
    for (var e = thread; e < EXPERTS; e += THREADS) {
        scores[e] = 1.0 / (1.0 + exp(-scores[e]));
    }
{{end sigmoid}}
    for (var e = thread; e < EXPERTS; e += THREADS) {
        choice[e] = scores[e]{{BIAS}};
    }
    if (thread < TOP_K) {
        chosen[thread] = EXPERTS;
    }
    workgroupBarrier();
{{for grouped in GROUPED}}
    for (var g = thread; g < GROUPS; g += THREADS) {
        var first = NEG_INF;
        var second = NEG_INF;
        for (var i = g * MEMBERS; i < (g + 1u) * MEMBERS; i++) {
            second = max(second, min(first, choice[i]));
            first = max(first, choice[i]);
        }
        worth[g] = {{WORTH}};
    }
    workgroupBarrier();
    for (var e = thread; e < EXPERTS; e += THREADS) {
        if (group_rank(e / MEMBERS) >= KEEP) {
            choice[e] = {{OTHERS}};
        }
    }
    workgroupBarrier();
{{end grouped}}
    for (var e = thread; e < EXPERTS; e += THREADS) {
        var rank = 0u;
        for (var i = 0u; i < EXPERTS; i++) {
            rank += u32(choice[i] > choice[e] || (choice[i] == choice[e] && i < e));
        }
        ranks[e] = rank;
        if (rank < TOP_K) {
            chosen[rank] = e;
        }
    }
    workgroupBarrier();
    if (thread < TOP_K) {
        let mine = min(chosen[thread], EXPERTS - 1u);
        var weight = scores[mine];
{{for mixer in MIXER}}
        // Its share among those that are left and near the best of them, which it is.
        var shares = 0.0;
        for (var e = 0u; e < EXPERTS; e++) {
            let far = (weight - scores[e]) / max(abs(scores[e]), weight) > {{NEAR}};
            shares += select(exp(scores[e] - weight), 0.0, far || ranks[e] < thread);
        }
        weight = 1.0 / shares;
{{end mixer}}
{{for after in AFTER}}
        var shares = 0.0;
        for (var i = 0u; i < TOP_K; i++) {
            shares += exp(scores[min(chosen[i], EXPERTS - 1u)] - weight);
        }
        weight = 1.0 / shares;
{{end after}}
        weights[thread] = weight;
    }
    workgroupBarrier();
    if (thread < TOP_K) {
        var weight = weights[thread];
{{for normalize in NORMALIZE}}
        var sum = {{EPS}};
        for (var i = 0u; i < TOP_K; i++) {
            sum += weights[i];
        }
        weight /= sum;
{{end normalize}}
        out[{{OUT}} + thread] = f32(chosen[thread]);
        out[{{OUT}} + TOP_K + thread] = weight * {{SCALE}};
    }
}
