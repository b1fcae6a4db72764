// The rows of a tile: those that chose one expert, or some of them.
struct Tile {
    first: u32,
    end: u32,
    matrix: u32,
}

var<private> tile_expert: u32;

fn tile_of(n: u32) -> Tile {
    if (n < tiles[0].x) {
        let tile = tiles[n + 1u];
        tile_expert = tile.x;
        // Below FIRST_EXPERT the difference wraps around to a large number.
        if (tile.x - FIRST_EXPERT < HELD) {
            return Tile(tile.y, tile.z, tile.x - FIRST_EXPERT);
        }
    }
    return Tile(0u, 0u, 0u);
}

// Row `i` of all tiles in x.
fn source(i: u32) -> u32 {
    return {{SOURCE}};
}

// And in the output.
fn target_row(i: u32) -> u32 {
    return sorted[i];
}
