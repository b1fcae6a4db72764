// The rows of a tile: adjacent ones.
struct Tile {
    first: u32,
    end: u32,
    matrix: u32,
}

fn tile_of(n: u32) -> Tile {
    return Tile(n * 16u * {{M}}u, step[{{ROWS}}], 0u);
}

// Row `i` of all tiles in x.
fn source(i: u32) -> u32 {
    return i;
}

// And in the output.
fn target_row(i: u32) -> u32 {
    return i;
}

// The row of the weight with the half `g` of output `i`.
fn weight_row(matrix: u32, g: u32, i: u32) -> u32 {
    return g * OUTPUTS + i;
}
