//! Columns of text on a terminal, and numbers as people read them.

use crate::output;
use std::fmt;

/// Which side of its column a cell keeps to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows of cells under a header; columns are as wide as their widest cell.
pub struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<const N: usize>(columns: [(&str, Side); N]) -> Table {
        let header = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        Table { sides: columns.iter().map(|(_, side)| *side).collect(), rows: vec![header] }
    }

    /// Adds a row, one cell a column, each of them on one line.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| output::name(&cell).into_owned()).into());
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
        (0..self.sides.len()).map(|column| width(column).unwrap_or(0)).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let cell = |((text, &width), side): ((&String, &usize), &Side)| match side {
                Side::Left => format!("{text:<width$}"),
                Side::Right => format!("{text:>width$}"),
            };
            let cells: Vec<String> = row.iter().zip(&widths).zip(&self.sides).map(cell).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// 1536 as `1.5 KiB`.
pub fn bytes(n: u64) -> String {
    scaled(n, 1024, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// 134515008 as `134.5 M`.
pub fn count(n: u64) -> String {
    scaled(n, 1000, &["", "k", "M", "G", "T"])
}

fn scaled(n: u64, base: u64, units: &[&str]) -> String {
    let (mut value, mut unit) = (n as f64, 0);
    while value >= base as f64 && unit + 1 < units.len() {
        value /= base as f64;
        unit += 1;
    }
    let text = if unit == 0 { format!("{n} ") } else { format!("{value:.1} ") };
    (text + units[unit]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new([("name", Side::Left), ("bytes", Side::Right), ("note", Side::Left)]);
        table.row(["llämä".into(), "7".into(), String::new()]);
        table.row(["b".into(), "123456".into(), "long".into()]);
        table.row(["\x1b[2J\n".into(), "1".into(), String::new()]);
        let lines = [
            "name             bytes  note",
            "llämä                7",
            "b               123456  long",
            "\\u{1b}[2J\\u{a}       1\n",
        ];
        assert_eq!(table.to_string(), lines.join("\n"));
    }

    #[test]
    fn numbers_have_units() {
        for (n, binary, decimal) in [
            (0, "0 B", "0"),
            (999, "999 B", "999"),
            (1536, "1.5 KiB", "1.5 k"),
            (134_515_008, "128.3 MiB", "134.5 M"),
            (u64::MAX, "16777216.0 TiB", "18446744.1 T"),
        ] {
            assert_eq!((bytes(n).as_str(), count(n).as_str()), (binary, decimal));
        }
    }
}
