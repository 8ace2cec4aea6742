//! Places for the third vote: one record with compare-and-set, and no data. The outside witness is a process in neither site,
//! the other an object in a bucket.

mod client;
mod object_store;
mod record;
mod server;

pub use client::OutsideWitness;
pub use object_store::{ObjectStoreConfig, ObjectStoreWitness};
pub use server::{WitnessOptions, serve};
