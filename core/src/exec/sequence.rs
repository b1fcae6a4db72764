//! Sequences in the cache, and putting their rows into steps.

use super::{Media, Output, PAGE, Row, Step, Token};
use std::{collections::BTreeMap, sync::Arc};
use tamarack_kernels::step::FULL_PAGE;

/// The pages that no sequence holds.
#[derive(Debug)]
pub struct Pool {
    free: Vec<u32>,
    lead: Lead,
}

/// The first pages of each sequence, where they are in f16 though the cache quantizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    /// How many.
    pub pages: usize,
    /// Adjacent pages that one of them takes; the first is a multiple of it.
    pub run: usize,
}

impl Default for Lead {
    fn default() -> Lead {
        Lead { pages: 0, run: 1 }
    }
}

impl Lead {
    /// Pages that so many tokens of a sequence take.
    pub fn pages_for(&self, tokens: usize) -> usize {
        let all = tokens.div_ceil(PAGE);
        all + self.pages.min(all) * (self.run - 1)
    }

    /// Tokens of one sequence that go into so many pages.
    pub fn tokens_in(&self, pages: usize) -> usize {
        let full = self.pages.min(pages / self.run);
        let rest = if full == self.pages { pages - full * self.run } else { 0 };
        (full + rest) * PAGE
    }
}

/// One sequence's place in the cache.
#[derive(Debug)]
pub struct Sequence {
    /// Where its sampled tokens are kept.
    pub slot: u32,
    /// The length for which it was admitted, see [`Row::length`].
    pub admitted: u32,
    /// The images of its prompt.
    pub media: Option<Arc<Media>>,
    /// Where the rows of each of them are, as far as its next step needs them.
    pub image_rows: Vec<u32>,
    /// Its adapter, see [`Row::adapter`].
    pub adapter: u32,
    length: u32,
    /// Tokens that were fed and whose keys and values were dropped: all between the first pages and the rest.
    dropped: u32,
    pages: Vec<u32>,
}

/// How the token after a row is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Draw {
    /// 1 / temperature; 0 takes the most likely token.
    pub inv_temperature: f32,
    /// The seed of the sequence's random numbers.
    pub seed: u32,
    /// Tokens that the sequence has sampled before.
    pub counter: u32,
    /// Whether the host wants the logits.
    pub logits: bool,
}

impl Pool {
    /// All of `pages` pages, free.
    pub fn new(pages: usize) -> Pool {
        Pool::with_lead(pages, Lead::default())
    }

    /// The same, where sequences begin with pages in full.
    pub fn with_lead(pages: usize, lead: Lead) -> Pool {
        Pool { free: (0..pages as u32).rev().collect(), lead }
    }

    /// How sequences begin.
    pub fn lead(&self) -> Lead {
        self.lead
    }

    /// Pages that `more` tokens of a sequence take beyond those that it holds: in full, and others.
    fn entries(&self, sequence: &Sequence, more: usize) -> (usize, usize) {
        let held = sequence.pages.len();
        let all = (sequence.len() + more).div_ceil(PAGE).saturating_sub(held);
        let full = self.lead.pages.saturating_sub(held).min(all);
        (full, all - full)
    }

    /// The same, all together.
    pub fn wanted(&self, sequence: &Sequence, more: usize) -> usize {
        let (full, others) = self.entries(sequence, more);
        full * self.lead.run + others
    }

    /// Whether there are too few for `more` tokens of a sequence.
    pub fn lacks(&self, sequence: &Sequence, more: usize) -> bool {
        let (full, others) = self.entries(sequence, more);
        full * self.lead.run + others > self.free.len() || (full > 0 && full > self.runs().len())
    }

    /// Runs of free pages that can be one in full.
    fn runs(&self) -> Vec<u32> {
        if self.lead.pages == 0 {
            return Vec::new();
        }
        let (run, mut count) = (self.lead.run as u32, BTreeMap::new());
        self.free.iter().for_each(|page| *count.entry(page / run).or_insert(0) += 1);
        count.into_iter().filter(|(_, pages)| *pages == run).map(|(at, _)| at * run).collect()
    }

