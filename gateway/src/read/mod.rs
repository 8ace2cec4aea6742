//! From a head back to plaintext: pieces, chunks, rows; other rows where some are missing, slow or wrong.

mod chunks;
mod extent;
mod lent;
mod rows;
mod stream;
mod trouble;

pub(crate) use chunks::{Places, PlannedChunk, plan_chunks, read_sealed};
pub(crate) use extent::ExtentPlace;
pub(crate) use rows::RangeReader;
pub use stream::Download as BodyStream;
pub(crate) use stream::{open_stream, read_alone};
