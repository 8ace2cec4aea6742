//! Repair and collection with real agents and a real catalog.

#[path = "../../../node-agent/tests/support/mod.rs"]
mod support;

mod coding;
mod collecting;
mod compacting;
mod filling;
mod finding;
mod forgetting;
mod harness;
mod journaling;
mod keys;
mod losing;
mod moving;
mod outside;
mod repairing;
mod resurrecting;
mod sessions;
mod shared;
mod verifying;
mod versions;
