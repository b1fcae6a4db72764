
// Where the key and the value of a head begin, as words; those of a page in f16 keep the flag of their slot.

fn full_at(slot: u32) -> u32 {
    return FULL_SLOT + (slot - FULL_SLOT) / PAGE * PAGE * SLOT_WORDS + slot % PAGE * {{FULL_WORDS}}u;
}

fn key_at(slot: u32, head: u32) -> u32 {
    if (slot >= FULL_SLOT) {
        return full_at(slot) + head * (DK / 2u);
    }
    return slot * SLOT_WORDS + head * KEY_WORDS;
}

fn value_at(slot: u32, head: u32) -> u32 {
    if (slot >= FULL_SLOT) {
        return full_at(slot) + {{FULL_VALUES_AT}}u + head * (DV / 2u);
    }
    return slot * SLOT_WORDS + VALUES_AT + head * VALUE_WORDS;
}
