//! A bound on how deeply WGSL is nested, found without recursion. naga, and each of its writers in wgpu, calls itself for
//! every level of an expression, of a block and of a type, and a stack that overflows ends the process.

/// Levels that an expression and the blocks around it may have. naga's parser has the same limit for brackets, and WGSL
/// asks of an implementation for no more than 127 levels of braces (<https://www.w3.org/TR/WGSL/#limits>).
const MAX_DEPTH: usize = 200;
/// Declarations of a module. naga follows their uses of each other by recursion.
const MAX_DECLARATIONS: usize = 512;

/// What has been read of one statement, or of one argument in brackets.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Levels around the bracket that it stands in.
    around: usize,
    /// Operators of this expression. Any of them may be an operand of the next, as in `a + b + c`.
    operators: usize,
    /// `<` that may begin a list of template arguments and have no `>` yet.
    angles: usize,
    /// `else` of this chain: each holds what follows it.
    elses: usize,
    /// Levels of the deepest bracket in this expression, and in all that were read at this level.
    inner: usize,
    deepest: usize,
    /// Whether a block has just ended, so that anything but `else` begins a statement.
    is_after_block: bool,
}

impl Level {
    fn depth(&self) -> usize {
        self.operators + self.inner
    }

    fn operator(&mut self) {
        self.operators += 1;
        self.deepest = self.deepest.max(self.depth());
    }

    /// The next statement begins.
    fn end_statement(&mut self) {
        *self = Level { around: self.around, deepest: self.deepest, ..Level::default() };
    }
}

/// Checks the nesting of a module. The depth that is counted is never less than that of the syntax tree, and may be more: the
/// precedence of operators is left out of account.
///
/// # Errors
/// Where it is too deep.
pub fn check(source: &str) -> Result<(), String> {
    let (mut enclosing, mut level) = (Vec::new(), Level::default());
    let (mut declarations, mut at) = (0, 0);
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        let token = match c {
            '/' if rest.starts_with("//") => line_comment(rest),
            '/' if rest.starts_with("/*") => block_comment(rest),
            c if c == '_' || c.is_alphanumeric() => {
                rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len())
            }
            '-' if rest.starts_with("->") => 2,
            '<' if rest.starts_with("<<") || rest.starts_with("<=") => 2,
            c => c.len_utf8(),
        };
        let token = &rest[..token];
        let is_word = c == '_' || c.is_alphanumeric();
        let is_bracket = matches!(c, '(' | '[' | '{');
        let is_operator =
            "+-*/%&|^!~<>=".contains(c) || (c == '.' && !rest[1..].starts_with(|c: char| c.is_ascii_digit()));
        let is_comment = token.starts_with("//") || token.starts_with("/*");
        if token == "else" {
            level.is_after_block = false;
            level.elses += 1;
            level.operators = level.elses;
            level.deepest = level.deepest.max(level.depth());
        } else if !is_comment
            && token != "->"
            && (is_word || is_bracket || is_operator || matches!(c, ')' | ']' | '}' | ';'))
        {
            if std::mem::take(&mut level.is_after_block) {
                level.end_statement();
            }
            match c {
                '(' | '[' => {
                    level.operator();
                    let around = level.around + level.operators;
                    enclosing.push(std::mem::replace(&mut level, Level { around, ..Level::default() }));
                }
                '{' => {
                    let around = level.around + level.elses + 1;
                    enclosing.push(std::mem::replace(&mut level, Level { around, ..Level::default() }));
                }
                ')' | ']' | '}' => {
                    let inner = level.deepest + usize::from(c == '}');
                    level = enclosing.pop().unwrap_or_default();
                    if c == '}' {
                        (level.operators, level.is_after_block) = (level.elses, true);
                        declarations += usize::from(enclosing.is_empty());
                    }
                    level.inner = level.inner.max(inner);
                    level.deepest = level.deepest.max(level.depth());
                }
                ';' => {
                    level.end_statement();
                    declarations += usize::from(enclosing.is_empty());
                }
                _ if is_operator => {
                    level.operator();
                    match token {
                        "<" => level.angles += 1,
                        ">" => level.angles = level.angles.saturating_sub(1),
                        _ => {}
                    }
                }
                _ => {}
            }
        } else if c == ',' && level.angles == 0 {
            (level.operators, level.inner) = (level.elses, 0);
        }
        if level.around + level.depth() > MAX_DEPTH {
            let (line, column) = place(source, at);
            return Err(format!(
                "WGSL {line}:{column}: operators, brackets and blocks are nested more than {MAX_DEPTH} levels deep: split \
                 the expression with `let`, or the blocks with functions"
            ));
        }
        if declarations > MAX_DECLARATIONS {
            let (line, column) = place(source, at);
            return Err(format!(
                "WGSL {line}:{column}: expected at most {MAX_DECLARATIONS} declarations, found more: \
                                leave out those that are not used"
            ));
        }
        at += token.len();
    }
    Ok(())
}

