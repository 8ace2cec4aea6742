//! Stages of the byte path, for `benches/stages.rs` and nobody else.

pub use crate::md5::{Md5, Md5Lanes};
pub use crate::write::ExtentCoder;
