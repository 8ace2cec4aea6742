//! Proof, from outside: `diptych dev` as it was built, and programs that look at it or use it and know nothing of it.

#![expect(clippy::print_stdout, reason = "what was seen is told, for the evidence")]

mod bad_input;
mod balancer;
mod bucket_devices;
mod clients;
mod compacting;
mod domains;
mod drain;
mod drills;
mod durability;
mod edge;
mod failback;
mod failover;
mod history;
mod keys;
mod kills;
mod leases;
mod losing;
mod namespaces;
mod object_store;
mod outside;
mod promises;
mod resurrect;
mod sessions;
mod trace;
