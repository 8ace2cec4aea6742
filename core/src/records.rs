//! Values of the catalog (docs/design.md, Tables): a format byte, then the record in postcard.
//!
//! A field is only ever added behind a new format byte; a reader refuses a byte that it does not know.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::checksum::{ChecksumAlgorithm, UploadChecksum};
use crate::compaction::Recipe;
use crate::ids::{
    BlobId, BucketId, ClusterId, DeviceId, Epoch, ExtentId, Generation, Hlc, InstanceId, KeeperNumber,
    NodeName, RingKeyNumber, Row, SiteName, UploadId, VersionId,
};
use crate::keyring::KeyId;
use crate::placement::NodeShare;
use crate::retention::RetainUntil;

/// A value that does not read as the record that its key promises.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Written by another version of Diptych.
    #[error(
        "{record} has format {found}, this version reads {known}: upgrade this site before the other writes"
    )]
    UnknownFormat {
        /// Name of the record's type.
        record: &'static str,
        /// Its format byte.
        found: u8,
        /// The newest that is known.
        known: u8,
    },
    /// Empty, cut or damaged.
    #[error("{record} can't be read: {reason}")]
    Malformed {
        /// Name of the record's type.
        record: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

/// A value of the catalog.
pub trait Record: Serialize + DeserializeOwned {
    /// What errors call it.
    const NAME: &'static str;

    /// Format byte of what is written.
    const FORMAT: u8 = 1;

    /// The bytes that are stored.
    fn encode(&self) -> Vec<u8> {
        let start = vec![Self::FORMAT];
        postcard::to_extend(self, start).unwrap_or_default()
    }

    /// Reads what `encode` made, of this version or an older one.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let malformed = |reason: String| RecordError::Malformed { record: Self::NAME, reason };
        match bytes.split_first() {
            None => Err(malformed("it is empty".to_owned())),
            Some((&found, rest)) if found == Self::FORMAT => {
                postcard::from_bytes(rest).map_err(|error| malformed(error.to_string()))
            }
            Some((&found, rest)) if (1..Self::FORMAT).contains(&found) => {
                Self::decode_older(found, rest).map_err(|error| malformed(error.to_string()))
            }
            Some((&found, _)) => {
                Err(RecordError::UnknownFormat { record: Self::NAME, found, known: Self::FORMAT })
            }
        }
    }

    /// Reads the record as a format before [`Record::FORMAT`] had it, without its format byte.
    fn decode_older(_: u8, rest: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(rest)
    }
}

macro_rules! record {
    ($($name:ident),*) => {
        $(impl Record for $name {
            const NAME: &'static str = stringify!($name);
        })*
    };
}

record!(
    AccessKey,
    Cluster,
    CodingPlan,
    Cursor,
    DeadMark,
    Device,
    Drain,
    SiteKeys,
    Gate,
    KeeperBeat,
    KeeperLease,
    LastHeard,
    Part,
    Placement,
    ReferencePage,
    Term,
    TokenFamily,
    Vote,
    Wanted
);

/// The second format is that of an extent that compaction is filling: a release that knows no recipes refuses it by name.
impl Record for Extent {
    const NAME: &'static str = "Extent";
    const FORMAT: u8 = 2;

    fn encode(&self) -> Vec<u8> {
        let format = if matches!(self.state, ExtentState::Compacting(_)) { Self::FORMAT } else { 1 };
        postcard::to_extend(self, vec![format]).unwrap_or_default()
    }
}

/// What the second format has of a version before the rest: whether it is kept, and when it was tagged.
type SaidOfVersion = (Kept, Option<(Epoch, Hlc)>);

/// The first format has what a version in a bucket without versioning says; with the second one that it says more comes first, and with
/// the third one that it is retained, too: a release that would delete it all the same refuses it by name.
impl Record for Head {
    const NAME: &'static str = "Head";
    const FORMAT: u8 = RETAINED;

