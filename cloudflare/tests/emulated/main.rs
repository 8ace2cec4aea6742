//! Client, witness, edge and other people's clients against the emulator.

mod api;
mod balancer;
mod common;
mod edge;
mod health;
mod official_clients;
mod tunnel;
mod witness;
