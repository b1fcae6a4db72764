//! What every kernel is described by.

/// A compute shader that is ready to compile, and how to launch it. Entry point: `main`, group 0.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Kernel {
    /// A short name for labels, profiles and errors, such as `matvec affine4 g32 6144x4096`.
    pub name: String,
    /// WGSL.
    pub source: String,
    /// How each binding is used; the index is the binding's number. Binding 0 is always the step
    /// buffer ([`crate::step`]).
    pub bindings: Vec<Access>,
    /// Workgroups along x, y and z.
    pub grid: [Extent; 3],
}

/// How a kernel uses a storage buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// How many workgroups a kernel takes along one axis.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Extent {
    /// Always this many.
    Const(u32),
    /// One per so many rows of this step, rounded up.
    Rows(u32),
    /// One per so many choices of experts, of which every row of this step has `each`, rounded up; and `more`, or as
    /// many as there are choices if those are fewer.
    Choices {
        /// Experts of a row.
        each: u32,
        /// Choices that share a workgroup.
        per: u32,
        /// How many more.
        more: u32,
    },
    /// One per part into which this step splits its longest sequence's keys.
    Splits,
}

impl Kernel {
    /// The workgroups of one dispatch over `rows` rows in a step whose attention has `splits` parts.
    pub fn groups(&self, rows: u32, splits: u32) -> [u32; 3] {
        self.grid.map(|e| match e {
            Extent::Const(n) => n,
            Extent::Rows(per) => rows.div_ceil(per),
            Extent::Choices { each, per, more } => (rows * each).div_ceil(per) + more.min(rows * each),
            Extent::Splits => splits,
        })
    }
}

/// What the device at hand can do; variants are chosen by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Caps {
    /// The smallest and largest subgroup that a kernel may find itself in; `None` without subgroup
    /// operations.
    pub subgroups: Option<(u32, u32)>,
    /// Whether WGSL's `f16` type can be used.
    pub f16: bool,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Invocations in one workgroup.
    pub workgroup_size: u32,
    /// Bytes in one storage binding.
    pub binding_size: u64,
}
