//! The catalog: what is true about every key of a site, with a gate that lets in commits of one epoch only.
//!
//! [`Catalog`] is the contract; `redb` is the engine for one process, etcd the one for clusters. Both pass one suite (`tests/engines/conformance`).

mod around;
mod batch;
mod blobs;
mod disk;
mod engine;
mod etcd;
mod feed;
mod limits;
mod mirror;
mod redb;
mod view;

pub use around::Around;
pub use batch::{Batch, Change, Committed, Expect, Guard, Outcome, Write};
pub use blobs::{blobs_of, dead_marks, is_whole, lifted_marks};
pub use engine::{Catalog, CatalogError, Room};
pub use etcd::{EtcdCatalog, EtcdOptions, EtcdTls};
pub use feed::{Feed, FeedEntry, FeedStart};
pub use limits::{Footprint, Limits};
pub use mirror::{Mirror, Mirrored, is_mirrored};
pub use redb::{RedbCatalog, RedbOptions};
pub use view::{Page, View};
