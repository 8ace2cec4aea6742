//! From plaintext to durable extents: seal, code, place, and enter into the catalog.

mod batch;
mod coder;
mod gathering;
mod refusals;
mod rows;
mod sealing;
mod sequence;
mod tail;
mod written;

pub(crate) use batch::Batches;
pub use coder::ExtentCoder;
pub(crate) use sealing::{Chunk, INLINE, Prepared, SMALL_BODY, on_cpu, prepare_small, write_body};
pub(crate) use sequence::ExtentSequence;
pub(crate) use tail::Description;
pub(crate) use written::{Written, WrittenExtent};
