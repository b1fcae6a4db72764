//! Images among the tokens of a prompt: what a tower takes, and where its rows go.

use super::{Output, PAGE, Row, Step, Token};
use sha2::{Digest, Sha256};
use std::{fmt, ops::Range, sync::Arc};
use tamarack_api::Medium;

/// What tells images apart: a hash of all that a tower is given.
pub type ImageHash = [u8; 32];

/// A prepared image, as a tower takes it.
#[derive(Clone, PartialEq)]
pub struct ImagePatches {
    /// [patches, width], row after row.
    pub pixels: Vec<f32>,
    /// Frames, and rows and columns of patches.
    pub grid: [usize; 3],
    /// Rows that the tower makes of it.
    pub tokens: usize,
    /// Patches in each of its segments.
    pub segments: Vec<usize>,
    /// Row and column of each patch.
    pub positions: Vec<[u32; 2]>,
    /// A number for each patch, or none.
    pub ids: Vec<u32>,
    hash: ImageHash,
}

impl ImagePatches {
    /// The patches of a medium that the processor described.
    pub fn new(pixels: Vec<f32>, medium: &Medium) -> ImagePatches {
        let mut hash = Sha256::new();
        hash.update(bytemuck::cast_slice::<f32, u8>(&pixels));
        for n in medium.segments.iter().chain(&medium.grid) {
            hash.update(n.to_le_bytes());
        }
        hash.update(bytemuck::cast_slice::<u32, u8>(medium.patch_positions.as_flattened()));
        hash.update(bytemuck::cast_slice::<u32, u8>(&medium.ids));
        ImagePatches {
            pixels,
            grid: medium.grid,
            tokens: medium.tokens,
            segments: medium.segments.clone(),
            positions: medium.patch_positions.clone(),
            ids: medium.ids.clone(),
            hash: hash.finalize().into(),
        }
    }

    /// What tells it from others.
    pub fn hash(&self) -> ImageHash {
        self.hash
    }

    /// The tower's step: a segment is a sequence, all of whose rows see all of it, and an output is a row that the tower makes.
    pub fn step(&self) -> Step {
        let mut step = Step::default();
        for length in &self.segments {
            let (first, table) = (step.rows.len() as u32, step.pages.len() as u32);
            let pages = length.div_ceil(PAGE) as u32;
            step.pages.extend(table..table + pages);
            step.rows.extend((0..*length as u32).map(|index| {
                let patch = (first + index) as usize;
                let [row, column] = self.positions.get(patch).copied().unwrap_or_default();
                let token = Token::Id(self.ids.get(patch).copied().unwrap_or(0));
                let (position, end) = ([row, column, 0], *length as u32);
                let is_whole = false;
                Row { token, index, end, is_whole, position, image: None, table, first, length: 0, adapter: 0 }
            }));
        }
        step.outputs = (0..self.tokens as u32).map(|row| Output { row, ..Output::default() }).collect();
        step
    }
}

/// Without the pixels.
impl fmt::Debug for ImagePatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImagePatches").field("grid", &self.grid).field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

/// An image in a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedImage {
    /// The prompt's tokens that stand for its rows, in order.
    pub tokens: Vec<u32>,
    /// Whether they see each other, and not only those before.
    pub span: bool,
    /// The image.
    pub patches: Arc<ImagePatches>,
}

impl PlacedImage {
    /// From its first token to its last.
    pub fn range(&self) -> Range<usize> {
        let [first, last] = [self.tokens.first(), self.tokens.last()].map(|t| t.map_or(0, |t| *t as usize));
        first..last + 1
    }
}

/// The images of a prompt, and where its tokens are, as ropes see them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Media {
    /// The position of each of the prompt's tokens, in time, row and column.
    pub positions: Vec<[u32; 3]>,
    /// That of the first token after it, on all axes.
    pub next: u32,
    /// In the order of their tokens.
    pub images: Vec<PlacedImage>,
    /// Tokens at the beginning that all see each other, whatever a window says: none, or the prompt's.
    pub prefix: usize,
    /// What the tower sees of them, after resizing and cutting: for people.
    pub seen: Vec<crate::image::Pixels>,
}

