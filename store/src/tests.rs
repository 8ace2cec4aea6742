//! Tests of whole devices, most of them on the simulated disk.

mod basics;
mod bucket;
mod cached;
mod compaction;
mod contract;
mod copies;
mod crashes;
mod faults;
mod inspected;
mod model;
mod support;
