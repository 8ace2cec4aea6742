//! Client, witness, edge and other people's clients against the emulator.

mod api;
mod common;
mod edge;
mod health;
mod official_clients;
mod witness;
