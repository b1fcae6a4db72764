//! Plugins' WGSL nested in every way that WGSL can be: refused with a reason, or harmless on the stack of the thread that
//! hands it to a driver. What overflows a stack ends its process, so all of it runs in one of its own.

use naga::{
    back::{hlsl, msl, spv},
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::{env, process::Command, thread, time::Instant};
use tamarack::{
    gpu::{Gpu, adapters},
    program::custom,
};
use tamarack_api::CustomOp;

/// Set in the process that may be ended.
const CHILD: &str = "TAMARACK_TEST_NESTINGS";
/// The stack of the engine's thread.
const STACK: usize = 8 << 20;
/// The most WGSL of an op.
const MOST: usize = 1 << 16;

/// What is repeated before an expression and behind it; where it ends up, `E` stands for it.
const EXPRESSIONS: &[(&str, &str, &str, &str)] = &[
    // In what; before; innermost; behind.
    ("y[0] = E;", "- ", "x[0]", ""),
    ("y[0] = E;", "-", "x[0]", ""),
    ("y[0] = E;", "(", "x[0]", ")"),
    ("y[0] = E;", "-(", "x[0]", ")"),
    ("y[0] = E;", "x[0] + ", "x[1]", ""),
    ("y[0] = E;", "x[0] * x[1] - ", "x[1]", ""),
    ("y[0] = E;", "(x[0] + ", "x[1]", ")"),
    ("y[0] = E;", "abs(", "x[0]", ")"),
    ("y[0] = E;", "max(x[0], ", "x[1]", ")"),
    ("y[0] = E;", "x[u32(", "x[1]", ")]"),
    ("y[0] = E;", "bitcast<f32>(", "1.0", ")"),
    ("y[0] = E;", "vec2<f32>(", "1.0", ").x"),
    ("y[0] = E.x;", "", "vec2<f32>(1.0)", ".xy"),
    ("y[0] = E;", "select(1.0, 2.0, x[0] < ", "x[1]", ")"),
    ("y[0] = f32(E);", "~", "1u", ""),
    ("y[0] = f32(E);", "1u << ", "1u", ""),
    ("y[0] = f32(E);", "(1u | ", "1u", ")"),
    ("y[0] = select(0.0, 1.0, E);", "!", "true", ""),
    ("y[0] = select(0.0, 1.0, E);", "x[0] > 0.0 && ", "true", ""),
    ("y[0] = select(0.0, 1.0, E);", "true || (", "false", ")"),
    ("y[0] = select(0.0, 1.0, E);", "x[0] == x[1] == ", "true", ""),
    ("var v = 1.0; y[0] = E;", "*&", "v", ""),
    ("var v = 1.0; y[0] = E;", "*(&", "v", ")"),
    ("var v = 1.0; y[0] = *E;", "&*", "&v", ""),
    ("var v = E;", "array(", "1.0", ")"),
    ("var v = array(1.0); y[0] = E;", "", "v", "[0]"),
    ("var v: E;", "array<", "f32", ", 1>"),
    ("var v: E;", "array<array<f32, 1>, ", "1", ">"),
    ("var v: E;", "vec2<", "f32", ">"),
    ("var v: E;", "ptr<function, ", "f32", ">"),
    ("var v = E;", "array<f32, 1>(1.0)[0] - ", "1.0", ""),
    ("const v = E;", "1 + ", "1", ""),
    ("const v = E;", "-", "1", ""),
    ("const v = E;", "array(", "1", ")"),
    ("const_assert E;", "!", "true", ""),
    ("{} // E", "{", "", "}"),
    ("E", "{", "", "}"),
    ("E", "if x[0] > 0.0 {", "", "}"),
    ("E", "if x[0] > 0.0 {} else ", "{}", ""),
    ("E", "if x[0] > 0.0 {} else {", "", "}"),
    ("E", "loop {", "break;", "break; }"),
    ("E", "loop { continuing {", "", "break if true; } }"),
    ("E", "for (;;) {", "break;", "break; }"),
    ("E", "while x[0] > 0.0 {", "", "}"),
    ("E", "switch 1 { default {", "", "} }"),
    ("E", "switch 1 { case 1, default: {", "", "} }"),
    ("E", "@diagnostic(off, derivative_uniformity) ", "{}", ""),
    ("E", ";", "", ""),
    ("/* E */", "/*", "", "*/"),
    ("/*/ E", "/*", "", ""),
    ("// \u{2028} y[0] = E;", "-", "1.0", ""),
    ("y[0] = 1.0; } fn f() { let a = E;", "a.b", "1", ""),
    ("y[E] = 1.0;", "y[u32(", "x[0]", ")]"),
    ("*E = 1.0;", "&*", "&y[0]", ""),
    ("E;", "f(", "1", ")"),
    ("_ = E;", "- -", "1", ""),
];

/// Declarations that use each other, and one that `main` uses.
const CHAINS: &[(&str, &str, &str)] = &[
    // The first; each next one, `M` before it and `N` itself; a use.
    ("const a0 = 1;", "const aN = aM + 1;", "_ = aN;"),
    ("const a0 = array(1);", "const aN = array(aM);", "var v = aN;"),
    ("alias a0 = f32;", "alias aN = aM;", "var v: aN;"),
    ("alias a0 = f32;", "alias aN = array<aM, 1>;", "var v: aN; _ = aN();"),
    ("alias a0 = f32;", "alias aN = array<array<array<array<aM, 1>, 1>, 1>, 1>;", "_ = aN()[0];"),
    ("struct a0 { a: f32 }", "struct aN { a: aM }", "var v: aN; const c = aN();"),
    ("struct a0 { a: f32 }", "struct aN { a: aM, b: aM }", "const c = aN(); _ = c.a;"),
    ("fn a0() {}", "fn aN() { aM(); }", "aN();"),
    ("fn a0() -> f32 { return 1.0; }", "fn aN() -> f32 { return aM() + aM(); }", "_ = aN();"),
    ("var<private> a0 = 1.0;", "var<private> aN = 1.0;", "_ = aN;"),
];

/// What else a plugin may send.
const ODD: &[&str] = &[
    "y[0] = array<f32, 1000000000>()[0];",
    "const a = array<array<f32, 65536>, 65536>(); y[0] = a[1][1];",
    "const a = 1 / 0;",
    "const a = -2147483648 / -1;",
    "const a = 1u << 99u;",
    "let a = 1e400; y[0] = a;",
    "var a: array<f32, 0>;",
    "var a: array<f32, -1>;",
    "loop {}",
    "return 1;",
    "main();",
    "y[4294967295] = 1.0;",
    "let a = a;",
    "switch 1 {}",
    "discard;",
    "let f = main;",
];

/// An op whose `main` does this.
fn op(body: &str, before: &str) -> CustomOp {
    let wgsl = format!(
        "@group(0) @binding(0) var<storage, read> x: array<f32>; \
         @group(0) @binding(1) var<storage, read_write> y: array<f32>; {before} \
         @compute @workgroup_size(1) fn main(@builtin(workgroup_id) g: vec3<u32>) {{ y[g.y] = x[g.y]; {body} }}"
    );
    CustomOp { name: "nested".into(), wgsl, constants: vec![], inputs: 1, weights: 0, dims: vec![1], groups: 1 }
}

fn nested((body, open, inner, close): (&str, &str, &str, &str), n: usize) -> CustomOp {
    let n = n.min((MOST - 1000) / (open.len() + close.len()));
    op(&body.replacen('E', &format!("{}{inner}{}", open.repeat(n), close.repeat(n)), 1), "")
}

fn chain((first, next, used): (&str, &str, &str), n: usize) -> CustomOp {
    let n = n.min((MOST - 1000) / (next.len() + 8));
    let link = |i: usize| next.replace('M', &(i - 1).to_string()).replace('N', &i.to_string());
    op(&used.replace('N', &n.to_string()), &(1..=n).map(|i| link(i) + " ").fold(first.to_owned() + " ", |a, b| a + &b))
}

/// Kinds within each other, or tokens in no order.
fn random(rng: &mut StdRng) -> CustomOp {
    let floats: Vec<_> = EXPRESSIONS.iter().filter(|e| e.0 == "y[0] = E;").collect();
    let blocks: Vec<_> = EXPRESSIONS.iter().filter(|e| e.0 == "E").collect();
    let (mut open, mut close) = (String::new(), String::new());
    for (kinds, most) in [(&blocks, 120), (&floats, 300)] {
        if std::ptr::eq(kinds, &floats) {
            open += "y[0] = ";
            close.insert(0, ';');
        }
        for _ in 0..rng.random_range(0..most) {
            let (_, before, _, behind) = kinds.choose(rng).unwrap();
            open += before;
            close.insert_str(0, behind);
        }
    }
    if rng.random_bool(0.3) {
        let tokens = [
            "(", ")", "{", "}", "<", ">", "[", "]", "-", "!", "&", "*", "a", "1", "else", "if", ",", ";", "array",
            "/*", "*/", "//", "\n", ".", "=", "fn", "let", "@", "->", "'", "\u{85}", "ü",
        ];
        let words = (0..rng.random_range(0..4000)).map(|_| *tokens.choose(rng).unwrap());
        return op(&words.collect::<Vec<_>>().join(" "), "");
    }
    op(&format!("{open}x[0]{close}"), "")
}

/// As wgpu does with what was accepted, for all of its backends.
fn write(op: &CustomOp) {
    let module = naga::front::wgsl::parse_str(&op.wgsl).expect("validated");
    let info: ModuleInfo = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).unwrap();
    spv::write_vec(&module, &info, &spv::Options::default(), None).unwrap();
    let _ = msl::write_string(&module, &info, &msl::Options::default(), &msl::PipelineOptions::default());
    let (options, pipeline) = (hlsl::Options::default(), hlsl::PipelineOptions::default());
    let _ = hlsl::Writer::new(&mut String::new(), &options, &pipeline).write(&module, &info, None);
}

