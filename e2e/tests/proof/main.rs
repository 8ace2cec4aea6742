//! Proof, from outside: `diptych dev` as it was built, and programs that look at it or use it and know nothing of it.

mod bad_input;
mod clients;
mod durability;
mod failover;
mod namespaces;
mod trace;
