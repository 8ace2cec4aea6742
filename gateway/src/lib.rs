//! S3 and REST in front of one object layer: bodies are sealed in chunks, coded into rows, placed on the site's agents,
//! committed in its catalog, and read back from whichever rows answer.

pub mod agents;
pub mod authority;
pub mod body;
pub mod cipher;
pub mod clock;
mod commit;
pub mod context;
pub mod digests;
pub mod error;
pub mod metrics;
pub mod objects;
mod read;
mod write;