impl Media {
    /// The position of a token of the prompt, or of what follows it.
    pub fn position(&self, token: usize) -> [u32; 3] {
        let after = || [self.next + token.saturating_sub(self.positions.len()) as u32; 3];
        self.positions.get(token).copied().unwrap_or_else(after)
    }

    /// The image that comes with a token or after it.
    fn image_from(&self, token: usize) -> usize {
        self.images.partition_point(|i| i.range().end <= token)
    }

    /// The image and its row that a token stands for.
    pub fn row(&self, token: usize) -> Option<(usize, usize)> {
        let image = self.image_from(token);
        let row = self.images.get(image)?.tokens.binary_search(&(token as u32)).ok()?;
        Some((image, row))
    }

    /// One past the last token that a token sees.
    pub fn end(&self, token: usize) -> usize {
        if token < self.prefix {
            return self.prefix;
        }
        let image = self.images.get(self.image_from(token)).filter(|i| i.span && i.range().contains(&token));
        image.map_or(token + 1, |i| i.range().end)
    }

    /// Where a step that begins at `start` ends: at `end`, unless that cuts what sees each other. If all would begin with
    /// such a run, the whole of it is taken if it ends at `most`.
    pub fn whole(&self, start: usize, end: usize, most: usize) -> usize {
        if end < self.prefix {
            return if self.prefix <= most { self.prefix } else { start };
        }
        let cut = self.images.get(self.image_from(end)).filter(|i| i.span && i.range().start < end);
        match cut.map(PlacedImage::range) {
            Some(range) if range.start > start => range.start,
            Some(range) if range.end <= most => range.end,
            Some(_) => start,
            None => end,
        }
    }

    /// The images with tokens in a part of the prompt.
    pub fn within(&self, part: Range<usize>) -> Range<usize> {
        let first = self.image_from(part.start);
        first..first.max(self.images.partition_point(|i| i.range().start < part.end))
    }

    /// Where images are, and which. A prompt whose tokens see each other is like one: nothing of it holds for another.
    pub fn keys(&self, tokens: &[u32]) -> Vec<(Range<usize>, ImageHash)> {
        let images = self.images.iter().map(|i| (i.range(), i.patches.hash()));
        let prefix = (self.prefix > 0).then(|| {
            let mut hash = Sha256::new();
            hash.update(bytemuck::cast_slice::<u32, u8>(tokens.get(..self.prefix).unwrap_or(tokens)));
            images.clone().for_each(|(_, image)| hash.update(image));
            (0..self.prefix, hash.finalize().into())
        });
        prefix.into_iter().chain(images).collect()
    }
}

/// Which images' rows are on the device.
#[derive(Debug, Default)]
pub struct ImageStore {
    room: usize,
    held: Vec<Held>,
    turn: u64,
    runs: usize,
}

#[derive(Debug)]
struct Held {
    hash: ImageHash,
    rows: Range<usize>,
    used: u64,
}

impl ImageStore {
    /// Room for so many rows.
    pub fn new(room: usize) -> ImageStore {
        ImageStore { room, ..ImageStore::default() }
    }

    /// How often a place was given to an image that had none.
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// Begins a step: what was used in the one before may go.
    pub fn turn(&mut self) {
        self.turn += 1;
    }

