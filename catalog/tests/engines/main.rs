//! Every engine of the catalog: the one suite, and what is its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod conformance;
mod etcd;
mod redb;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Write};
use diptych_core::ids::SiteName;
use diptych_core::keys;

fn east() -> SiteName {
    "east".parse().expect("a name")
}

fn put(name: &str, value: &str) -> Batch {
    let write = Write::Put(keys::bucket(name), Bytes::copy_from_slice(value.as_bytes()));
    Batch::one(None, Change::blind(vec![write]))
}