    fn encode(&self) -> Vec<u8> {
        let more = (self.kept, self.tagged);
        match self.retained_until {
            None => encode_more(&more, self),
            Some(until) => {
                let start = postcard::to_extend(&(more, until), vec![RETAINED]).unwrap_or_default();
                postcard::to_extend(self, start).unwrap_or_default()
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let Some((&RETAINED, rest)) = bytes.split_first() else {
            let ((kept, tagged), head) = decode_more::<SaidOfVersion, Self>(bytes)?;
            return Ok(Self { kept, tagged, ..head });
        };
        let malformed =
            |error: postcard::Error| RecordError::Malformed { record: Self::NAME, reason: error.to_string() };
        let (((kept, tagged), until), rest) =
            postcard::take_from_bytes::<(SaidOfVersion, RetainUntil)>(rest).map_err(malformed)?;
        let head: Self = postcard::from_bytes(rest).map_err(malformed)?;
        Ok(Self { kept, tagged, retained_until: Some(until), ..head })
    }
}

/// Likewise: the second format has until when the object is to be retained first.
impl Record for Upload {
    const NAME: &'static str = "Upload";
    const FORMAT: u8 = MORE;

    fn encode(&self) -> Vec<u8> {
        encode_more(&self.retain_until, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (retain_until, upload) = decode_more::<_, Self>(bytes)?;
        Ok(Self { retain_until, ..upload })
    }
}

/// Likewise: the second format has a domain and weights first.
impl Record for OutsideNode {
    const NAME: &'static str = "OutsideNode";
    const FORMAT: u8 = MORE;

    fn encode(&self) -> Vec<u8> {
        encode_more(&self.share, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (share, node) = decode_more::<_, Self>(bytes)?;
        Ok(Self { share, ..node })
    }
}

/// Likewise: the second format has what the bucket promises of its own first.
impl Record for Bucket {
    const NAME: &'static str = "Bucket";
    const FORMAT: u8 = MORE;

    fn encode(&self) -> Vec<u8> {
        encode_more(&self.promise, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (promise, bucket) = decode_more::<_, Self>(bytes)?;
        Ok(Self { promise, ..bucket })
    }
}

/// Format byte of a record of which more is said than the first format could.
pub(crate) const MORE: u8 = 2;

/// Format byte of a version that is retained.
const RETAINED: u8 = 3;

/// The first format where no more is said, so that an older version reads it; else what is more, and then the same bytes.
pub(crate) fn encode_more<More: Serialize + Default + PartialEq>(
    more: &More,
    record: &impl Serialize,
) -> Vec<u8> {
    let start = if *more == More::default() {
        vec![1]
    } else {
        postcard::to_extend(more, vec![MORE]).unwrap_or_default()
    };
    postcard::to_extend(record, start).unwrap_or_default()
}

/// Reads what `encode_more` made: what is more, and the record without it.
pub(crate) fn decode_more<More: DeserializeOwned + Default, Of: Record>(
    bytes: &[u8],
) -> Result<(More, Of), RecordError> {
    let malformed = |reason: String| RecordError::Malformed { record: Of::NAME, reason };
    let more = match bytes.split_first() {
        None => return Err(malformed("it is empty".to_owned())),
        Some((&1, rest)) => Ok((More::default(), rest)),
        Some((&MORE, rest)) => postcard::take_from_bytes(rest),
        Some((&found, _)) => {
            return Err(RecordError::UnknownFormat { record: Of::NAME, found, known: Of::FORMAT });
        }
    };
    let (more, rest) = more.map_err(|error| malformed(error.to_string()))?;
    let record = postcard::from_bytes(rest).map_err(|error| malformed(error.to_string()))?;
    Ok((more, record))
}

// ---- a site and its terms ----

/// `s/site/<site>/vote`: the newest epoch that this site knows, and for whom it voted in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vote {
    /// Never falls.
    pub epoch: Epoch,
    /// None before the first term.
    pub backs: Option<SiteName>,
}

/// `s/site/<site>/gate`: whether commits of the active site are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Gate {
    /// No commits.
    Closed,
    /// Commits of this epoch.
    Open(Epoch),
    /// A planned handover is under way: no commits, and the epoch has not been given up yet.
    Sealed(Epoch),
}

/// `s/site/<site>/keeper`: the one process that speaks for a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperLease {
    /// Grows with each election.
    pub number: KeeperNumber,
    /// Where the process is reached: `host:port` of its door, or a name where gateway and keeper are one process.
    pub holder: String,
}

/// `s/site/<site>/beat`: apart from the keeper's record, so that a beat never disturbs a transaction that compares that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperBeat {
    /// Of the keeper that beats.
    pub number: KeeperNumber,
    /// Counted up while it lives; who waits sees it stand still.
    pub beat: u64,
}

/// `s/site/<site>/heard`: what the keeper of a passive site has heard of the active one, for the keeper that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastHeard {
    /// Who wrote it down.
    pub keeper: KeeperNumber,
    /// In which the other site was active.
    pub term: Epoch,
    /// All of its feed up to here was applied.
    pub position: Position,
    /// When something of it came last, or a little before: milliseconds since 1970.
    pub at_ms: u64,
    /// From then to the last renewal by the other site that was seen at the witness, in milliseconds.
    pub went_on_ms: u64,
}

/// Place in a catalog's feed. A restored catalog is a new incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    /// Random, made with the catalog.
    pub incarnation: u64,
    /// Number of the last commit that is contained.
    pub revision: u64,
}

/// `s/term/<epoch>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// The active site.
    pub holder: SiteName,
    /// P: position of the other site's feed up to which it was followed.
    pub taken_over_at: Option<Position>,
    /// Q: position of its own feed at which the term begins; of terms that one site has in a row, where the first began.
    pub begun_at: Position,
    /// Milliseconds since 1970 by the holder's clock.
    pub begun_ms: u64,
}

/// `s/cursor/<site>`: how far a site has followed the other's feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// All up to it is in this catalog.
    pub applied: Position,
    /// All up to it is in this catalog, and every extent of objects' bytes of it whole here (or listed as unrecoverable).
    pub confirmed: Position,
}

