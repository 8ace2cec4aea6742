//! The lease, model-checked: two sites, one witness, a network that loses, delays and doubles, and the very
//! `diptych_core::lease::Lease::step` that runs in production. docs/lease.md states the protocol and what must hold.
//!
//! Time is a tick of the whole world. A holder counts the longest, a voter the shortest that any clock within the drift
//! may count, so both margins are in the lengths of the timers; a mutation that takes a margin out changes a length.
//! Intervals between messages are zero: whenever a site is polled, whatever it might do is due.
//!
//! The catalog answers within the step, unless a configuration says otherwise; a swap may be applied and be learned of at
//! any later time, or never. What a site could know at once it is told at once (the peer's vote, the witness's record and
//! its age): the most permissive observer there can be. That the peer "may hold" is never told, since no guard may rest
//! on it.

pub mod check;
mod configurations;
mod data;
mod properties;
mod shell;
mod state;
mod tidy;
mod transitions;

pub use check::{Outcome, check};
pub use configurations::{Bounds, Mutation, named};
pub use state::World;
pub use transitions::{Action, LeaseModel};
