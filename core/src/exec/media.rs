//! Images among the tokens of a prompt: what a tower takes, and where its rows go.

use super::{Output, PAGE, Row, Step, Token};
use sha2::{Digest, Sha256};
use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Range, sync::Arc};
use tamarack_api::Medium;

/// What tells images apart: a hash of all that a tower is given.
pub type ImageHash = [u8; 32];

/// A prepared image. What is said of patches is in the order of tokens; [`ImagePatches::ordered`] is that of the tower.
#[derive(Clone, PartialEq)]
pub struct ImagePatches {
    /// [patches, width], row after row.
    pub pixels: Vec<f32>,
    /// Frames, and rows and columns of patches.
    pub grid: [usize; 3],
    /// Rows that the tower makes of it.
    pub tokens: usize,
    /// Patches in each of its segments, in the tower's order.
    pub segments: Vec<usize>,
    /// Patches in each of its windows likewise, if it has any.
    pub windows: Vec<usize>,
    /// Row and column of each patch.
    pub positions: Vec<[u32; 2]>,
    /// A number for each patch, or none.
    pub ids: Vec<u32>,
    /// What else the tower takes of each patch, by name.
    pub inputs: BTreeMap<String, Vec<f32>>,
    /// The token whose patches the tower takes first, and so on; empty: their own order.
    pub order: Vec<u32>,
    /// The tower's row of each token; empty likewise.
    rows: Vec<u32>,
    /// Which of the model's adapters the tower computes it with, see [`Row::adapter`].
    adapter: u32,
    hash: ImageHash,
}

impl ImagePatches {
    /// The patches of a medium that the processor described.
    pub fn new(pixels: Vec<f32>, medium: &Medium) -> ImagePatches {
        let mut hash = Sha256::new();
        hash.update(bytemuck::cast_slice::<f32, u8>(&pixels));
        for n in medium.segments.iter().chain(&medium.grid).chain(&medium.windows) {
            hash.update(n.to_le_bytes());
        }
        hash.update(bytemuck::cast_slice::<u32, u8>(medium.patch_positions.as_flattened()));
        hash.update(bytemuck::cast_slice::<u32, u8>(&medium.ids));
        hash.update(bytemuck::cast_slice::<u32, u8>(&medium.order));
        medium.inputs.values().for_each(|values| hash.update(bytemuck::cast_slice::<f32, u8>(values)));
        let mut rows = vec![0; medium.order.len()];
        for (row, token) in medium.order.iter().enumerate() {
            rows[*token as usize] = row as u32;
        }
        ImagePatches {
            pixels,
            grid: medium.grid,
            tokens: medium.tokens,
            segments: medium.segments.clone(),
            windows: medium.windows.clone(),
            inputs: medium.inputs.clone(),
            order: medium.order.clone(),
            rows,
            positions: medium.patch_positions.clone(),
            ids: medium.ids.clone(),
            adapter: 0,
            hash: hash.finalize().into(),
        }
    }

    /// The same image for a tower with an adapter, which makes other rows of it.
    fn with_adapter(&self, adapter: u32) -> ImagePatches {
        let mut hash = Sha256::new_with_prefix(self.hash);
        hash.update(adapter.to_le_bytes());
        ImagePatches { adapter, hash: hash.finalize().into(), ..self.clone() }
    }

    /// What tells it from others.
    pub fn hash(&self) -> ImageHash {
        self.hash
    }