    /// Where an image's rows are, or are to go, and whether they are there. Those that were used longest ago make room, but
    /// for those of this turn. `None` if there is too little.
    pub fn place(&mut self, hash: ImageHash, rows: usize) -> Option<(usize, bool)> {
        if let Some(held) = self.held.iter_mut().find(|h| h.hash == hash) {
            held.used = self.turn;
            return Some((held.rows.start, true));
        }
        loop {
            let mut at = 0;
            let gap = self.held.iter().position(|h| {
                let fits = at + rows <= h.rows.start;
                at = if fits { at } else { h.rows.end };
                fits
            });
            if gap.is_some() || at + rows <= self.room {
                let held = Held { hash, rows: at..at + rows, used: self.turn };
                self.held.insert(gap.unwrap_or(self.held.len()), held);
                self.runs += 1;
                return Some((at, false));
            }
            let oldest = self.held.iter().enumerate().filter(|(_, h)| h.used < self.turn).min_by_key(|(_, h)| h.used);
            let (oldest, _) = oldest?;
            self.held.remove(oldest);
        }
    }

    /// Forgets an image whose rows could not be computed.
    pub fn forget(&mut self, hash: ImageHash) {
        self.held.retain(|h| h.hash != hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(tokens: Range<u32>, span: bool) -> PlacedImage {
        let patches = Arc::new(ImagePatches::new(Vec::new(), &Medium::default()));
        PlacedImage { tokens: tokens.collect(), span, patches }
    }

    #[test]
    fn tokens_find_their_image_and_their_end() {
        let media = Media {
            positions: vec![[0; 3]; 12],
            next: 7,
            images: vec![image(2..5, false), image(7..10, true)],
            ..Media::default()
        };
        assert_eq!(
            [1, 2, 4, 5, 7, 9].map(|t| media.row(t)),
            [None, Some((0, 0)), Some((0, 2)), None, Some((1, 0)), Some((1, 2))]
        );
        assert_eq!([2, 4, 6, 7, 9, 10].map(|t| media.end(t)), [3, 5, 7, 10, 10, 11]);
        assert_eq!(media.position(12), [7; 3]);
        assert_eq!(media.position(14), [9; 3]);
        assert_eq!([media.within(0..2), media.within(4..7), media.within(5..12)], [0..0, 0..1, 1..2]);
    }

    #[test]
    fn steps_do_not_cut_a_span() {
        let media = Media {
            positions: vec![[0; 3]; 12],
            next: 7,
            images: vec![image(2..5, false), image(7..10, true)],
            ..Media::default()
        };
        assert_eq!([3, 7, 8, 10, 11].map(|end| media.whole(0, end, 12)), [3, 7, 7, 10, 11]);
        assert_eq!((media.whole(7, 8, 12), media.whole(7, 8, 9)), (10, 7));
        let media = Media { prefix: 11, ..media };
        assert_eq!(
            [(0, 3, 12), (0, 3, 10), (0, 11, 12), (11, 12, 12)].map(|(s, e, m)| media.whole(s, e, m)),
            [11, 0, 11, 12]
        );
        assert_eq!([0, 6, 10, 11].map(|t| media.end(t)), [11, 11, 11, 12]);
        let keys = |tokens: &[u32]| media.keys(tokens)[0].clone();
        assert_eq!(
            (keys(&[1; 12]).0, keys(&[1; 12]) == keys(&[1; 13])),
            (0..11, true),
            "what follows is another thing"
        );
        assert_ne!(keys(&[1; 12]), keys(&[2; 12]));
    }

    #[test]
    fn rows_make_room_for_others() {
        let mut store = ImageStore::new(10);
        let hash = |n| [n; 32];
        let mut place = |n: u8, rows, turn: bool| {
            if turn {
                store.turn();
            }
            store.place(hash(n), rows)
        };
        assert_eq!(place(1, 4, true), Some((0, false)));
        assert_eq!(place(2, 6, false), Some((4, false)));
        assert_eq!(place(3, 1, false), None, "both are used in this turn");
        assert_eq!(place(2, 6, true), Some((4, true)));
        assert_eq!(place(3, 3, false), Some((0, false)), "the first one made room");
        assert_eq!(place(4, 1, false), Some((3, false)));
        assert_eq!(place(5, 11, true), None, "larger than all of it");
        assert_eq!(place(1, 10, true), Some((0, false)));
    }
}
