//! The loops of a site, without Kubernetes: they watch its nodes, keep the placement map, repair what is lost, free what
//! nothing names any more, and say how things are.
//!
//! Only the keeper of a site runs them. What they decide is decided in `diptych-core`; here it is carried out.

pub mod absorb;
pub mod agents;
pub mod bootstrap;
pub mod collector;
pub mod compaction;
pub mod config;
pub mod context;
pub mod door;
pub mod drain;
pub mod drill;
pub mod edge;
pub mod error;
mod extents;
pub mod fleet;
pub mod forget;
mod history;
pub mod inventory;
pub mod journal;
pub mod keeper;
pub mod keys;
pub mod loops;
pub mod lost;
pub mod name;
pub mod nodes;
pub mod notify;
pub mod outside;
pub mod peer;
pub mod place;
pub mod rejoin;
pub mod repair;
pub mod resurrect;
mod sessions;
pub mod status;
pub mod survey;
pub mod switch;
#[cfg(test)]
mod testing;
pub mod verified;
pub mod witness;