    /// What is said of patches, in the order in which the tower takes them.
    pub fn ordered<'a, T: Copy>(&self, values: &'a [T]) -> Cow<'a, [T]> {
        if self.order.is_empty() {
            return Cow::Borrowed(values);
        }
        let block = values.len() / self.order.len();
        self.order.iter().flat_map(|token| &values[*token as usize * block..][..block]).copied().collect()
    }

    /// The tower's row of one of its tokens.
    pub fn row(&self, token: usize) -> usize {
        self.rows.get(token).map_or(token, |row| *row as usize)
    }

    /// The tower's step: a segment is a sequence, all of whose rows see all of it, and an output is a row that the tower makes.
    pub fn step(&self) -> Step {
        self.step_of(&self.segments)
    }

    /// The same with windows for segments; a step of nothing where there are none.
    pub fn windows_step(&self) -> Step {
        if self.windows.is_empty() { Step::default() } else { self.step_of(&self.windows) }
    }

    fn step_of(&self, segments: &[usize]) -> Step {
        let mut step = Step::default();
        let (positions, ids) = (self.ordered(&self.positions), self.ordered(&self.ids));
        for length in segments {
            let (first, table) = (step.rows.len() as u32, step.pages.len() as u32);
            let pages = length.div_ceil(PAGE) as u32;
            step.pages.extend(table..table + pages);
            step.rows.extend((0..*length as u32).map(|index| {
                let patch = (first + index) as usize;
                let [row, column] = positions.get(patch).copied().unwrap_or_default();
                let token = Token::Id(ids.get(patch).copied().unwrap_or(0));
                let (position, end) = ([row, column, 0], *length as u32);
                let is_whole = false;
                Row {
                    token,
                    index,
                    end,
                    is_whole,
                    position,
                    image: None,
                    table,
                    first,
                    length: 0,
                    adapter: self.adapter,
                }
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

/// An image in a prompt, or a moment of a video.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedImage {
    /// The prompt's tokens that stand for its rows, in order.
    pub tokens: Vec<u32>,
    /// Whether they see each other, and not only those before.
    pub span: bool,
    /// Which of the prompt's videos it is of, if those have a token of their own.
    pub video: Option<usize>,
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

/// The images of a prompt, moments of videos among them, and where its tokens are, as ropes see them.
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
    /// The same media, with images that the tower computes with this adapter. 0 means no adapter, see [`Row::adapter`].
    pub fn with_adapter(self: &Arc<Media>, adapter: u32) -> Arc<Media> {
        if adapter == 0 {
            return self.clone();
        }
        let mut media = Media::clone(self);
        media.images.iter_mut().for_each(|image| image.patches = Arc::new(image.patches.with_adapter(adapter)));
        Arc::new(media)
    }

    /// The position of a token of the prompt, or of what follows it.
    pub fn position(&self, token: usize) -> [u32; 3] {
        let after = || [self.next + token.saturating_sub(self.positions.len()) as u32; 3];
        self.positions.get(token).copied().unwrap_or_else(after)
    }

    /// The image that comes with a token or after it.
    fn image_from(&self, token: usize) -> usize {
        self.images.partition_point(|i| i.range().end <= token)
    }

    /// The image and the tower's row of it that a token stands for.
    pub fn row(&self, token: usize) -> Option<(usize, usize)> {
        let image = self.image_from(token);
        let placed = self.images.get(image)?;
        Some((image, placed.patches.row(placed.tokens.binary_search(&(token as u32)).ok()?)))
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

    /// Where images are, and which, positions included: those of a video depend on how fast it is. A prompt whose tokens see each other is like one: nothing of it holds for another.
    pub fn keys(&self, tokens: &[u32]) -> Vec<(Range<usize>, ImageHash)> {
        let images = self.images.iter().map(|image| {
            let range = image.range();
            let mut hash = Sha256::new_with_prefix(image.patches.hash());
            let positions = self.positions.get(range.clone()).unwrap_or_default();
            hash.update(bytemuck::cast_slice::<u32, u8>(positions.as_flattened()));
            (range, ImageHash::from(hash.finalize()))
        });
        let prefix = (self.prefix > 0).then(|| {
            let mut hash = Sha256::new();
            hash.update(bytemuck::cast_slice::<u32, u8>(tokens.get(..self.prefix).unwrap_or(tokens)));
            images.clone().for_each(|(_, image): (_, ImageHash)| hash.update(image));
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
        PlacedImage { tokens: tokens.collect(), span, video: None, patches }
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
    fn a_tower_takes_patches_in_its_own_order() {
        let medium = Medium {
            tokens: 3,
            order: vec![2, 0, 1],
            segments: vec![6],
            windows: vec![4, 2],
            ids: (0..6).collect(),
            ..Medium::default()
        };
        let image = ImagePatches::new(vec![0.0, 0.1, 1.0, 1.1, 2.0, 2.1], &medium);
        assert_eq!(*image.ordered(&image.pixels), [2.0, 2.1, 0.0, 0.1, 1.0, 1.1]);
        assert_eq!([0, 1, 2].map(|token| image.row(token)), [1, 2, 0]);
        let rows = |step: Step| step.rows.into_iter().map(|r| (r.token, r.index, r.end)).collect::<Vec<_>>();
        let expected = |ids: [u32; 6], places: [(u32, u32); 6]| {
            ids.into_iter().zip(places).map(|(id, (index, end))| (Token::Id(id), index, end)).collect::<Vec<_>>()
        };
        let ids = [4, 5, 0, 1, 2, 3];
        assert_eq!(rows(image.step()), expected(ids, [0, 1, 2, 3, 4, 5].map(|i| (i, 6))));
        assert_eq!(rows(image.windows_step()), expected(ids, [(0, 4), (1, 4), (2, 4), (3, 4), (0, 2), (1, 2)]));
        let media = Media {
            images: vec![PlacedImage { tokens: vec![5, 6, 8], span: false, video: None, patches: Arc::new(image) }],
            ..Media::default()
        };
        assert_eq!([5, 6, 7, 8].map(|token| media.row(token)), [Some((0, 1)), Some((0, 2)), None, Some((0, 0))]);
        let plain = ImagePatches::new(vec![7.0; 6], &Medium { order: Vec::new(), ..medium });
        assert_eq!((&*plain.ordered(&plain.pixels), plain.row(2)), (&[7.0; 6][..], 2));
        assert_ne!(plain.hash(), media.images[0].patches.hash());
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
