//! What the two sites say to each other over the peer link: paths and bodies. HTTP over mTLS; bodies are postcard.
//!
//! | request | answer |
//! |---|---|
//! | `GET /peer/v1/feed?incarnation=I&revision=R` | a stream of [`FeedFrame`]s, each behind its length (u32, little-endian), or 410 [`Compacted`] |
//! | `POST /peer/v1/snapshot` [`SnapshotPage`] | [`SnapshotReply`] |
//! | `GET /peer/v1/extents/<id>` with `Range` | the extent's ciphertext |
//! | `POST /peer/v1/rows` [`RowsWanted`] | `Vec<Result<Vec<u8>, String>>`: by range its bytes, or why they do not read |
//! | `POST /peer/v1/lease` a `lease::Message` | 204; answers come as messages of their own |
//! | `POST /peer/v1/read` `Vec<Key>` | `Vec<Option<Vec<u8>>>`, at one position |
//! | `POST /peer/v1/unseen` [`UnseenTerm`] | `u64`: how many of its versions were taken in |
//! | `POST /peer/v1/join` [`JoinQuestion`], with the certificate of a join token | [`Foundation`], or 410: the token is spent |
//! | `POST /peer/v1/join-outside` [`OutsideQuestion`], with the certificate of an outside node's token | [`OutsideAnswer`], or 410: the token is spent |
//! | `POST /peer/v1/renew-outside` [`OutsideQuestion`], with the certificate of an outside agent | [`OutsideAnswer`], or 410: the node needs a new token |
//! | `GET /peer/v1/status` | the site's status as its keeper wrote it last, JSON |
//! | `POST /peer/v1/drill` [`DrillOrder`] | [`DrillAnswer`]; the one path that a site which is cut off still answers |
//! | anything with `x-diptych-forward: s3` or `rest` | what that front of the active site answers |

use diptych_core::drill::Exposed;
use diptych_core::ids::{ClusterId, DeviceId, Epoch, ExtentId, NodeName, Row, SiteName};
use diptych_core::keys::Key;
use diptych_core::lease::Millis;
use diptych_core::records::Position;
use serde::{Deserialize, Serialize};

/// Path of the feed.
pub const FEED: &str = "/peer/v1/feed";
/// Path of the snapshot.
pub const SNAPSHOT: &str = "/peer/v1/snapshot";
/// Path below which extents are.
pub const EXTENTS: &str = "/peer/v1/extents";
/// Path of reads of single rows, from the answering site's own devices only.
pub const ROWS: &str = "/peer/v1/rows";
/// Path of lease messages.
pub const LEASE: &str = "/peer/v1/lease";
/// Path of reads by key.
pub const READ: &str = "/peer/v1/read";
/// Path of unseen terms.
pub const UNSEEN: &str = "/peer/v1/unseen";
/// Path of the join of a site.
pub const JOIN: &str = "/peer/v1/join";
/// Path of the join of an outside node.
pub const JOIN_OUTSIDE: &str = "/peer/v1/join-outside";
/// Path of the renewal of an outside agent's certificate.
pub const RENEW_OUTSIDE: &str = "/peer/v1/renew-outside";
/// Path of the site's status.
pub const STATUS: &str = "/peer/v1/status";
/// Path of what the keeper that runs a drill asks of the other site.
pub const DRILL: &str = "/peer/v1/drill";
/// Names the front that a forwarded request is for.
pub const FORWARD: &str = "x-diptych-forward";

/// Bytes of all ranges of one [`RowsWanted`].
pub const MAX_ROWS_BYTES: u64 = 16 << 20;

/// Longest frame of a feed: a commit and its head.
pub const MAX_FEED_FRAME: usize = 16 << 20;

/// Under which term the sender's role-owned changes are to be taken: the newest that it knows, where that is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermLabel {
    /// The term.
    pub epoch: Epoch,
    /// The sender's gate is open, or sealed, at it: it is active. If not, what it committed before still counts.
    pub open: bool,
    /// Q: in the sender's feed; what stands before it is of earlier terms, and only site-owned keys are taken from it.
    pub begun_at: Position,
}

