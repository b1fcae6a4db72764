//! Sequences in the cache, and putting their rows into steps.

use super::{Output, PAGE, Row, Step, Token};

/// The pages that no sequence holds.
#[derive(Debug)]
pub struct Pool {
    free: Vec<u32>,
}

/// One sequence's place in the cache.
#[derive(Debug)]
pub struct Sequence {
    /// Where its sampled tokens are kept.
    pub slot: u32,
    /// The length for which it was admitted, see [`Row::length`].
    pub admitted: u32,
    length: u32,
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
        Pool { free: (0..pages as u32).rev().collect() }
    }

    /// Pages left.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a sequence's pages back.
    pub fn release(&mut self, sequence: Sequence) {
        self.free.extend(sequence.pages.into_iter().rev());
    }
}

impl Sequence {
    /// An empty sequence.
    pub fn new(slot: u32, admitted: usize) -> Sequence {
        Sequence { slot, admitted: admitted as u32, length: 0, pages: Vec::new() }
    }

    /// Tokens in the cache, those of submitted steps included.
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether nothing is in the cache.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Pages that `more` tokens would take beyond those it holds.
    pub fn pages_wanted(&self, more: usize) -> usize {
        (self.len() + more).div_ceil(PAGE).saturating_sub(self.pages.len())
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
        let wanted = sequence.pages_wanted(tokens.len());
        if wanted > pool.free.len() {
            return false;
        }
        sequence.pages.extend(pool.free.drain(pool.free.len() - wanted..).rev());
        let (table, first) = (self.pages.len() as u32, self.rows.len() as u32);
        self.pages.extend(&sequence.pages);
        for (i, token) in tokens.iter().enumerate() {
            let index = sequence.length + i as u32;
            let row = self.rows.len() as u32;
            self.rows.push(Row { token: *token, index, position: index, table, first, length: sequence.admitted });
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
}
