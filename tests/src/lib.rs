//! What several integration tests share.

pub mod allocations;
pub mod apart;
pub mod canonical;
pub mod cpu;
pub mod files;
pub mod gpu;
pub mod model;
pub mod models;
pub mod plugins;
pub mod rounded;
pub mod step;
pub mod synthetic;
pub mod tiny;
pub mod tls;
pub mod zoo;
