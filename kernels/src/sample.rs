//! The next token, chosen where the logits are.

use crate::common::step_functions;
use crate::template::{Bindings, consts, render};
use crate::{Caps, Extent, Kernel, View, post};

/// Candidates that one thread looks at.
const EACH: u32 = 8;

/// The most likely token of each output, or a draw at its temperature: two dispatches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Logits in a row.
    pub vocab: u32,
    /// Where they lie.
    pub logits: View,
}

impl Sample {
    /// Words of the candidates' buffer for each output.
    pub fn partial_words(&self, caps: &Caps) -> u32 {
        self.chunks(caps) * 2
    }

    /// The best candidate of each chunk of the vocabulary.
    ///
    /// Bindings: step, logits, candidates (value, index).
    pub fn partial(&self, caps: &Caps) -> Kernel {
        let mut bindings = Bindings::step();
        bindings.read("logits", "f32");
        bindings.write("candidates", "u32");
        let source = include_str!("../wgsl/sample/partial.wgsl");
        let source = self.source(source, caps, &bindings);
        let grid = [Extent::Const(self.chunks(caps)), Extent::Rows(1), Extent::Const(1)];
        bindings.kernel(format!("sample {}", self.vocab), source, grid)
    }

    /// The best of all chunks.
    ///
    /// Bindings: step, candidates, the sampled tokens (one a slot), the results (one an output).
    pub fn finish(&self, caps: &Caps) -> Kernel {
        let mut bindings = Bindings::step();
        bindings.read("candidates", "u32");
        bindings.write("sampled", "u32");
        bindings.write("results", "u32");
        let source = self.source(include_str!("../wgsl/sample/finish.wgsl"), caps, &bindings);
        bindings.kernel("sample finish".to_string(), source, [Extent::Rows(1), Extent::Const(1), Extent::Const(1)])
    }

    fn source(&self, template: &str, caps: &Caps, bindings: &Bindings) -> String {
        let sizes = [("THREADS", threads(caps)), ("EACH", EACH), ("VOCAB", self.vocab), ("CHUNKS", self.chunks(caps))];
        let values = [
            ("CONSTS", consts(&sizes)),
            ("STEP", step_functions()),
            ("BINDINGS", bindings.declarations()),
            ("BEST", include_str!("../wgsl/sample/best.wgsl").to_string()),
            ("LOGITS_AT", post::element(&self.logits, "row", "column")),
        ];
        render(template, &values)
    }

    fn chunks(&self, caps: &Caps) -> u32 {
        self.vocab.div_ceil(threads(caps) * EACH)
    }
}

fn threads(caps: &Caps) -> u32 {
    256.min(1 << caps.workgroup_size.max(1).ilog2())
}
