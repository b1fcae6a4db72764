// One past the last row before `end` that belongs to the same sequence as `row`.
fn sequence_end(row: u32, end: u32) -> u32 {
    let sequence = row_word(row, ROW_FIRST);
    var least = row;
    var most = end - 1u;
    if (row_word(most, ROW_FIRST) == sequence) {
        least = most;
    }
    while (least < most) {
        let middle = (least + most + 1u) / 2u;
        if (row_word(middle, ROW_FIRST) == sequence) {
            least = middle;
        } else {
            most = middle - 1u;
        }
    }
    return least + 1u;
}