/// A piece of a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedFrame {
    /// From here on; None: the newest term is not the sender's, and its role-owned changes are not to be taken.
    Term(Option<TermLabel>),
    /// A commit.
    Entry {
        /// Of the commit.
        position: Position,
        /// Keys with their new values; None: deleted.
        changes: Vec<(Key, Option<Vec<u8>>)>,
    },
    /// Nothing new: all up to here was sent.
    Beat {
        /// The newest position.
        position: Position,
    },
}

/// A site asks to become one of the cluster's. Which token it has stands in its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinQuestion {
    /// Who spends the token: the same one may ask again, nobody else.
    pub spender: String,
}

/// What a site that joins is built on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foundation {
    /// The installation.
    pub cluster: ClusterId,
    /// Certificate of its authority, PEM.
    pub authority: String,
    /// What is secret of it, sealed by the cluster key: the token alone opens nothing.
    pub sealed: Vec<u8>,
}

/// An outside node asks to become one of the cluster's, or to stay one. Which token it has, or which node it is, stands in its
/// certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideQuestion {
    /// Signing request, PEM. Only its key counts; whoever has that key may ask again.
    pub csr: String,
}

/// What an outside node runs with. The private key is its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideAnswer {
    /// The installation.
    pub cluster: ClusterId,
    /// Its name.
    pub node: NodeName,
    /// Certificate and the authority's, PEM.
    pub chain: String,
    /// Its devices: their numbers, and where the node has them.
    pub devices: Vec<(DeviceId, String)>,
}

/// The feed can't begin there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compacted {
    /// Oldest position from which it can.
    pub oldest: Position,
}

/// A range of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowSpan {
    /// Which row; one of those that were made for the answering site.
    pub row: Row,
    /// First byte of it.
    pub offset: u32,
    /// Bytes; exactly so many come.
    pub len: u32,
}

/// Asks for ranges of an extent's rows: together with the asking site's they may be enough to decode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsWanted {
    /// The extent.
    pub extent: ExtentId,
    /// At most [`MAX_ROWS_BYTES`] in all.
    pub spans: Vec<RowSpan>,
}

/// Asks for a page of all keys that a follower takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPage {
    /// The first key that is wanted; None: the first of all.
    pub from: Option<Key>,
}

/// A page of a snapshot. Pages are of one position each, and the feed is followed from that of the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReply {
    /// Position of this page.
    pub position: Position,
    /// As for the feed.
    pub term: Option<TermLabel>,
    /// In order.
    pub entries: Vec<(Key, Vec<u8>)>,
    /// Where to go on; None: it was the last.
    pub next: Option<Key>,
}

/// What a returning site committed after P, of one key each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnseenTerm {
    /// The returning site.
    pub site: SiteName,
    /// Its epoch.
    pub epoch: Epoch,
    /// `h/` and `v/` records of the versions, with their keys, oldest first; `x/` records that they name come before them.
    pub versions: Vec<(Key, Vec<u8>)>,
}

/// What the keeper that runs a drill asks of the other site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrillOrder {
    /// How it stands.
    Look,
    /// Be cut off for so long: serve nothing, say nothing, hear nothing but these orders, and come back by itself.
    CutOff {
        /// For how long.
        length: Millis,
    },
    /// Come back now.
    Restore,
    /// Hand the lease over.
    HandOver,
    /// Give a handover up that has not moved the vote yet.
    CancelHandOver,
    /// Try to commit something that means nothing under an epoch that is over.
    TryStaleWrite {
        /// The epoch.
        epoch: Epoch,
    },
}

/// What the other site says to a [`DrillOrder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrillAnswer {
    /// To `Look`.
    Standing(DrillStanding),
    /// It was done, or begun.
    Done,
    /// To `TryStaleWrite`.
    StaleWrite {
        /// It was refused, as it must be.
        refused: bool,
    },
    /// It was not done, and why.
    Refused(String),
}

/// How a site stands, for the other one's drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillStanding {
    /// The epoch under which it takes writes.
    pub serves: Option<Epoch>,
    /// It is cut off by a drill.
    pub cut_off: bool,
    /// What lies in it only, while it is active; None: it is not known.
    pub exposed: Option<Exposed>,
    /// Extents that wait for repair in it.
    pub repairs: u64,
    /// The drill that it runs itself; None: it runs none.
    pub drill: Option<String>,
}
