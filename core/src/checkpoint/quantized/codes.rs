//! Small whole numbers, packed.

use crate::checkpoint::mapping::Slice;

/// A matrix of codes.
pub(in crate::checkpoint) struct Codes {
    /// All of them.
    pub bytes: Slice,
    /// Where each lies.
    pub order: Order,
    /// Of each, 1 to 8.
    pub bits: u8,
    /// How many rows.
    pub rows: usize,
    /// How many columns.
    pub cols: usize,
    /// These bits are the other way round: 0x80 where a byte has a sign, and ours has none.
    pub flip: u8,
}

/// Where the codes of a matrix lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::checkpoint) enum Order {
    /// Each row is one little-endian stream of bits, in whole words or whole bytes: so many bytes.
    Rows(usize),
    /// Each column's rows are a stream of 32-bit words, and word after word of all rows lie together.
    /// In other words [words, rows].
    Words,
    /// 4 bits. [cols, rows / 8] words of eight rows, the even ones in the lower half: 0, 2, 4, 6, 1, 3, 5, 7.
    Awq,
    /// 4 bits. Row by row, two in a byte, the first in the higher half.
    HighFirst,
}

impl Codes {
    /// Whether there are as many bytes as the order needs.
    pub fn fit(&self) -> bool {
        let bits = usize::from(self.bits);
        let words = |n: usize| n.checked_mul(bits).map(|b| b.div_ceil(32));
        let bytes = match self.order {
            Order::Rows(stride) => {
                let enough = self.cols.checked_mul(bits).is_some_and(|b| b.div_ceil(8) <= stride);
                self.rows.checked_mul(stride).filter(|_| enough)
            }
            Order::Words => words(self.cols).and_then(|w| w.checked_mul(self.rows)).and_then(|n| n.checked_mul(4)),
            Order::Awq => (self.rows / 8).checked_mul(4).and_then(|n| n.checked_mul(self.cols)),
            Order::HighFirst => self.rows.checked_mul(self.cols).map(|n| n.div_ceil(2)),
        };
        (1..=8).contains(&self.bits) && bytes == Some(self.bytes.len())
    }

    /// Reads the codes of `row` from column `first` on.
    pub fn read(&self, row: usize, first: usize, out: &mut [u8]) {
        match self.order {
            Order::Rows(stride) => self.read_stream(&self.bytes[row * stride..(row + 1) * stride], first, out),
            _ => out.iter_mut().enumerate().for_each(|(j, out)| *out = self.get(row, first + j)),
        }
    }

    fn read_stream(&self, stream: &[u8], first: usize, out: &mut [u8]) {
        let bits = usize::from(self.bits);
        if !first.is_multiple_of(8) {
            out.iter_mut().enumerate().for_each(|(j, out)| *out = self.at(stream, (first + j) * bits));
            return;
        }
        // Eight codes are as many bytes as a code has bits.
        let stream = &stream[first / 8 * bits..];
        for (q, bytes) in out.chunks_mut(8).zip(stream.chunks(bits)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            let eight = u64::from_le_bytes(eight);
            let mask = ((1u16 << bits) - 1) as u8;
            q.iter_mut().enumerate().for_each(|(i, q)| *q = ((eight >> (bits * i)) as u8 & mask) ^ self.flip);
        }
    }

    /// The code at bit `at` of a stream.
    fn at(&self, stream: &[u8], at: usize) -> u8 {
        let byte = |i: usize| u16::from(stream.get(i).copied().unwrap_or(0));
        let both = byte(at / 8) | byte(at / 8 + 1) << 8;
        ((both >> (at % 8)) & ((1 << self.bits) - 1)) as u8 ^ self.flip
    }

    /// The code of a row and a column.
    pub fn get(&self, row: usize, col: usize) -> u8 {
        let bits = usize::from(self.bits);
        match self.order {
            Order::Rows(stride) => self.at(&self.bytes[row * stride..(row + 1) * stride], col * bits),
            Order::Words => {
                let (word, within) = (col * bits / 32, col * bits % 32);
                let low = self.word(word * self.rows + row) >> within;
                let high = match within + bits > 32 {
                    true => self.word((word + 1) * self.rows + row) << (32 - within),
                    false => 0,
                };
                ((low | high) & ((1 << bits) - 1)) as u8 ^ self.flip
            }
            Order::Awq => {
                let place = [0, 4, 1, 5, 2, 6, 3, 7][row % 8];
                (self.word(col * (self.rows / 8) + row / 8) >> (4 * place) & 15) as u8
            }
            Order::HighFirst => {
                let at = row * self.cols + col;
                self.bytes[at / 2] >> (4 * (1 - at % 2)) & 15
            }
        }
    }

    fn word(&self, i: usize) -> u32 {
        let b = &self.bytes[4 * i..4 * i + 4];
        u32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }
}

/// Whole numbers that belong to the groups of a matrix, packed as its codes are.
pub(in crate::checkpoint) struct Zeros {
    /// A matrix of them.
    pub codes: Codes,
    /// Whether its rows are the groups; else its columns are.
    pub by_group: bool,
    /// Rows of the quantized matrix that share one.
    pub run: usize,
    /// Added to what is stored,
    pub plus: u16,
    /// of which these bits are then kept.
    pub mask: u16,
}

impl Zeros {
    /// The number of a row of the quantized matrix, and of a group.
    pub fn get(&self, row: usize, group: usize) -> u16 {
        let row = row / self.run;
        let stored = if self.by_group { self.codes.get(group, row) } else { self.codes.get(row, group) };
        u16::from(stored).wrapping_add(self.plus) & self.mask
    }
}