    /// Gives a sequence pages for `more` tokens, if there are enough.
    fn extend(&mut self, sequence: &mut Sequence, more: usize) -> bool {
        if self.lacks(sequence, more) {
            return false;
        }
        let ((full, others), run) = (self.entries(sequence, more), self.lead.run as u32);
        if full > 0 {
            // Others break runs at the other end.
            let taken: Vec<u32> = self.runs().into_iter().rev().take(full).collect();
            self.free.retain(|page| !taken.contains(&(page / run * run)));
            sequence.pages.extend(taken.iter().map(|page| page | FULL_PAGE));
        }
        sequence.pages.extend(self.free.drain(self.free.len() - others..).rev());
        true
    }

    fn put(&mut self, pages: impl DoubleEndedIterator<Item = u32>) {
        let run = self.lead.run as u32;
        for page in pages.rev() {
            match page.checked_sub(FULL_PAGE) {
                Some(first) => self.free.extend((first..first + run).rev()),
                None => self.free.push(page),
            }
        }
    }

    /// Pages left.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a sequence's pages back.
    pub fn release(&mut self, sequence: Sequence) {
        self.put(sequence.pages.into_iter());
    }
}

impl Sequence {
    /// An empty sequence.
    pub fn new(slot: u32, admitted: usize) -> Sequence {
        let (media, image_rows) = (None, Vec::new());
        Sequence {
            slot,
            admitted: admitted as u32,
            adapter: 0,
            media,
            image_rows,
            length: 0,
            dropped: 0,
            pages: Vec::new(),
        }
    }

    /// The same with an adapter, see [`Row::adapter`].
    pub fn with_adapter(self, adapter: u32) -> Sequence {
        Sequence { adapter, ..self }
    }

    /// Tokens that were fed, those of submitted steps included.
    pub fn fed(&self) -> usize {
        (self.dropped + self.length) as usize
    }

    /// Tokens in the cache, those of submitted steps included.
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether nothing is in the cache.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Drops pages behind the first `kept` ones, oldest first, until `most` tokens are left in the cache. The pages come
    /// last then, to be written anew: steps run in order, so those under way have read them before.
    pub fn rotate(&mut self, kept: usize, most: usize) {
        while self.len() > most && self.len() >= (kept + 1) * PAGE {
            let page = self.pages.remove(kept);
            self.pages.push(page);
            self.length -= PAGE as u32;
            self.dropped += PAGE as u32;
        }
    }

    /// Takes tokens back until `fed` are left. `false`, and nothing changed, where some of what would be needed then was
    /// dropped.
    pub fn truncate(&mut self, fed: usize, pool: &mut Pool) -> bool {
        let cut = self.fed().saturating_sub(fed);
        if cut > self.len() || (self.dropped > 0 && self.len() < cut + 2 * PAGE) {
            return false;
        }
        self.length -= cut as u32;
        let kept = self.len().div_ceil(PAGE).min(self.pages.len());
        pool.put(self.pages.drain(kept..));
        true
    }

    /// Empties the cache and keeps its pages, so that all tokens are recomputed for another length.
    pub fn restart(&mut self, admitted: usize) {
        (self.admitted, self.length, self.dropped) = (admitted as u32, 0, 0);
    }

    /// The pages that hold its tokens, in order.
    pub fn pages(&self) -> &[u32] {
        &self.pages[..self.len().div_ceil(PAGE).min(self.pages.len())]
    }

    /// Whether all that was fed is still in the cache.
    pub fn is_whole(&self) -> bool {
        self.dropped == 0
    }

    /// A sequence whose `length` tokens are to be written into the cache from elsewhere; `None` if there are too few pages.
    pub fn reserve(length: usize, admitted: usize, pool: &mut Pool) -> Option<Sequence> {
        let mut sequence = Sequence::new(0, admitted);
        pool.extend(&mut sequence, length).then_some(Sequence { length: length as u32, ..sequence })
    }