/// `s/cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Made by the preferred site, handed over at the join.
    pub id: ClusterId,
    /// Certificate of the cluster's own authority, PEM.
    pub authority: String,
    /// Its private key, sealed by a ring key.
    pub sealed_authority_key: Vec<u8>,
}

/// `s/plan/<n>`: the coding in force, by site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodingPlan {
    /// Rows that are needed to decode.
    pub needed: u8,
    /// Rows that each site holds; the preferred site comes first.
    pub rows: Vec<(SiteName, u8)>,
}

impl CodingPlan {
    /// First row and number of rows by site: the writer's site takes 0…f−1, the others the next.
    pub fn rows_by_site(&self, writer: &SiteName) -> Vec<(SiteName, Row, u8)> {
        let own = self.rows.iter().filter(|(site, _)| site == writer);
        let others = self.rows.iter().filter(|(site, _)| site != writer);
        let mut next = 0;
        let numbered = own.chain(others).map(|(site, rows)| {
            let first = next;
            next += rows;
            (site.clone(), Row(first), *rows)
        });
        numbered.collect()
    }

    /// The rows that the writer's own site takes; none if it is not in the plan.
    pub fn own_rows(&self, writer: &SiteName) -> Vec<Row> {
        let own = self.rows.iter().find(|(site, _)| site == writer);
        own.map_or_else(Vec::new, |(_, rows)| (0..*rows).map(Row).collect())
    }
}

/// `s/dev/<site>/<device>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The node it is in.
    pub node: NodeName,
    /// Where the node has it.
    pub path: String,
    /// Grows when the device comes back empty.
    pub generation: Generation,
    /// As its operator sees it.
    pub state: DeviceState,
    /// Bytes it can hold.
    pub capacity: u64,
    /// Bytes it holds.
    pub used: u64,
}

/// Whether rows may lie on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceState {
    /// Reads and writes.
    Live,
    /// Reads; its rows are moved away.
    Draining,
    /// Gone; its rows are rebuilt elsewhere.
    Dead,
}

/// `s/drain/<site>/<node>`: a person wants a node, or some of its devices, emptied; gone when they are wanted again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Drain {
    /// These of its devices; none: all of them, and the node takes no rows.
    pub devices: Vec<DeviceId>,
}

/// `s/keys/<site>`: which cluster keys a site is given, and where in it the keyring was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteKeys {
    /// Ids of the cluster keys, the newest first.
    pub held: Vec<KeyId>,
    /// Of the keyring that was read back.
    pub generation: Generation,
    /// The cluster key that wraps it.
    pub wrapped_by: KeyId,
    /// Devices and nodes where it was not read back; what is dead is left out.
    pub missing: Vec<String>,
    /// Checkpoint and journals hold it; the active site alone writes these.
    pub journaled: bool,
}

/// `s/outside/<node>`: a node in neither site, as it is declared, and who joined as it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideNode {
    /// `host:port` of its agent.
    pub address: String,
    /// Its devices: their numbers outside, and where the node has them.
    pub devices: Vec<(DeviceId, String)>,
    /// The site whose operator declares it; that one takes it away too.
    pub declared_by: SiteName,
    /// Name of the token that lets it join.
    pub token: String,
    /// SHA-256 of the public key that spent the token; None: it was not spent.
    pub spent_by: Option<[u8; 32]>,
    /// Its domain and weights.
    #[serde(skip)]
    pub share: NodeShare,
}

// ---- who may ----

/// `a/<access key>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    /// Namespace whose buckets it reaches.
    pub namespace: String,
    /// The secret, sealed by `ring_key`.
    pub sealed_secret: Vec<u8>,
    /// Key that sealed it.
    pub ring_key: RingKeyNumber,
    /// Only reads are allowed.
    pub read_only: bool,
}

/// `t/<family>`: a session of REST (`session`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFamily {
    /// SHA-256 of the one refresh token that is good.
    pub refresh_hash: [u8; 32],
    /// Milliseconds since 1970 when the last of its tokens runs out.
    pub ends_ms: u64,
    /// None of its tokens is good any more.
    pub revoked: bool,
    /// Of the user that it is (`session::user_hash`); None: it was begun with a configured token.
    pub user_hash: Option<[u8; 32]>,
}

/// `b/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Fresh for each creation: a deleted bucket's keys are never seen again.
    pub id: BucketId,
    /// Namespace that created it.
    pub namespace: String,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Whether replaced versions are kept for readers.
    pub versioning: Versioning,
    /// What its writers are promised.
    #[serde(skip)]
    pub promise: Promise,
}

/// What the writers of a bucket are promised where both sites acknowledge (docs/adr/0015).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Promise {
    /// Milliseconds that a write waits for the other site; None: as long as the cluster declares.
    pub timeout_ms: Option<u32>,
    /// What becomes of a write that has waited for so long.
    pub on_timeout: OnTimeout,
}

impl Promise {
    /// How long a write waits for the other site; None: as long as the cluster declares.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(|milliseconds| Duration::from_millis(milliseconds.into()))
    }
}