/// The length of the comment that `text` begins with, up to its line's end as WGSL defines it.
fn line_comment(text: &str) -> usize {
    let ends = |c: char| matches!(c, '\n'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    text.find(ends).unwrap_or(text.len())
}

/// The same of a block comment; those may be nested.
fn block_comment(text: &str) -> usize {
    let (bytes, mut depth, mut at) = (text.as_bytes(), 0usize, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Line and column, counted from 1.
fn place(source: &str, at: usize) -> (usize, usize) {
    let before = &source[..at];
    let line = before.rfind('\n').map_or(before, |n| &before[n + 1..]);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_not_deep() {
        let table = format!("const T = array<f32, 300>({});", "-0.5e-3, ".repeat(300));
        let blocks = format!("fn f() {{ {} }}", "if (a < b) { x += 1.5; } else if c[i] > 2 { y = -z; } ".repeat(100));
        let sum = format!("fn f() {{ let s = {}0.0; }}", "a[i] * b[i] + ".repeat(40));
        let comments = format!("// {0}\n/* {0} /* {0} */ {0} */ fn f() {{}}", "((((----{{{{".repeat(50));
        let calls = format!("fn f() {{ g({}); }}", "h(a < b, vec4<f32>(1.0)), ".repeat(90));
        let members = format!("fn f() {{ {} }}", "x.y.z = a.b[0].c; ".repeat(200));
        for source in [table, blocks, sum, comments, calls, members] {
            check(&source).unwrap_or_else(|e| panic!("{e}: {source}"));
        }
    }

    #[test]
    fn each_kind_of_nesting_is_counted() {
        for (open, close) in [
            ("-", ""),
            ("!", ""),
            ("~", ""),
            ("&*", ""),
            ("- ", ""),
            ("(", ")"),
            ("a[", "]"),
            ("f(", ")"),
            ("a + ", ""),
            ("array<", ", 2>"),
            ("array<f32, array<", ">>"),
            ("a.b", ""),
            ("a && ", ""),
            ("a << ", ""),
            ("a ? ", ""),
            ("vec2<f32, 1>() - ", ""),
            ("f(a, ", ")"),
            ("-/* ) */", ""),
            ("- // x\n", ""),
            ("a, - ", ""),
        ] {
            let source = |n: usize| format!("fn f() {{ let x = {}a{}; }}", open.repeat(n), close.repeat(n));
            let is_flat = matches!(open, "a ? " | "a, - ");
            check(&source(40)).unwrap_or_else(|e| panic!("{open}: {e}"));
            assert_eq!(check(&source(201)).is_err(), !is_flat, "{open}");
        }
        for (open, close) in [
            ("{", "}"),
            ("if a {", "}"),
            ("loop {", "}"),
            ("for (;;) {", "}"),
            ("switch a { case 1 {", "}}"),
            ("if a {} else ", ""),
            ("if a {} else {", "}"),
            ("while (a) {", "}"),
        ] {
            let source = |n: usize| format!("fn f() {{ {} {{}} {} }}", open.repeat(n), close.repeat(n));
            check(&source(60)).unwrap_or_else(|e| panic!("{open}: {e}"));
            assert!(check(&source(201)).is_err(), "{open}");
        }
        let e = check(&format!("\nfn f() {{\n  let x = {}1; }}", "-".repeat(300))).unwrap_err();
        assert!(e.starts_with("WGSL 3:209: operators, brackets and blocks are nested more than 200"), "{e}");
        let e = check(&"const a = 1;\n".repeat(600)).unwrap_err();
        assert!(e.starts_with("WGSL 513:12: expected at most 512 declarations"), "{e}");
    }
}
