//! One file per subcommand, and what several of them share.

pub mod bench;
pub mod chat;
pub mod debug;
pub mod devices;
mod images;
pub mod inspect;
mod model;
pub mod plugin;
pub mod plugins;
pub mod pull;
pub mod quantize;
mod text;

use crate::output;
