//! What several integration tests share.

pub mod canonical;
pub mod gpu;
pub mod step;
