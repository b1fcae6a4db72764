// A route: of each row the numbers of TOP_K experts, then their weights.

// A large number for what is no expert's.
fn expert_of(row: u32, slot: u32) -> u32 {
    let expert = route[{{ROUTE_AT}} + slot];
    return select(0xffffffffu, u32(max(expert, 0.0)), expert >= 0.0);
}

fn weight_of(row: u32, slot: u32) -> f32 {
    return route[{{ROUTE_AT}} + TOP_K + slot];
}