/// What becomes of a write that the other site has not confirmed in time. It is committed in this one, whatever is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum OnTimeout {
    /// It is not acknowledged: its outcome is unknown.
    #[default]
    Refuse,
    /// It is acknowledged as one that lies in one site, and the ledger says so.
    Downgrade,
}

/// S3's versioning of a bucket. What an older release wrote as yes or no reads as the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Versioning {
    /// Never asked for: an object is replaced.
    #[default]
    Off,
    /// Each object that is written is a version with an id, and stays.
    Enabled,
    /// What is written has no id and replaces what has none; versions with an id stay.
    Suspended,
}

impl Versioning {
    /// What a version is that is written now.
    pub const fn of_new(self) -> Kept {
        match self {
            Self::Enabled => Kept::Numbered,
            Self::Off | Self::Suspended => Kept::No,
        }
    }
}

// ---- objects ----

/// Orders the versions of a key, and names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionRef {
    /// Term in which it was committed.
    pub epoch: Epoch,
    /// Greater than that of the version it replaced.
    pub hlc: Hlc,
    /// Made before its first byte was written.
    pub version: VersionId,
}

/// `h/`, `v/`, `c/`: a version of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its name and order.
    pub at: VersionRef,
    /// The version that was head before; None where there was none.
    pub replaces: Option<VersionRef>,
    /// What it says.
    pub body: HeadBody,
    /// Whether it stays once it is replaced.
    #[serde(skip)]
    pub kept: Kept,
    /// Term and time at which its tags were set, where that was after it was written.
    #[serde(skip)]
    pub tagged: Option<(Epoch, Hlc)>,
    /// Until then nobody deletes or replaces it (docs/adr/0021). It may move to a later time, never to an earlier one.
    #[serde(skip)]
    pub retained_until: Option<RetainUntil>,
}

/// Whether a version stays once it is replaced (docs/adr/0013).
///
/// Each version says so itself, so that what reads it later hangs on no bucket's state of back then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Kept {
    /// Until both sites and the journal have what replaced it. Readers who ask for versions call it `null` while it is head.
    #[default]
    No,
    /// Until it is deleted by name, or another one without an id is written: the `null` version below those with an id.
    Null,
    /// Until it is deleted by its id.
    Numbered,
    /// It was deleted by name: as [`Kept::No`], and no merge makes it head.
    Discarded,
}

impl Head {
    /// A version that goes when it is replaced.
    pub const fn new(at: VersionRef, replaces: Option<VersionRef>, body: HeadBody) -> Self {
        Self { at, replaces, body, kept: Kept::No, tagged: None, retained_until: None }
    }

    /// Whether it stays for readers when it is not head.
    pub const fn is_kept(&self) -> bool {
        matches!(self.kept, Kept::Null | Kept::Numbered)
    }

    /// What it is once a head of this kind has replaced it.
    #[must_use]
    pub fn replaced_by(self, head: Kept) -> Self {
        let kept = match (self.kept, &self.body) {
            (Kept::Numbered | Kept::Discarded, _) => self.kept,
            (Kept::No | Kept::Null, HeadBody::Object(_) | HeadBody::Marker) if head == Kept::Numbered => {
                Kept::Null
            }
            (Kept::No | Kept::Null, _) => Kept::No,
        };
        Self { kept, ..self }
    }
}

/// What a version is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeadBody {
    /// An object.
    Object(Box<Object>),
    /// A delete in a bucket with versioning: readers see nothing, older versions stay.
    Marker,
    /// A delete: kept until both sites and the journal have it.
    Tombstone,
}

/// An object's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Bytes of plaintext.
    pub size: u64,
    /// MD5 of the bytes, or of the parts' MD5s.
    pub etag: Etag,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// Content-Type and the like, and `x-amz-meta-*`, in lower case.
    pub headers: Vec<(String, String)>,
    /// Tags of the object.
    pub tags: Vec<(String, String)>,
    /// Where its bytes are.
    pub content: Content,
}

/// The entity tag of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Etag {
    /// MD5.
    pub md5: [u8; 16],
    /// Parts of the upload; 0: one PUT.
    pub parts: u16,
}

/// Where an object's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// In the head: at most 8 extent references.
    Inline(Vec<Blob>),
    /// In `p/` pages of at most 1,000 extent references each, written before the head.
    Paged {
        /// Number of pages.
        pages: u32,
    },
}

/// The bytes of one request, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Its key is derived from this.
    pub id: BlobId,
    /// The key it is derived with.
    pub ring_key: RingKeyNumber,
    /// Its pieces, in order.
    pub pieces: Vec<Piece>,
}

/// A run of whole chunks of a blob in one extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The extent.
    pub extent: ExtentId,
    /// Index in the blob of the first chunk.
    pub first_chunk: u32,
    /// Where in the extent the first chunk begins.
    pub offset: u32,
    /// Sealed bytes.
    pub sealed: u32,
    /// Bytes of plaintext.
    pub plain: u32,
    /// Whether the blob ends here.
    pub last: bool,
    /// How to find a chunk.
    pub layout: Layout,
}

