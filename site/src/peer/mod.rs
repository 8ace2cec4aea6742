//! The other site: its feed is followed, what it has and this site lacks is fetched, and what it lacks is counted.

pub(crate) mod apply;
pub mod client;
pub mod cross;
pub mod exposure;
pub mod follow;
mod snapshot;

pub(crate) use apply::want_all;
pub use client::PeerClient;
