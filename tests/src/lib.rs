//! What several integration tests share.

pub mod gpu;
pub mod models;
