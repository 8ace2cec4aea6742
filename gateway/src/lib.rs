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
pub mod extents;
mod gateway;
mod hold;
mod latency;
mod linger;
mod loans;
mod md5;
pub mod metrics;
pub mod objects;
mod read;
mod recent;
pub mod rest;
mod s3;
mod server;
mod sessions;
#[doc(hidden)]
pub mod stages;
mod write;

pub use context::{Context, Dependencies, Limits, PeerConfirmation, PeerRows};
pub use gateway::{Gateway, GatewayOptions, StartError};
pub use hold::HeldWrites;
pub use read::BodyStream;
pub use server::{Forwarder, Front, Routed};
