//! The outside witness: a process in neither site that keeps one record with compare-and-set, and no data.

mod client;
mod record;
mod server;

pub use client::OutsideWitness;
pub use server::{WitnessOptions, serve};
