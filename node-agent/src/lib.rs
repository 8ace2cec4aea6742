//! The node-agent: keeps rows of extents on the devices of its node, and answers gateways and operators of its cluster.
//!
//! It decides nothing about placement or repair; it does what it is told by whoever has the newest stamp, and answers
//! only what is durable.

mod agent;
mod authorize;
pub mod bucket;
mod commands;
mod cross;
mod device;
mod fence;
mod handler;
mod health;
mod lending;
mod metrics;
mod options;
mod pace;
mod rebuild;
mod rows;
mod scrub;
mod siblings;
mod start;
mod streams;
mod target;

pub use options::{AgentOptions, DeviceOption, ScrubOptions};
pub use start::{RunningAgent, StartError, run, start};
