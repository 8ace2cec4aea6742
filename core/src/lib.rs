//! What Diptych decides: identifiers, formats, coding, placement, the lease, merge and the order of repair.
//!
//! Pure: no task runtime, file, socket, clock or random source of its own; time and randomness come in as arguments.
//! The same functions run in production, under property tests and in the model checker.

pub mod access;
pub mod checksum;
pub mod chunk;
pub mod cipher;
pub mod clock;
pub mod compaction;
pub mod drill;
pub mod durability;
pub mod edge;
pub mod erasure;
pub mod failback;
pub mod fragment;
pub mod ids;
pub mod journal;
pub mod keyring;
pub mod keys;
pub mod latency;
pub mod layout;
pub mod lease;
pub mod margin;
pub mod merge;
pub mod moving;
pub mod placement;
pub mod planner;
pub mod records;
pub mod repair;
pub mod retention;
pub mod session;
pub mod tail;
pub mod whole;
