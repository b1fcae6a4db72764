// A part is what a subgroup has summed. How wide subgroups are is known only here, and what
// `subgroup_size` says is not always what the hardware runs: their number is.
fn place_of(subgroup: u32, subgroups: u32, lane: u32) -> Place {
    let width = {{SIZE}}u / subgroups;
    let thread = subgroup * width + lane;
    return Place(thread / LANES, thread % LANES, subgroup, LANES / width, lane == 0u);
}

fn reduce(place: Place, value: u32, term: f32) {
    let sum = subgroupAdd(term);
    if (place.writer) {
        partial[place.part * VALUES + value] = sum;
    }
}
