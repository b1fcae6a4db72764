//! Filling in WGSL templates.
//!
//! Two constructs, which nest:
//!
//! - `{{NAME}}` becomes the value of that name;
//! - `{{for i in NAME}}` ... `{{end i}}` is repeated as many times as the value of `NAME` says, with
//!   `{{i}}` the round, from 0. A count of 0 or 1 makes it a condition.
//!
//! Loops are written out here, not left to the driver: an array that a driver fails to keep in
//! registers, because it did not unroll the loop over it, is many times slower.

use crate::{Access, Kernel};

/// Fills in `values`, in order: a value may hold templates that use later values. Then the loops.
///
/// A name without a value stays as it is, and so does a loop without an end or a count: what is left
/// is no WGSL, and the tests look for `{{` in every kernel.
pub fn render(source: &str, values: &[(&str, String)]) -> String {
    let filled =
        values.iter().fold(source.to_string(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
    let unrolled = unroll(&filled, values);
    unrolled.lines().filter(|l| !l.trim().is_empty()).flat_map(|l| [l, "\n"]).collect()
}

fn unroll(source: &str, values: &[(&str, String)]) -> String {
    let Some((before, rest)) = source.split_once("{{for ") else { return source.to_string() };
    match parse_loop(rest, values) {
        Some((name, count, body, after)) => {
            let rounds = (0..count).map(|i| unroll(&body.replace(&format!("{{{{{name}}}}}"), &i.to_string()), values));
            before.to_string() + &rounds.collect::<String>() + &unroll(after, values)
        }
        None => source.to_string(),
    }
}

/// The variable, the count, the body and what follows the loop.
fn parse_loop<'a>(rest: &'a str, values: &[(&str, String)]) -> Option<(&'a str, u32, &'a str, &'a str)> {
    let (head, rest) = rest.split_once("}}")?;
    let (name, count) = head.split_once(" in ")?;
    let (body, after) = rest.split_once(&format!("{{{{end {name}}}}}"))?;
    let (_, count) = values.iter().find(|(n, _)| *n == count)?;
    Some((name, count.parse().ok()?, body, after))
}

/// `const NAME: u32 = valueu;` lines.
pub fn consts(values: &[(&str, u32)]) -> String {
    values.iter().map(|(name, value)| format!("const {name}: u32 = {value}u;\n")).collect()
}

/// An f32 literal that reads back as exactly `v`, which is finite.
pub fn float(v: f32) -> String {
    // A negative number in parentheses: `-` before it would make `--`.
    if v.is_sign_negative() { format!("({v:?}f)") } else { format!("{v:?}f") }
}

/// Collects a kernel's bindings: their declarations, and how the host is to bind them.
#[derive(Default)]
pub struct Bindings {
    declarations: String,
    access: Vec<Access>,
}

impl Bindings {
    /// Binding 0, the step buffer, under the name `step`.
    pub fn step() -> Bindings {
        let mut bindings = Bindings::default();
        bindings.read("step", "u32");
        bindings
    }

    /// The next binding, `array<element>`, which the kernel only reads.
    pub fn read(&mut self, name: &str, element: &str) {
        self.add(name, element, Access::Read);
    }

    /// The next binding, `array<element>`, which the kernel writes.
    pub fn write(&mut self, name: &str, element: &str) {
        self.add(name, element, Access::ReadWrite);
    }

    fn add(&mut self, name: &str, element: &str, access: Access) {
        let (i, mode) = (self.access.len(), if access == Access::Read { "read" } else { "read_write" });
        self.declarations += &format!("@group(0) @binding({i}) var<storage, {mode}> {name}: array<{element}>;\n");
        self.access.push(access);
    }

    /// The declarations, for a template.
    pub fn declarations(&self) -> String {
        self.declarations.clone()
    }

    /// The kernel of a finished source.
    pub fn kernel(self, name: String, source: String, grid: [crate::Extent; 3]) -> Kernel {
        Kernel { name, source, bindings: self.access, grid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_values_and_loops() {
        let values = [("BODY", "s{{r}} = {{N}};".to_string()), ("N", "7u".to_string()), ("R", "2".to_string())];
        let cases = [
            ("a {{N}} b", "a 7u b\n"),
            ("{{for r in R}}\n{{BODY}}\n{{end r}}", "s0 = 7u;\ns1 = 7u;\n"),
            ("{{for a in R}}{{for b in R}}{{a}}{{b}} {{end b}}{{end a}}", "00 01 10 11 \n"),
            ("{{for a in R}}x{{end a}}{{for a in R}}y{{end a}}", "xxyy\n"),
            ("{{UNKNOWN}}", "{{UNKNOWN}}\n"),
            ("{{for a in R}}x", "{{for a in R}}x\n"),
        ];
        for (source, want) in cases {
            assert_eq!(render(source, &values), want, "{source}");
        }
    }

    #[test]
    fn floats_read_back() {
        for v in [0.0f32, 1.0, -1.0, 1e-6, 0.1, 3.4e38, 1.5e-42] {
            let text = float(v);
            let text = text.trim_matches(|c| "()f".contains(c));
            assert_eq!(text.parse::<f32>().map(f32::to_bits), Ok(v.to_bits()), "{text}");
        }
    }
}
