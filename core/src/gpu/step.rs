//! A step as kernels read it.

use crate::exec::{Step, Token};
use tamarack_kernels::step as words;

/// The step buffer's words, see `tamarack_kernels::step`.
pub(super) fn step_words(step: &Step, splits: u32, part: usize) -> Vec<u32> {
    let rows_at = words::HEADER_WORDS as usize;
    let pages_at = rows_at + step.rows.len() * words::ROW_WORDS as usize;
    let outputs_at = pages_at + step.pages.len();
    let mut out = vec![0; outputs_at + step.outputs.len() * words::OUTPUT_WORDS as usize];
    out[pages_at..outputs_at].copy_from_slice(&step.pages);
    let mut set = |record: usize, field: u32, value: u32| out[record + field as usize] = value;
    set(0, words::TOKENS, step.rows.len() as u32);
    set(0, words::OUTPUTS, step.outputs.len() as u32);
    set(0, words::SPLITS, splits);
    set(0, words::SPLIT_KEYS, part as u32);
    set(0, words::OUTPUTS_AT, outputs_at as u32);
    set(0, words::PAGES_AT, pages_at as u32);
    for (i, row) in step.rows.iter().enumerate() {
        let at = rows_at + i * words::ROW_WORDS as usize;
        let token = match row.token {
            Token::Id(id) => id,
            Token::Sampled(slot) => words::SAMPLED | slot,
        };
        set(at, words::ROW_TOKEN, token);
        set(at, words::ROW_POSITION, row.index);
        set(at, words::ROW_SLOT, step.slot(row) as u32);
        set(at, words::ROW_TABLE, row.table);
        set(at, words::ROW_END, row.end);
        set(at, words::ROW_WHOLE, u32::from(row.is_whole));
        set(at, words::ROW_IMAGE, row.image.unwrap_or(words::NO_IMAGE));
        set(at, words::ROW_FIRST, row.first);
        set(at, words::ROW_ADAPTER, row.adapter);
    }
    for (i, o) in step.outputs.iter().enumerate() {
        let at = outputs_at + i * words::OUTPUT_WORDS as usize;
        set(at, words::OUTPUT_ROW, o.row);
        set(at, words::OUTPUT_SLOT, o.slot);
        set(at, words::OUTPUT_INV_TEMPERATURE, o.inv_temperature.to_bits());
        set(at, words::OUTPUT_SEED, o.seed);
        set(at, words::OUTPUT_COUNTER, o.counter);
    }
    out
}