/// How the chunks of a piece are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// No chunk is compressed: each is 1 MiB and its tag, but the last.
    Plain,
    /// One chunk, compressed.
    OneCompressed,
    /// Lengths stand in the extent's tail.
    InTail,
}

/// `p/B<version><page>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferencePage {
    /// In order; a blob that spans pages stands in each with its own pieces.
    pub blobs: Vec<Blob>,
}

/// `u/B<key><upload>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Version that its completion makes.
    pub version: VersionId,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// As for the object.
    pub headers: Vec<(String, String)>,
    /// As for the object.
    pub tags: Vec<(String, String)>,
    /// What parts and object are summed by; None: nobody asked for it.
    pub checksum: Option<UploadChecksum>,
    /// How far it is.
    pub state: UploadState,
    /// Until when the object is to be retained.
    #[serde(skip)]
    pub retain_until: Option<RetainUntil>,
}

/// How far an upload in parts is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UploadState {
    /// It takes parts.
    Open,
    /// It takes none any more: who wrote this number completes it or gives it up, until another writes its own.
    Claimed(u64),
    /// It has become an object; what is left of it goes.
    Completed,
}

/// `u/B<key><upload><part>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Bytes of plaintext.
    pub size: u64,
    /// Of the part.
    pub md5: [u8; 16],
    /// Others of the part: what its client announced, and what the upload is summed by.
    pub sums: Vec<(ChecksumAlgorithm, Vec<u8>)>,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// Its bytes.
    pub blob: Blob,
}

// ---- extents ----

/// `x/<extent>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Whether its rows may be freed.
    pub state: ExtentState,
    /// What lies in it.
    pub holds: Holds,
    /// Bytes, the tail with them.
    pub length: u32,
    /// Sealed bytes of blobs in it: when the dead marks sum up to them, nothing names it any more.
    pub payload: u32,
    /// BLAKE3 of all its bytes.
    pub hash: [u8; 32],
    /// Rows that are needed to decode.
    pub needed: u8,
    /// By site: its first row, and how many rows were made for it.
    pub rows: Vec<(SiteName, Row, u8)>,
    /// Term in which it was written; it refuses nothing.
    pub epoch: Epoch,
    /// When it was written.
    pub hlc: Hlc,
}

impl Extent {
    /// The numbers of the rows that were made for a site.
    pub fn rows_of<'a>(&'a self, site: &'a SiteName) -> impl Iterator<Item = Row> + 'a {
        let own = self.rows.iter().filter(move |(name, _, _)| name == site);
        own.flat_map(|(_, first, count)| (0..*count).map(move |index| Row(first.0 + index)))
    }

    /// The numbers of `count` rows outside: those after the rows of its sites. They are in no coding, so a row more or less
    /// changes no extent.
    pub fn outside_rows(&self, count: u8) -> impl Iterator<Item = Row> + use<> {
        let first =
            self.rows.iter().map(|(_, first, count)| first.0.saturating_add(*count)).max().unwrap_or(0);
        (0..count).filter_map(move |index| first.checked_add(index)).map(Row)
    }
}

/// Life of an extent.
///
/// ```text
/// Open ──────────completed──┐
///                           ▼
/// (a write's commit) ───► Live ──all of it dead──► Condemned
///                           ▲
/// Compacting ──switched─────┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExtentState {
    /// A version names it.
    Live,
    /// An upload in progress names it.
    Open(UploadId),
    /// Nothing names it; its rows are freed when both sites know.
    Condemned,
    /// Live blobs of mostly dead extents were copied into it; versions are switched to it once it is whole in both sites. What of it
    /// no version names yet has a dead mark.
    Compacting(Recipe),
}

/// What an extent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExtentKind {
    /// Bytes of objects.
    Data,
    /// Changes of the catalog, sealed.
    Journal,
    /// A part of a whole catalog, sealed.
    Checkpoint,
}

/// What an extent holds, with the place of it in the catalog's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Holds {
    /// Bytes of objects.
    Data,
    /// Changes of the catalog, sealed.
    Journal(Span),
    /// A part of a whole catalog as it was at this position, sealed.
    Checkpoint(Position),
}

/// A stretch of one catalog's feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Span {
    /// It begins behind this position.
    pub after: Position,
    /// The last position in it.
    pub upto: Position,
}

impl Holds {
    /// Of a record whose head and trailer name these positions. None: a journal or checkpoint without them.
    pub const fn of(kind: ExtentKind, first: Option<Position>, last: Option<Position>) -> Option<Self> {
        match (kind, first, last) {
            (ExtentKind::Data, ..) => Some(Self::Data),
            (ExtentKind::Journal, Some(after), Some(upto)) => Some(Self::Journal(Span { after, upto })),
            (ExtentKind::Checkpoint, Some(at), _) => Some(Self::Checkpoint(at)),
            (ExtentKind::Journal | ExtentKind::Checkpoint, ..) => None,
        }
    }

