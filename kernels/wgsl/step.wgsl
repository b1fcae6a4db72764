// The step buffer, binding 0.

fn rows() -> u32 {
    return step[TOKENS];
}

fn row_word(row: u32, field: u32) -> u32 {
    return step[HEADER_WORDS + row * ROW_WORDS + field];
}

fn output_word(output: u32, field: u32) -> u32 {
    return step[step[OUTPUTS_AT] + output * OUTPUT_WORDS + field];
}

// The cache slot of a position; `table` is the row's ROW_TABLE.
fn slot_of(table: u32, position: u32) -> u32 {
    return step[step[PAGES_AT] + table + position / PAGE] * PAGE + position % PAGE;
}
