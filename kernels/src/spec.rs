//! The words in which operations are described.

/// Where an activation lies in its buffer of f32: element `j` of head `h` of row `r` is at
/// `offset + r * row + h * head + j`. A plain [rows, dim] activation has one head.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct View {
    /// First element.
    pub offset: u32,
    /// From one row to the next.
    pub row: u32,
    /// Heads in a row.
    pub heads: u32,
    /// From one head to the next.
    pub head: u32,
    /// Elements in a head; they are adjacent.
    pub dim: u32,
}

impl View {
    /// [rows, dim] without gaps.
    pub fn rows(dim: u32) -> View {
        View { offset: 0, row: dim, heads: 1, head: dim, dim }
    }

    /// [rows, heads, dim] without gaps.
    pub fn heads(heads: u32, dim: u32) -> View {
        View { offset: 0, row: heads * dim, heads, head: dim, dim }
    }

    /// Elements in a row.
    pub fn width(&self) -> u32 {
        self.heads * self.dim
    }

    /// Whether the elements of a row are adjacent.
    pub fn is_dense(&self) -> bool {
        self.heads == 1 || self.head == self.dim
    }
}

/// An activation function, under PyTorch's names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Activation {
    /// x * sigmoid(x)
    Silu,
    /// With the error function.
    Gelu,
    /// With the tanh approximation.
    GeluTanh,
    /// max(x, 0)
    Relu,
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// tanh(x)
    Tanh,
    /// x * sigmoid(1.702 x)
    QuickGelu,
}

/// What happens to a result before it is stored, in order. `Add` and `Mul` each take one more input.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Post {
    /// v = f(v)
    Activation(Activation),
    /// v = v * c
    Scale(f32),
    /// v = v + c
    AddScalar(f32),
    /// v = min(max(v, low), high)
    Clamp(f32, f32),
    /// v = c * tanh(v / c)
    Softcap(f32),
    /// v = sqrt(v)
    Sqrt,
    /// v = v + input
    Add(View),
    /// v = v * input
    Mul(View),
}
