//! Symbolic sizes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A number of rows that each step fixes anew.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sym {
    /// Token rows in this step, over all sequences.
    Tokens,
    /// Rows whose logits are wanted.
    Outputs,
    /// Patches of this step's images, one below the other. Since api 1.2.
    Patches,
}

/// A size: a constant, or a symbol times a fraction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Encoded", into = "Encoded")]
pub struct Dim {
    sym: Option<Sym>,
    num: u32,
    den: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Encoded {
    Const(u32),
    Sym(Sym),
    Scaled(Sym, u32, u32),
}

impl Dim {
    /// `sym * num / den`, reduced. The host checks at every step that it divides.
    pub fn scaled(sym: Sym, num: u32, den: u32) -> Dim {
        let g = gcd(num.into(), den.into()).max(1) as u32;
        Dim { sym: Some(sym), num: num / g, den: den / g }
    }

    /// The size, if it is constant.
    pub fn constant(self) -> Option<usize> {
        self.sym.is_none().then_some(self.num as usize)
    }

    /// The symbol, if it is not.
    pub fn sym(self) -> Option<Sym> {
        self.sym
    }

    /// The fraction that the symbol is multiplied by; the size and 1, if it is constant.
    pub fn fraction(self) -> (usize, usize) {
        (self.num as usize, self.den as usize)
    }

    /// The size in a step that `rows` describes.
    pub fn eval(self, rows: impl Fn(Sym) -> usize) -> usize {
        self.sym.map_or(1, rows) * self.num as usize / self.den as usize
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim { sym: None, num: u32::try_from(n).unwrap_or(u32::MAX), den: 1 }
    }
}

impl From<Sym> for Dim {
    fn from(sym: Sym) -> Dim {
        Dim { sym: Some(sym), num: 1, den: 1 }
    }
}

impl TryFrom<Encoded> for Dim {
    type Error = String;
    fn try_from(e: Encoded) -> Result<Dim, String> {
        match e {
            Encoded::Const(n) => Ok(Dim { sym: None, num: n, den: 1 }),
            Encoded::Sym(sym) => Ok(sym.into()),
            Encoded::Scaled(sym, num, den) if num > 0 && den > 0 => Ok(Dim::scaled(sym, num, den)),
            Encoded::Scaled(_, num, den) => Err(format!("a size of {num}/{den}")),
        }
    }
}

impl From<Dim> for Encoded {
    fn from(d: Dim) -> Encoded {
        match (d.sym, d.num, d.den) {
            (None, n, _) => Encoded::Const(n),
            (Some(sym), 1, 1) => Encoded::Sym(sym),
            (Some(sym), num, den) => Encoded::Scaled(sym, num, den),
        }
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(sym) = self.sym else { return write!(f, "{}", self.num) };
        f.write_str(match sym {
            Sym::Tokens => "tokens",
            Sym::Outputs => "outputs",
            Sym::Patches => "patches",
        })?;
        match (self.num, self.den) {
            (1, 1) => Ok(()),
            (n, 1) => write!(f, "*{n}"),
            (1, d) => write!(f, "/{d}"),
            (n, d) => write!(f, "*{n}/{d}"),
        }
    }
}

/// Whether two shapes hold equally many elements, whatever the symbols stand for.
pub(crate) fn same_count(a: &[Dim], b: &[Dim]) -> bool {
    count(a).is_some_and(|x| Some(x) == count(b))
}

/// The symbols, and the reduced fraction that their product is multiplied by; `None` on overflow.
fn count(shape: &[Dim]) -> Option<(Vec<Sym>, u128, u128)> {
    let (mut num, mut den) = (1u128, 1u128);
    for d in shape {
        num = num.checked_mul(d.num.into())?;
        den = den.checked_mul(d.den.into())?;
    }
    let mut syms: Vec<Sym> = shape.iter().filter_map(|d| d.sym).collect();
    syms.sort();
    let g = gcd(num, den).max(1);
    Some((syms, num / g, den / g))
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_and_reduces() {
        for (dim, json) in [
            (Dim::from(7), "7"),
            (Sym::Tokens.into(), "\"tokens\""),
            (Dim::scaled(Sym::Outputs, 2, 8), "[\"outputs\",1,4]"),
        ] {
            assert_eq!(serde_json::to_string(&dim).unwrap(), json);
            assert_eq!(serde_json::from_str::<Dim>(json).unwrap(), dim);
        }
        assert!(serde_json::from_str::<Dim>("[\"tokens\",1,0]").is_err());
    }

    #[test]
    fn compares_counts() {
        let (t, n) = (Dim::from(Sym::Tokens), |n: usize| Dim::from(n));
        assert!(same_count(&[t, n(12)], &[t, n(3), n(4)]));
        assert!(same_count(&[t, n(12)], &[Dim::scaled(Sym::Tokens, 1, 2), n(24)]));
        assert!(!same_count(&[t, n(12)], &[n(12)]));
        let huge = [n(usize::MAX); 5];
        assert!(!same_count(&huge, &huge), "overflow is never equal");
    }
}