    /// Gives it images, which its adapter sees; where it begins with others, those must be the same.
    pub fn set_media(&mut self, media: Option<Arc<Media>>) {
        self.image_rows = vec![0; media.as_ref().map_or(0, |m| m.images.len())];
        self.media = media.map(|media| media.with_adapter(self.adapter));
    }

    /// The row of a token at `index` of the cache.
    fn row(&self, token: Token, index: u32, [table, first]: [u32; 2]) -> Row {
        let at = self.dropped + index;
        let Sequence { admitted: length, adapter, .. } = *self;
        let text = Row {
            token,
            index,
            end: index + 1,
            is_whole: false,
            position: [at; 3],
            image: None,
            table,
            first,
            length,
            adapter,
        };
        let (Some(media), at) = (&self.media, at as usize) else { return text };
        let image = media.row(at).map(|(image, row)| self.image_rows[image] + row as u32);
        let end = media.end(at) as u32 - self.dropped;
        Row { end, is_whole: at < media.prefix, position: media.position(at), image, ..text }
    }
}

impl Step {
    /// Adds rows of a sequence; `draw` says for each place in `tokens` whether its logits are wanted.
    /// Takes pages from the pool; `false`, and nothing changed, if there are too few.
    pub fn push(
        &mut self,
        sequence: &mut Sequence,
        pool: &mut Pool,
        tokens: &[Token],
        draw: impl Fn(usize) -> Option<Draw>,
    ) -> bool {
        if !pool.extend(sequence, tokens.len()) {
            return false;
        }
        let (table, first) = (self.pages.len() as u32, self.rows.len() as u32);
        self.pages.extend(&sequence.pages);
        for (i, token) in tokens.iter().enumerate() {
            let index = sequence.length + i as u32;
            let row = self.rows.len() as u32;
            self.rows.push(sequence.row(*token, index, [table, first]));
            if let Some(Draw { inv_temperature, seed, counter, logits }) = draw(i) {
                self.outputs.push(Output { row, slot: sequence.slot, inv_temperature, seed, counter, logits });
            }
        }
        sequence.length += tokens.len() as u32;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_and_go() {
        let mut pool = Pool::new(3);
        let (mut a, mut b) = (Sequence::new(0, 0), Sequence::new(1, 0));
        let mut step = Step::default();
        let tokens = [Token::Id(1); PAGE + 1];
        assert!(step.push(&mut a, &mut pool, &tokens, |_| None));
        assert!(step.push(&mut b, &mut pool, &tokens[..PAGE], |i| (i == PAGE - 1).then(Draw::default)));
        assert_eq!((pool.free(), step.pages.len(), step.outputs[0].row), (0, 3, 2 * PAGE as u32));
        assert_eq!((step.rows[PAGE + 1].table, step.rows[PAGE + 1].first), (2, PAGE as u32 + 1));
        let slots: std::collections::HashSet<usize> = step.rows.iter().map(|r| step.slot(r)).collect();
        assert_eq!(slots.len(), step.rows.len(), "no two rows share a slot");
        assert!(!Step::default().push(&mut b, &mut pool, &tokens[..1], |_| None), "no page is left");
        pool.release(a);
        assert!(Step::default().push(&mut b, &mut pool, &tokens[..1], |_| None));
    }

    #[test]
    fn tokens_are_taken_back() {
        let mut pool = Pool::new(3);
        let mut a = Sequence::new(0, 0);
        assert!(Step::default().push(&mut a, &mut pool, &[Token::Id(1); 2 * PAGE + 2], |_| None));
        assert!(a.truncate(2 * PAGE + 1, &mut pool));
        assert_eq!((a.len(), pool.free()), (2 * PAGE + 1, 0));
        assert!(a.truncate(PAGE, &mut pool) && a.truncate(PAGE + 9, &mut pool));
        assert_eq!((a.len(), pool.free(), a.pages().len()), (PAGE, 2, 1));
        let b = Sequence::reserve(PAGE + 1, 7, &mut pool).unwrap();
        assert_eq!((b.len(), b.pages().len(), pool.free()), (PAGE + 1, 2, 0));
        assert!(Sequence::reserve(1, 0, &mut pool).is_none());
        pool.release(b);
        assert!(Step::default().push(&mut a, &mut pool, &[Token::Id(1); 2 * PAGE], |_| None));
        a.rotate(1, 2 * PAGE);
        assert!(!a.truncate(PAGE, &mut pool), "what stood there is gone");
        assert_eq!(a.fed(), 3 * PAGE);
    }

    #[test]
    fn sequences_begin_with_pages_in_full() {
        let lead = Lead { pages: 2, run: 4 };
        assert_eq!([0, 1, PAGE, 2 * PAGE, 5 * PAGE].map(|n| lead.pages_for(n)), [0, 4, 4, 8, 11]);
        assert_eq!([3, 4, 7, 8, 11].map(|n| lead.tokens_in(n)), [0, PAGE, PAGE, 2 * PAGE, 5 * PAGE]);
        let mut pool = Pool::with_lead(16, lead);
        let (mut a, mut b) = (Sequence::new(0, 0), Sequence::new(1, 0));
        let feed = |sequence: &mut Sequence, pool: &mut Pool, n: usize| {
            Step::default().push(sequence, pool, &vec![Token::Id(1); n], |_| None)
        };
        assert_eq!(pool.wanted(&a, 3 * PAGE), 9);
        assert!(feed(&mut a, &mut pool, 3 * PAGE));
        assert_eq!((a.pages(), pool.free()), (&[12 | FULL_PAGE, 8 | FULL_PAGE, 0][..], 7));
        assert!(feed(&mut b, &mut pool, 1) && b.pages() == [4 | FULL_PAGE]);
        // Three are free, and no four of them in a row.
        assert!(pool.lacks(&b, PAGE) && !feed(&mut b, &mut pool, PAGE) && !pool.lacks(&a, 3 * PAGE));
        assert!(a.truncate(PAGE + 1, &mut pool) && a.pages().len() == 2 && pool.free() == 4);
        assert!(feed(&mut b, &mut pool, PAGE) && b.pages() == [4 | FULL_PAGE, FULL_PAGE]);
        pool.release(a);
        pool.release(b);
        assert_eq!((pool.free(), pool.runs().len()), (16, 4));
    }

    #[test]
    fn pages_rotate_behind_the_first() {
        let mut pool = Pool::new(4);
        let mut a = Sequence::new(0, 0);
        let feed = |a: &mut Sequence, pool: &mut Pool, n: usize| {
            let mut step = Step::default();
            assert!(step.push(a, pool, &vec![Token::Id(1); n], |_| None));
            step
        };
        let first = feed(&mut a, &mut pool, 3 * PAGE + 1);
        a.rotate(1, 3 * PAGE);
        assert_eq!((a.len(), a.fed()), (2 * PAGE + 1, 3 * PAGE + 1));
        let next = feed(&mut a, &mut pool, PAGE);
        let pages: Vec<u32> = [0, 2, 3, 1].map(|i| first.pages[i]).into();
        assert_eq!(next.pages, pages, "the second page is the last one now");
        assert_eq!((next.rows[0].index, next.rows[0].position), (2 * PAGE as u32 + 1, [3 * PAGE as u32 + 1; 3]));
        a.rotate(1, 2 * PAGE);
        assert_eq!((a.len(), a.fed()), (PAGE + 1, 4 * PAGE + 1));
        a.rotate(1, 1);
        assert_eq!(a.len(), PAGE + 1, "the tail stays");
        pool.release(a);
        assert_eq!(pool.free(), 4);
    }
}
