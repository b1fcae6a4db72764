make_own(thread);
workgroupBarrier();
// Others that share the head have the same to store, and so have other parts of the keys.
if (first_head % (HEADS / KV_HEADS) == 0u && hi == end && lo < hi) {
    store_own(row_word(row, ROW_SLOT) * SLOT_WORDS, kv_head, thread);
}
