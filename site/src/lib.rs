//! The loops of a site, without Kubernetes: they watch its nodes, keep the placement map, repair what is lost, free what
//! nothing names any more, and say how things are.
//!
//! Only the keeper of a site runs them. What they decide is decided in `diptych-core`; here it is carried out.

pub mod absorb;
pub mod agents;
pub mod bootstrap;
pub mod collector;
pub mod config;
pub mod context;
pub mod door;
pub mod error;
pub mod fleet;
pub mod inventory;
pub mod keeper;
pub mod loops;
pub mod name;
pub mod nodes;
pub mod peer;
pub mod rejoin;
pub mod repair;
pub mod status;
pub mod survey;
#[cfg(test)]
mod testing;
pub mod witness;