    /// Without the place.
    pub const fn kind(self) -> ExtentKind {
        match self {
            Self::Data => ExtentKind::Data,
            Self::Journal(_) => ExtentKind::Journal,
            Self::Checkpoint(_) => ExtentKind::Checkpoint,
        }
    }

    /// First position of a record's head: where a journal begins, or what a checkpoint shows.
    pub const fn first_position(self) -> Option<Position> {
        match self {
            Self::Data => None,
            Self::Journal(span) => Some(span.after),
            Self::Checkpoint(at) => Some(at),
        }
    }

    /// Last position of a record's trailer.
    pub const fn last_position(self) -> Option<Position> {
        match self {
            Self::Data => None,
            Self::Journal(span) => Some(span.upto),
            Self::Checkpoint(at) => Some(at),
        }
    }
}

/// `l/<site>/<extent>`: where a site's rows are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Rows, in order of their numbers.
    pub rows: Vec<PlacedRow>,
    /// Days since 1970 when all rows were last read and found right; 0: not since they were written.
    pub verified_day: u32,
}

/// A row on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedRow {
    /// Its number.
    pub row: Row,
    /// Where it is.
    pub device: DeviceId,
    /// Which record there.
    pub instance: InstanceId,
}

/// `n/<site>/<extent>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// What lies in it: objects' bytes come first, and only they count as lacking.
    pub kind: ExtentKind,
    /// Bytes of ciphertext.
    pub bytes: u32,
    /// Milliseconds since 1970 when the site was told of it.
    pub since_ms: u64,
    /// Revision of the active site's feed that told of it.
    pub revision: u64,
}

/// `g/<extent><blob>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadMark {
    /// Sealed bytes that nothing names any more.
    pub sealed: u64,
}

/// `y/<epoch><n>`: something that a person should know was lost, kept aside or not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Bucket and key it is about.
    pub bucket: BucketId,
    /// Key in the bucket.
    pub key: Vec<u8>,
    /// The version.
    pub version: Option<VersionRef>,
    /// What happened.
    pub what: Noted,
    /// How it ended; None: it has not yet.
    pub settled: Option<Settlement>,
}

/// What a ledger entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Noted {
    /// In the words of a version of Diptych that wrote sentences.
    Sentence(String),
    /// A takeover lost the head's bytes; the version is kept as a conflict version.
    Lost {
        /// Bytes of plaintext.
        size: u64,
        /// The version that is head in its place; None: readers see nothing.
        instead: Option<VersionRef>,
        /// Milliseconds since 1970 when a person accepted the loss; None: it was within `maxLossOnPromotion`.
        accepted_ms: Option<u64>,
    },
    /// A delete of an unseen term: what it named is no longer head.
    DeleteNotDone,
    /// A change of metadata of an unseen term: what it named is no longer head.
    MetadataNotDone,
    /// A write of an unseen term, or one whose entry is older than that: it is kept as a conflict version until a person decides.
    Conflict,
    /// A delete by version id in an unseen term: the version is still there.
    DiscardNotDone,
    /// A write was acknowledged by one site where both were asked for: the other had not confirmed it in time.
    Downgraded {
        /// What the other site had to confirm: a position of the feed of the site that acknowledged it.
        position: Position,
    },
    /// A change of an unseen term that is in force again. Until then readers of the newer term did not see it.
    CameBack,
}

/// How a ledger entry ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What became of the version.
    pub outcome: SettledAs,
}

/// What became of a version that the ledger names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettledAs {
    /// It is head again, or was.
    Restored,
    /// Its bytes are here, and it stays a conflict version: its key was changed meanwhile.
    KeptConflict,
    /// A person did not want it: its bytes are freed.
    Discarded,
    /// Both sites have it, or nothing names it any more.
    Confirmed,
}

impl LedgerEntry {
    /// Whether it names a version whose bytes a takeover lost, and nothing has been decided of it.
    pub fn is_open_loss(&self) -> bool {
        self.settled.is_none() && matches!(self.what, Noted::Lost { .. })
    }

    /// Whether it says what became of its version. That a write was acknowledged by one site, or was not seen for a while, decides
    /// nothing of it.
    pub fn decides(&self) -> bool {
        !matches!(self.what, Noted::Downgraded { .. } | Noted::CameBack)
    }

    /// The number in its key. The version gives it, so that who writes the entry again writes the same one.
    pub fn number(version: VersionId) -> u64 {
        let (number, _) = version.0.split_at(8);
        number.try_into().map_or(0, u64::from_be_bytes)
    }
}

/// With the third format there are downgraded writes, with the fourth those that came back. Entries of all else have the second one,
/// which older releases read.
impl Record for LedgerEntry {
    const NAME: &'static str = "LedgerEntry";
    const FORMAT: u8 = 4;

    fn encode(&self) -> Vec<u8> {
        let format = match self.what {
            Noted::CameBack => Self::FORMAT,
            Noted::Downgraded { .. } => 3,
            Noted::Sentence(_)
            | Noted::Lost { .. }
            | Noted::DeleteNotDone
            | Noted::MetadataNotDone
            | Noted::Conflict
            | Noted::DiscardNotDone => 2,
        };
        postcard::to_extend(self, vec![format]).unwrap_or_default()
    }

