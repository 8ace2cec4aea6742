//! The program `diptych`: one binary, many names. Everything here puts the other crates together; no decision is made here.

pub mod bucket;
pub mod client;
pub mod command;
pub mod dev;
pub mod files;
pub mod folders;
pub mod kubectl;
pub mod process;
