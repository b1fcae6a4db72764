//! All that a plugin sees.
#![allow(missing_docs)]

#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    Silu,
    Gelu,
    GeluTanh,
    Relu,
    Sigmoid,
    Tanh,
}
