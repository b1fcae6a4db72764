// A part is what a team has summed.
var<workgroup> terms: array<f32, {{SIZE}}>;

fn place_of(thread: u32) -> Place {
    return Place(thread / LANES, thread % LANES, thread / LANES, 1u, thread % LANES == 0u);
}

fn reduce(place: Place, value: u32, term: f32) {
    let thread = place.team * LANES + place.lane;
    workgroupBarrier();
    terms[thread] = term;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (place.lane < half) {
            terms[thread] += terms[thread + half];
        }
    }
    if (place.writer) {
        partial[place.part * VALUES + value] = terms[thread];
    }
}
