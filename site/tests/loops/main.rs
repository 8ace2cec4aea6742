//! Repair and collection with real agents and a real catalog.

#[path = "../../../node-agent/tests/support/mod.rs"]
mod support;

mod collecting;
mod harness;
mod repairing;