/// How many were accepted, of how many.
fn try_all() -> (usize, usize) {
    let depths = [1, 10, 40, 60, 90, 120, 199, 300, 5000, usize::MAX];
    let mut ops: Vec<CustomOp> = Vec::new();
    for n in depths {
        ops.extend(EXPRESSIONS.iter().map(|kind| nested(*kind, n)));
        ops.extend(CHAINS.iter().map(|kind| chain(*kind, n)));
    }
    ops.extend(ODD.iter().map(|body| op(body, "")));
    ops.push(op(&format!("let {} = 1.0;", "a".repeat(60_000)), ""));
    let mut rng = StdRng::seed_from_u64(21);
    ops.extend((0..300).map(|_| random(&mut rng)));
    let gpu = Gpu::open(&adapters()[0]).unwrap();
    let (all, mut accepted) = (ops.len(), 0);
    for op in ops {
        let body: String = op.wgsl.chars().skip(240).take(60).collect();
        println!("{} bytes: {body}", op.wgsl.len());
        let begun = Instant::now();
        match custom::validate(&op) {
            Ok(()) => {
                accepted += 1;
                write(&op);
                // What a driver makes of it is not ours to check; a loop without end is one for it, too.
                if op.wgsl.len() < 1500 {
                    let _ = gpu.compile_checked(&custom::kernel(&op));
                }
            }
            Err(e) => assert!(!e.is_empty() && e.len() < 2000, "{e}"),
        }
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }
    (accepted, all)
}

