{{BINDINGS}}
{{STEP}}
{{LANE_FUNCTIONS}}
var<workgroup> x: array<f32, {{LONGEST}}>;

{{HEADS}}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, {{THREAD_INPUTS}}) {
    let thread = {{THREAD}};
    let row = group.x;
    let head = group.y;
    {{CALLS}}
}
