//! What several integration tests share.

pub mod gpu;
pub mod model;
pub mod plugins;
