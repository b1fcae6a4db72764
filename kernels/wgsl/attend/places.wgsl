
// Where the key and the value of a head begin, as words.

fn key_at(slot: u32, head: u32) -> u32 {
    return slot * SLOT_WORDS + head * KEY_WORDS;
}

fn value_at(slot: u32, head: u32) -> u32 {
    return slot * SLOT_WORDS + VALUES_AT + head * VALUE_WORDS;
}
