// Keys and values come in pieces: eight f16, four words. A row of them is `pieces` long; the last
// one is filled up with zeros.

fn low(piece: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(piece.x), unpack2x16float(piece.y));
}

fn high(piece: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(piece.z), unpack2x16float(piece.w));
}

// The page of a position, where a sequence's pages begin at word `pages`. A position that is looked at
// ahead may have none.
fn page_of(pages: u32, position: u32) -> u32 {
    return step[min(pages + position / PAGE, arrayLength(&step) - 1u)];
}

fn first_visible(row: u32) -> u32 {
    {{for w in WINDOWED}}
    let next = row_word(row, ROW_POSITION) + 1u;
    return select(next - min(next, {{WINDOW}}u), 0u, row_word(row, ROW_WHOLE) == 1u);
    {{end w}}
    {{for w in UNLIMITED}}
    return 0u;
    {{end w}}
}

// Scores of four keys or of four queries.
fn capped(scores: vec4<f32>) -> vec4<f32> {
    {{for c in CAPPED}}
    // Some drivers compute tanh by exponentials that overflow; past 10 it is 1 in f32.
    return {{CAP}} * tanh(clamp(scores / {{CAP}}, vec4<f32>(-10.0), vec4<f32>(10.0)));
    {{end c}}
    {{for c in UNCAPPED}}
    return scores;
    {{end c}}
}