    fn decode_older(format: u8, rest: &[u8]) -> Result<Self, postcard::Error> {
        #[derive(Deserialize)]
        struct First {
            at_ms: u64,
            bucket: BucketId,
            key: Vec<u8>,
            version: Option<VersionRef>,
            what: String,
            // Nothing ever settled an entry then.
            _settled: bool,
        }
        if format > 1 {
            return postcard::from_bytes(rest);
        }
        let First { at_ms, bucket, key, version, what, _settled: _ } = postcard::from_bytes(rest)?;
        Ok(Self { at_ms, bucket, key, version, what: Noted::Sentence(what), settled: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compaction::SourceRange;

    #[test]
    fn a_record_of_a_newer_format_is_refused_by_name() {
        let mut bytes = DeadMark { sealed: 7 }.encode();
        bytes[0] = 9;
        let error = DeadMark::decode(&bytes).expect_err("format 9 is unknown");
        assert!(error.to_string().starts_with("DeadMark has format 9, this version reads 1"), "{error}");
    }

    #[test]
    fn a_ledger_entry_of_the_first_format_still_reads() {
        let at = VersionRef { epoch: Epoch(1), hlc: Hlc(2), version: VersionId([3; 16]) };
        let first = (7_u64, BucketId([1; 8]), b"key".to_vec(), Some(at), "a delete was not done", false);
        let bytes = postcard::to_extend(&first, vec![1]).expect("it encodes");
        let entry = LedgerEntry::decode(&bytes).expect("it reads");
        assert_eq!((entry.at_ms, &entry.key[..], entry.version), (7, &b"key"[..], Some(at)));
        assert_eq!(entry.what, Noted::Sentence("a delete was not done".to_owned()));
        assert_eq!(LedgerEntry::decode(&entry.encode()).expect("it reads back"), entry);
    }

    #[test]
    fn only_an_extent_that_compaction_fills_has_the_format_that_older_releases_refuse() {
        let range = SourceRange { extent: ExtentId([2; 16]), offset: 7, length: 9 };
        let recipe = Recipe { ranges: vec![range], tail: vec![1, 2, 3] };
        for (state, format) in [(ExtentState::Live, 1), (ExtentState::Compacting(recipe), 2)] {
            let extent = Extent {
                state,
                holds: Holds::Data,
                length: 12,
                payload: 9,
                hash: [0; 32],
                needed: 4,
                rows: Vec::new(),
                epoch: Epoch(1),
                hlc: Hlc(1),
            };
            let bytes = extent.encode();
            assert_eq!(bytes[0], format);
            assert_eq!(Extent::decode(&bytes).expect("it reads back"), extent);
        }
    }

    #[test]
    fn outside_rows_come_after_those_of_both_sites() {
        let name = |text: &str| text.parse::<SiteName>().expect("a name");
        let extent = Extent {
            state: ExtentState::Live,
            holds: Holds::Data,
            length: 1,
            payload: 1,
            hash: [0; 32],
            needed: 4,
            rows: vec![(name("west"), Row(0), 6), (name("east"), Row(6), 120)],
            epoch: Epoch(1),
            hlc: Hlc(1),
        };
        assert_eq!(extent.outside_rows(2).collect::<Vec<_>>(), [Row(126), Row(127)]);
        assert_eq!(extent.outside_rows(0).count(), 0);
        let widest =
            Extent { rows: vec![(name("west"), Row(0), 120), (name("east"), Row(120), 120)], ..extent };
        assert_eq!(widest.outside_rows(16).last(), Some(Row(255)));
    }

    #[test]
    fn a_head_of_a_small_object_stays_near_its_budget() {
        let piece = Piece {
            extent: ExtentId([1; 16]),
            first_chunk: 0,
            offset: 40_000,
            sealed: 4112,
            plain: 4096,
            last: true,
            layout: Layout::Plain,
        };
        let at = VersionRef { epoch: Epoch(3), hlc: Hlc(1 << 62), version: VersionId([2; 16]) };
        let object = Object {
            size: 4096,
            etag: Etag { md5: [3; 16], parts: 0 },
            modified_ms: 1_790_000_000_000,
            headers: vec![("content-type".into(), "application/octet-stream".into())],
            tags: vec![],
            content: Content::Inline(vec![Blob {
                id: BlobId([4; 16]),
                ring_key: RingKeyNumber(1),
                pieces: vec![piece],
            }]),
        };
        let head = Head::new(at, None, HeadBody::Object(Box::new(object)));
        let bytes = head.encode();
        assert!(bytes.len() <= 220, "{} bytes", bytes.len());
        assert_eq!(bytes[0], 1, "what keeps no versions has the format that it always had");
        assert_eq!(Head::decode(&bytes).expect("it reads back"), head);
    }

    #[test]
    fn a_version_that_is_kept_or_tagged_reads_back_as_such() {
        let at = VersionRef { epoch: Epoch(3), hlc: Hlc(9), version: VersionId([2; 16]) };
        for kept in [Kept::No, Kept::Null, Kept::Numbered, Kept::Discarded] {
            for tagged in [None, Some((Epoch(4), Hlc(1 << 62)))] {
                let head = Head { kept, tagged, ..Head::new(at, Some(at), HeadBody::Marker) };
                let bytes = head.encode();
                assert_eq!(bytes[0] == 1, kept == Kept::No && tagged.is_none());
                assert_eq!(Head::decode(&bytes).expect("it reads back"), head);
            }
        }
        let error = Head::decode(&[9, 0]).expect_err("format 9 is unknown");
        assert!(error.to_string().starts_with("Head has format 9"), "{error}");
    }

    #[test]
    fn a_version_that_is_retained_reads_back_and_is_refused_by_name_where_that_is_not_known() {
        let at = VersionRef { epoch: Epoch(3), hlc: Hlc(9), version: VersionId([2; 16]) };
        let until = RetainUntil(1_790_000_000_000);
        for kept in [Kept::No, Kept::Numbered] {
            let free = Head { kept, ..Head::new(at, None, HeadBody::Marker) };
            let head = Head { retained_until: Some(until), ..free.clone() };
            let bytes = head.encode();
            assert_eq!((bytes[0], Head::decode(&bytes).expect("it reads back")), (3, head));
            assert!(free.encode()[0] < 3, "what is not retained has the format that it always had");
            assert!(matches!(Head::decode(&bytes[..5]), Err(RecordError::Malformed { .. })));
        }
    }

    #[test]
    fn an_upload_keeps_until_when_its_object_is_to_be_retained() {
        let upload = |retain_until| Upload {
            version: VersionId([2; 16]),
            started_ms: 7,
            headers: vec![],
            tags: vec![],
            checksum: None,
            state: UploadState::Open,
            retain_until,
        };
        for (retain_until, format) in [(None, 1), (Some(RetainUntil(9)), 2)] {
            let upload = upload(retain_until);
            let bytes = upload.encode();
            assert_eq!((bytes[0], Upload::decode(&bytes).expect("it reads back")), (format, upload));
        }
    }

    #[test]
    fn buckets_of_before_versioning_could_be_suspended_read_as_they_were_meant() {
        #[derive(Serialize)]
        struct Before(BucketId, &'static str, u64, bool);
        for (before, now) in [(false, Versioning::Off), (true, Versioning::Enabled)] {
            let bytes = postcard::to_extend(&Before(BucketId([1; 8]), "default", 7, before), vec![1]);
            let bytes = bytes.expect("it encodes");
            let bucket = Bucket::decode(&bytes).expect("it reads");
            assert_eq!((bucket.versioning, bucket.promise), (now, Promise::default()));
            assert_eq!(bucket.encode(), bytes, "older releases read what says nothing more");
        }
    }

    #[test]
    fn a_bucket_with_a_promise_of_its_own_reads_back_and_is_refused_by_name_where_it_is_not_known() {
        let promise = Promise { timeout_ms: Some(250), on_timeout: OnTimeout::Downgrade };
        let (id, namespace) = (BucketId([1; 8]), "default".to_owned());
        let bucket = Bucket { id, namespace, created_ms: 7, versioning: Versioning::Enabled, promise };
        let bytes = bucket.encode();
        assert_eq!((bytes[0], Bucket::decode(&bytes).expect("it reads back")), (2, bucket));
    }

    #[test]
    fn only_what_older_releases_did_not_know_has_the_newest_format_of_the_ledger() {
        let entry = |what| LedgerEntry {
            at_ms: 7,
            bucket: BucketId([1; 8]),
            key: b"key".to_vec(),
            version: None,
            what,
            settled: None,
        };
        let downgraded = entry(Noted::Downgraded { position: Position { incarnation: 1, revision: 2 } });
        for (entry, format) in [(entry(Noted::Conflict), 2), (downgraded, 3), (entry(Noted::CameBack), 4)] {
            let bytes = entry.encode();
            assert_eq!((bytes[0], LedgerEntry::decode(&bytes).expect("it reads back")), (format, entry));
        }
    }

    #[test]
    fn of_versions_without_an_id_one_is_kept_and_only_below_one_with_an_id() {
        let at = VersionRef { epoch: Epoch(1), hlc: Hlc(1), version: VersionId([1; 16]) };
        let after = |kept, by| Head { kept, ..Head::new(at, None, HeadBody::Marker) }.replaced_by(by).kept;
        assert_eq!(after(Kept::No, Kept::No), Kept::No);
        assert_eq!(after(Kept::No, Kept::Numbered), Kept::Null);
        assert_eq!(after(Kept::Null, Kept::No), Kept::No);
        assert_eq!(after(Kept::Numbered, Kept::No), Kept::Numbered);
        assert_eq!(Head::new(at, None, HeadBody::Tombstone).replaced_by(Kept::Numbered).kept, Kept::No);
    }
}
