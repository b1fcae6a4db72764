//! Quantized caches.

use crate::{
    Error, Result,
    exec::{Lead, PAGE},
    program::{Op, Program},
};
use std::{fmt, str::FromStr};
use tamarack_kernels::CacheFormat;

/// To how many bits keys and values are quantized in the cache.
///
/// ```
/// use tamarack::model::KvQuantize;
///
/// assert_eq!("8".parse(), Ok(KvQuantize { bits: 8, group_size: 64, start: 0 }));
/// assert_eq!("4:32".parse(), Ok(KvQuantize { bits: 4, group_size: 32, start: 0 }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvQuantize {
    /// 2, 4 or 8.
    pub bits: u32,
    /// Elements of a key or value that share a scale: 32, 64 or 128.
    pub group_size: u32,
    /// How many of a sequence's first tokens stay in f16, in whole pages: all later ones are quantized.
    pub start: usize,
}

impl FromStr for KvQuantize {
    type Err = String;

    /// `8`, `4:32`: bits, and the group after a colon; 64 is the default.
    fn from_str(text: &str) -> Result<KvQuantize, String> {
        let (bits, group) = text.split_once(':').unwrap_or((text, "64"));
        match (bits.parse(), group.parse()) {
            (Ok(bits @ (2 | 4 | 8)), Ok(group_size @ (32 | 64 | 128))) => Ok(KvQuantize { bits, group_size, start: 0 }),
            _ => Err(format!("expected 2, 4 or 8, or with a group of 32, 64 or 128 such as 4:32, found `{text}`")),
        }
    }
}

impl fmt::Display for KvQuantize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.bits, self.group_size)
    }
}

impl KvQuantize {
    /// The pages with which each sequence begins.
    pub(crate) fn lead(self) -> Lead {
        match self.start.div_ceil(PAGE) {
            0 => Lead::default(),
            pages => Lead { pages, run: (16 / self.bits.clamp(1, 16)) as usize },
        }
    }

    /// Has all caches that attention looks at quantized.
    pub(crate) fn apply(self, program: &mut Program) -> Result<()> {
        self.to_string().parse::<KvQuantize>().map_err(|e| Error::Request(format!("quantized cache: {e}")))?;
        let format = CacheFormat::Affine { bits: self.bits, group: self.group_size, mixed: self.start > 0 };
        let attended = |op: &Op| if let Op::Attend { cache, .. } = op { Some(*cache) } else { None };
        for cache in program.nodes.iter().filter_map(|n| attended(&n.op)) {
            let cache = &mut program.caches[cache];
            if let Some(dim) = cache.heads().find(|dim| !format.fits(*dim as u32)) {
                let group = self.group_size;
                let fits =
                    [32, 64, 128].into_iter().filter(|group| cache.heads().all(|dim| dim.is_multiple_of(*group)));
                let fits: Vec<String> = fits.map(|group| group.to_string()).collect();
                let remedy =
                    if fits.is_empty() { "no group does".into() } else { format!("{} does", fits.join(" or ")) };
                let message =
                    format!("quantized cache: heads of {dim} elements are no whole groups of {group}: {remedy}");
                return Err(Error::Request(message));
            }
            cache.format = format;
        }
        Ok(())
    }
}
