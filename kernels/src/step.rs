//! The step buffer: the one small buffer that the host writes before each step. All `u32` words.
//!
//! | words | what |
//! |---|---|
//! | 0.. [`HEADER_WORDS`] | the header, by the `HEADER_*` indices |
//! | from [`HEADER_WORDS`], so that kernels need not look | one record of [`ROW_WORDS`] words per token row |
//! | from header\[`PAGES_AT`\], next | page tables: physical page numbers, sequence after sequence |
//! | from header\[`OUTPUTS_AT`\] | one record of [`OUTPUT_WORDS`] words per output row |
//!
//! A logical position `p` of a sequence whose pages start at `table` lies in cache slot
//! `pages[table + p / PAGE] * PAGE + p % PAGE`.

/// Header: how many token rows this step has.
pub const TOKENS: u32 = 0;
/// Header: how many output rows (rows whose logits are wanted) this step has.
pub const OUTPUTS: u32 = 1;
/// Header: into how many parts attention splits keys; part `i` takes the keys
/// `[i * SPLIT_KEYS, (i + 1) * SPLIT_KEYS)`, see [`SPLIT_KEYS`].
pub const SPLITS: u32 = 2;
/// Header: keys per part of a split attention; a multiple of [`PAGE`].
pub const SPLIT_KEYS: u32 = 3;
/// Header: word index of the first output record.
pub const OUTPUTS_AT: u32 = 5;
/// Header: word index of the page tables.
pub const PAGES_AT: u32 = 6;
/// Words of the header.
pub const HEADER_WORDS: u32 = 8;

/// Words of a row record.
pub const ROW_WORDS: u32 = 9;
/// Row record: the token id, or `SAMPLED | slot`: the token last sampled for that sequence slot.
pub const ROW_TOKEN: u32 = 0;
/// Row record: the row's logical position in its sequence's cache.
pub const ROW_POSITION: u32 = 1;
/// Row record: the cache slot that the row's key and value are written to.
pub const ROW_SLOT: u32 = 2;
/// Row record: index, within the page tables, of its sequence's first page.
pub const ROW_TABLE: u32 = 3;
/// Row record: one past the last position that the row may look at, which may come after its own.
pub const ROW_END: u32 = 4;
/// Row record: the first row of this step that belongs to the same sequence.
pub const ROW_FIRST: u32 = 5;
/// Row record: the row's adapter, 0 is none.
pub const ROW_ADAPTER: u32 = 7;
/// Row record: 1 if the row looks at all positions before its end, whatever a window says; else 0.
pub const ROW_WHOLE: u32 = 8;
/// Row record: the row of an image that the row stands for, or [`NO_IMAGE`].
pub const ROW_IMAGE: u32 = 6;

/// In [`ROW_IMAGE`]: the row is no image's.
pub const NO_IMAGE: u32 = 0xffff_ffff;

/// Flag in [`ROW_TOKEN`].
pub const SAMPLED: u32 = 0x8000_0000;

/// Words of an output record.
pub const OUTPUT_WORDS: u32 = 8;
/// Output record: which token row it is.
pub const OUTPUT_ROW: u32 = 0;
/// Output record: the sequence slot that the sampled token is stored for.
pub const OUTPUT_SLOT: u32 = 1;
/// Output record: f32 bits of 1 / temperature; 0 means greedy.
pub const OUTPUT_INV_TEMPERATURE: u32 = 2;
/// Output record: the seed of the sequence's random numbers.
pub const OUTPUT_SEED: u32 = 3;
/// Output record: how many tokens the sequence has sampled before.
pub const OUTPUT_COUNTER: u32 = 4;

/// Tokens in one page of the cache.
pub const PAGE: u32 = 16;
/// Flag in a page table: the page is in f16, though the cache quantizes. It begins where a page of this number does, and
/// takes as many as it needs.
pub const FULL_PAGE: u32 = 1 << 27;
/// What that makes of the page's slots.
pub const FULL_SLOT: u32 = FULL_PAGE * PAGE;
