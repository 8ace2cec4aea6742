//! The state machine driven by two simulated sites, a witness and a network that does its worst, in virtual time.

mod approval;
mod faults;
mod scenarios;
mod sim;
mod witness;