#[test]
fn no_nesting_of_wgsl_ends_the_process() {
    if env::var_os(CHILD).is_some() {
        let thread = thread::Builder::new().stack_size(STACK).spawn(try_all).unwrap();
        let (accepted, all) = thread.join().unwrap();
        println!("accepted {accepted} of {all}");
        return;
    }
    let name = "wgsl::no_nesting_of_wgsl_ends_the_process";
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    let last: Vec<&str> = out.lines().rev().take(3).collect();
    assert!(child.status.success(), "{}: {last:?}: {}", child.status, &err[err.len().saturating_sub(2000)..]);
    let accepted = out.lines().find_map(|l| l.strip_prefix("accepted ")?.split(' ').next()?.parse::<usize>().ok());
    assert!((100..500).contains(&accepted.expect("it says so")), "{accepted:?}");
}

#[test]
fn custom_ops_are_bounded_in_number_size_and_names() {
    let with = |ops: Vec<CustomOp>| {
        let graph = tamarack_api::Graph { custom: ops, ..Default::default() };
        custom::validate_all(&graph).unwrap_err()
    };
    let e = with(vec![op("", ""); 257]);
    assert!(
        e.starts_with("expected at most 256 different custom ops of 1048576 bytes of WGSL in all, found 257 of "),
        "{e}"
    );
    let long = op(&" ".repeat(60_000), "");
    let e = with(vec![long; 20]);
    assert!(e.contains("found 20 of 120"), "{e}");
    let e = with(vec![op("", ""), op(&"-".repeat(60_000), "")]);
    assert!(e.contains("custom op `nested`: WGSL 1:") && e.contains("nested more than 200 levels deep"), "{e}");
}
