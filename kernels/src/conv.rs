//! Causal convolutions of each channel over the rows of its sequence.

use crate::common::step_functions;
use crate::template::{Bindings, consts, render};
use crate::{Caps, Extent, Kernel, Post, View, post};

/// A depthwise causal convolution. What a row needs of earlier steps it finds in the cache, in which it leaves its
/// own input: pairs of f16 as [`crate::prepare::Prepare`] lays them out, one key of `channels` elements, rounded up
/// to pairs, and no value.
///
/// Bindings: step, the inputs, the weight (f32 \[channels, kernel\]), the bias if there is one, what `post` takes,
/// the cache, out.
#[derive(Clone, PartialEq, Debug)]
pub struct Conv {
    /// One input, or two whose product is convolved: as wide as `out`.
    pub inputs: Vec<View>,
    /// How many rows a row sees, itself included.
    pub kernel: u32,
    /// Whether a bias of \[channels\] is added.
    pub bias: bool,
    /// What happens before the store.
    pub post: Vec<Post>,
    /// Output.
    pub out: View,
}

impl Conv {
    /// One thread for each row and pair of channels.
    pub fn kernel(&self, caps: &Caps) -> Kernel {
        let channels = self.out.width();
        let pairs = channels.div_ceil(2);
        let threads = 64.min(caps.workgroup_size);
        let mut bindings = Bindings::step();
        (0..self.inputs.len()).for_each(|i| bindings.read(&format!("input{i}"), "f32"));
        bindings.read("weight", "f32");
        if self.bias {
            bindings.read("bias", "f32");
        }
        post::bind(&self.post, &mut bindings);
        bindings.write("cache", "u32");
        bindings.write("out", "f32");
        let factor = |(i, view): (usize, &View)| format!("input{i}[{}]", post::element(view, "row", "channel"));
        let input = self.inputs.iter().enumerate().map(factor).collect::<Vec<_>>().join(" * ");
        let sizes = [("THREADS", threads), ("CHANNELS", channels), ("PAIRS", pairs), ("TAPS", self.kernel)];
        let values = [
            ("BINDINGS", bindings.declarations()),
            ("STEP", consts(&sizes) + &step_functions()),
            ("FUNCTIONS", post::FUNCTIONS.to_string()),
            ("INPUT", input),
            ("BIAS", if self.bias { "bias[channel]" } else { "0.0" }.to_string()),
            ("POST", post::lines(&self.post, "row", "channel")),
            ("OUT_AT", post::element(&self.out, "row", "channel")),
        ];
        let name = format!("conv {channels}x{}", self.kernel);
        let source = render(include_str!("../wgsl/conv.wgsl"), &values);
        bindings.kernel(name, source, [Extent::Const(pairs.div_ceil(threads)), Extent::Rows(1), Extent::Const(1)])
    }
}
