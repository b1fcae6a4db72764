//! Reading memory and little else: what a device can do at best.

use crate::template::{Bindings, consts, render};
use crate::{Caps, Extent, Kernel};

/// Loads of one thread that are in flight together.
const UNROLL: u32 = 8;
/// Times that a thread has so many.
const ROUNDS: u32 = 4;

/// A vector that the exclusive or of all that a thread reads never is, as long as the host does not
/// write it. No compiler knows that: a thread would store it, and so every load has to happen.
pub const UNSEEN: [u32; 4] = [0x7f4a_7c15, 0x9e37_79b9, 0x2545_f491, 0x4f6c_dd1d];

/// Reads `bytes` bytes, rounded down to [`block`]s.
///
/// Bindings: 0 the step, which is not looked at; what is read; 16 bytes for [`UNSEEN`].
pub fn read(bytes: u64, caps: &Caps) -> Kernel {
    let groups = (bytes / block(caps)).min(65_535) as u32;
    let mut bindings = Bindings::step();
    bindings.read("input", "vec4<u32>");
    bindings.write("out", "vec4<u32>");
    let sizes = [("THREADS", threads(caps)), ("STRIDE", groups * threads(caps)), ("ROUNDS", ROUNDS)];
    let values = [
        ("BINDINGS", bindings.declarations()),
        ("SIZES", consts(&sizes)),
        ("UNROLL", UNROLL.to_string()),
        ("UNSEEN", UNSEEN.map(|word| format!("{word}u")).join(", ")),
    ];
    let source = render(include_str!("../wgsl/bandwidth.wgsl"), &values);
    let name = format!("read {} MiB", (u64::from(groups) * block(caps)) >> 20);
    bindings.kernel(name, source, [Extent::Const(groups), Extent::Const(1), Extent::Const(1)])
}

/// Bytes that one workgroup of [`read`] reads.
pub fn block(caps: &Caps) -> u64 {
    u64::from(16 * threads(caps) * UNROLL * ROUNDS)
}

fn threads(caps: &Caps) -> u32 {
    256.min(caps.workgroup_size)
}
