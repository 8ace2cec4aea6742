//! Keys of the catalog (docs/design.md, Tables): how each is spelled, who owns it, and how it reads back.
//!
//! Object keys are escaped so that their order is kept: a 00 byte becomes 00 FF, and 00 01 ends the key.
//! Numbers are big-endian; `!` in the table means inverted, so that the newest comes first.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{
    BlobId, BucketId, DeviceId, Epoch, ExtentId, FamilyId, Hlc, NodeName, SiteName, UploadId, VersionId,
};

/// A key of the catalog.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub Vec<u8>);

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0.escape_ascii())
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Which site may write a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The active site; the other one mirrors it.
    Active,
    /// One site in either role; fed to the other.
    Site(SiteName),
    /// One site in either role; never fed, never in a snapshot.
    Private(SiteName),
}

/// Keys from `start` (included) to `end` (left out).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// First key.
    pub start: Key,
    /// First key that is no longer in it.
    pub end: Key,
}

/// All keys that begin with `prefix`.
pub fn prefix_range(prefix: &[u8]) -> KeyRange {
    let mut end = prefix.to_vec();
    while end.last() == Some(&0xff) {
        end.pop();
    }
    match end.last_mut() {
        Some(last) => *last += 1,
        None => end = vec![0xff; 64],
    }
    KeyRange { start: Key(prefix.to_vec()), end: Key(end) }
}

fn joined(parts: &[&[u8]]) -> Key {
    Key(parts.concat())
}

/// An object key, escaped and ended.
pub fn escape_object_key(key: &[u8]) -> Vec<u8> {
    let mut escaped = escape_object_prefix(key);
    escaped.extend_from_slice(&[0, 1]);
    escaped
}

/// The beginning of object keys, escaped and not ended: what a listing by prefix ranges over.
pub fn escape_object_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(prefix.len() + 2);
    for &byte in prefix {
        escaped.push(byte);
        if byte == 0 {
            escaped.push(0xff);
        }
    }
    escaped
}

/// Reads an escaped object key: the key and what follows its end. None where it has no end or a bad escape.
pub fn unescape_object_key(escaped: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut key = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    loop {
        match rest {
            [0, 1, tail @ ..] => return Some((key, tail)),
            [0, 0xff, tail @ ..] => {
                key.push(0);
                rest = tail;
            }
            [0, ..] | [] => return None,
            [byte, tail @ ..] => {
                key.push(*byte);
                rest = tail;
            }
        }
    }
}

/// `s/site/<site>/vote`: `records::Vote`.
pub fn site_vote(site: &SiteName) -> Key {
    joined(&[b"s/site/", site.as_str().as_bytes(), b"/vote"])
}

/// `s/site/<site>/gate`: `records::Gate`; commits of the active compare its exact bytes.
pub fn site_gate(site: &SiteName) -> Key {
    joined(&[b"s/site/", site.as_str().as_bytes(), b"/gate"])
}

/// `s/site/<site>/keeper`: `records::KeeperLease`.
pub fn site_keeper(site: &SiteName) -> Key {
    joined(&[b"s/site/", site.as_str().as_bytes(), b"/keeper"])
}

/// `s/site/<site>/beat`: `records::KeeperBeat`.
pub fn site_beat(site: &SiteName) -> Key {
    joined(&[b"s/site/", site.as_str().as_bytes(), b"/beat"])
}

/// `s/site/<site>/heard`: `records::LastHeard`.
pub fn site_heard(site: &SiteName) -> Key {
    joined(&[b"s/site/", site.as_str().as_bytes(), b"/heard"])
}

/// `s/site/<site>/old`: the witness token that is known to be old.
pub fn site_old_token(site: &SiteName) -> Key {
    joined(&[b"s/site/", site.as_str().as_bytes(), b"/old"])
}

/// `s/site/<site>/rejoined`: the newest term of the other site that this one has come into, eight bytes.
pub fn site_rejoined(site: &SiteName) -> Key {
    joined(&[b"s/site/", site.as_str().as_bytes(), b"/rejoined"])
}

/// `s/site/<site>/accounted`: the newest term of this site of which all that the takeover lost is in the ledger, eight bytes.
pub fn site_accounted(site: &SiteName) -> Key {
    joined(&[b"s/site/", site.as_str().as_bytes(), b"/accounted"])
}

/// `s/site/<site>/accepted`: when a person last accepted the loss of a takeover, milliseconds since 1970, eight bytes.
pub fn site_loss_accepted(site: &SiteName) -> Key {
    joined(&[b"s/site/", site.as_str().as_bytes(), b"/accepted"])
}

/// `s/site/<site>/status`: what the keeper last saw of its site, as JSON for people and programs.
pub fn site_status(site: &SiteName) -> Key {
    joined(&[b"s/site/", site.as_str().as_bytes(), b"/status"])
}

/// `s/site/<site>/stale`: means nothing; what a drill tries to write under an epoch that is over.
pub fn site_stale_write(site: &SiteName) -> Key {
    joined(&[b"s/site/", site.as_str().as_bytes(), b"/stale"])
}

/// `s/drill/<site>`: the drills that `site` has run, as JSON for people and programs; the other site is told.
pub fn drills(site: &SiteName) -> Key {
    joined(&[b"s/drill/", site.as_str().as_bytes()])
}

/// `s/term/<epoch>`: `records::Term`.
pub fn term(epoch: Epoch) -> Key {
    joined(&[b"s/term/", &epoch.0.to_be_bytes()])
}

/// All terms, the newest last.
pub fn terms() -> KeyRange {
    prefix_range(b"s/term/")
}

/// `s/cursor/<site>`: `records::Cursor`, how far `site` has followed the other's feed.
pub fn cursor(site: &SiteName) -> Key {
    joined(&[b"s/cursor/", site.as_str().as_bytes()])
}

/// `s/cluster`: `records::Cluster`.
pub fn cluster() -> Key {
    joined(&[b"s/cluster"])
}

/// `s/keyring`: the sealed keyring.
pub fn keyring() -> Key {
    joined(&[b"s/keyring"])
}

/// `s/keys/<site>`: `records::SiteKeys`.
pub fn site_keys(site: &SiteName) -> Key {
    joined(&[b"s/keys/", site.as_str().as_bytes()])
}

/// `s/plan/<n>`: `records::CodingPlan`.
pub fn plan(number: u32) -> Key {
    joined(&[b"s/plan/", &number.to_be_bytes()])
}

/// The number in the key of a plan.
pub fn plan_number(key: &Key) -> Option<u32> {
    let number = key.0.strip_prefix(b"s/plan/")?;
    Some(u32::from_be_bytes(number.try_into().ok()?))
}

/// All plans; the last one is in force.
pub fn plans() -> KeyRange {
    prefix_range(b"s/plan/")
}

/// `s/journal`: `journal::Progress`.
pub fn journal() -> Key {
    joined(&[b"s/journal"])
}

/// `s/map/<site>`: `placement::PlacementMap`.
pub fn map(site: &SiteName) -> Key {
    joined(&[b"s/map/", site.as_str().as_bytes()])
}

/// `s/dev/<site>/<device>`: `records::Device`.
pub fn device(site: &SiteName, device: DeviceId) -> Key {
    joined(&[b"s/dev/", site.as_str().as_bytes(), b"/", &device.0.to_be_bytes()])
}

/// All devices of a site.
pub fn devices(site: &SiteName) -> KeyRange {
    prefix_range(&joined(&[b"s/dev/", site.as_str().as_bytes(), b"/"]).0)
}

/// `s/drain/<site>/<node>`: `records::Drain`.
pub fn drain(site: &SiteName, node: &NodeName) -> Key {
    joined(&[b"s/drain/", site.as_str().as_bytes(), b"/", node.as_str().as_bytes()])
}

/// All that shall be emptied of a site.
pub fn drains(site: &SiteName) -> KeyRange {
    prefix_range(&joined(&[b"s/drain/", site.as_str().as_bytes(), b"/"]).0)
}

/// Node of an `s/drain/` key.
pub fn drained_node_of(key: &Key) -> Option<NodeName> {
    let of_site = key.0.strip_prefix(b"s/drain/")?;
    let node = of_site.splitn(2, |&byte| byte == b'/').nth(1)?;
    std::str::from_utf8(node).ok()?.parse().ok()
}

/// `s/outside/<node>`: `records::OutsideNode`.
pub fn outside_node(node: &NodeName) -> Key {
    joined(&[b"s/outside/", node.as_str().as_bytes()])
}

/// All outside nodes that are declared.
pub fn outside_nodes() -> KeyRange {
    prefix_range(b"s/outside/")
}

/// Node of an `s/outside/` key.
pub fn outside_node_of(key: &Key) -> Option<NodeName> {
    std::str::from_utf8(key.0.strip_prefix(b"s/outside/")?).ok()?.parse().ok()
}

/// Whether it says where rows lie outside: the map, a device, a placement. The nodes themselves can say it again, so it is
/// neither journaled nor exposed.
pub fn is_outside(key: &Key) -> bool {
    [b"s/map/outside".as_slice(), b"s/dev/outside/", b"l/outside/"]
        .iter()
        .any(|place| key.0.starts_with(place))
}

/// `a/<access key>`: `records::AccessKey`.
pub fn access_key(id: &str) -> Key {
    joined(&[b"a/", id.as_bytes()])
}

/// `t/<family>`: `records::TokenFamily`.
pub fn token_family(family: FamilyId) -> Key {
    joined(&[b"t/", family.as_bytes()])
}

/// All families of tokens.
pub fn token_families() -> KeyRange {
    prefix_range(b"t/")
}

/// The family of a `t/` key.
pub fn family_of(key: &Key) -> Option<FamilyId> {
    key.0.strip_prefix(b"t/")?.try_into().ok().map(FamilyId)
}

/// Whether it is a `t/` key.
pub fn is_token_family(key: &Key) -> bool {
    key.0.starts_with(b"t/")
}

/// `b/<name>`: `records::Bucket`.
pub fn bucket(name: &str) -> Key {
    joined(&[b"b/", name.as_bytes()])
}

/// All buckets.
pub fn buckets() -> KeyRange {
    prefix_range(b"b/")
}

/// Name of the bucket of a `b/` key.
pub fn bucket_name(key: &Key) -> Option<&str> {
    std::str::from_utf8(key.0.strip_prefix(b"b/")?).ok()
}

/// `h/B<key>`: `records::Head`.
pub fn head(bucket: BucketId, key: &[u8]) -> Key {
    joined(&[b"h/", bucket.as_bytes(), &escape_object_key(key)])
}

/// Whether it is an `h/` key.
pub fn is_head(key: &Key) -> bool {
    key.0.starts_with(b"h/")
}

/// Heads of a bucket whose keys begin with `prefix`.
pub fn heads(bucket: BucketId, prefix: &[u8]) -> KeyRange {
    prefix_range(&joined(&[b"h/", bucket.as_bytes(), &escape_object_prefix(prefix)]).0)
}

/// Bucket and object key of an `h/` key.
pub fn object_of_head(key: &Key) -> Option<(BucketId, Vec<u8>)> {
    let (bucket, escaped) = key.0.strip_prefix(b"h/")?.split_first_chunk()?;
    let (object, rest) = unescape_object_key(escaped)?;
    rest.is_empty().then_some((BucketId(*bucket), object))
}

/// `v/B<key>!epoch!hlc`: `records::Head`, an older version; the newest comes first.
pub fn older_version(bucket: BucketId, key: &[u8], epoch: Epoch, hlc: Hlc) -> Key {
    joined(&[
        b"v/",
        bucket.as_bytes(),
        &escape_object_key(key),
        &(!epoch.0).to_be_bytes(),
        &(!hlc.0).to_be_bytes(),
    ])
}

/// Older versions of one object.
pub fn older_versions(bucket: BucketId, key: &[u8]) -> KeyRange {
    prefix_range(&joined(&[b"v/", bucket.as_bytes(), &escape_object_key(key)]).0)
}

/// Older versions of all objects of a bucket whose keys begin with `prefix`.
pub fn all_older_versions(bucket: BucketId, prefix: &[u8]) -> KeyRange {
    prefix_range(&joined(&[b"v/", bucket.as_bytes(), &escape_object_prefix(prefix)]).0)
}

/// `p/B<version><page>`: `records::ReferencePage`.
pub fn reference_page(bucket: BucketId, version: VersionId, page: u32) -> Key {
    joined(&[b"p/", bucket.as_bytes(), version.as_bytes(), &page.to_be_bytes()])
}

/// `u/B<key><upload>`: `records::Upload`.
pub fn upload(bucket: BucketId, key: &[u8], upload: UploadId) -> Key {
    joined(&[b"u/", bucket.as_bytes(), &escape_object_key(key), upload.as_bytes()])
}

/// `u/B<key><upload><part>`: `records::Part`; part numbers are 1 to 10,000.
pub fn upload_part(bucket: BucketId, key: &[u8], id: UploadId, part: u16) -> Key {
    let mut whole = upload(bucket, key, id);
    whole.0.extend_from_slice(&part.to_be_bytes());
    whole
}

/// The upload and its parts.
pub fn upload_and_parts(bucket: BucketId, key: &[u8], id: UploadId) -> KeyRange {
    prefix_range(&upload(bucket, key, id).0)
}

/// All uploads of a bucket whose keys begin with `prefix`, and their parts.
pub fn uploads(bucket: BucketId, prefix: &[u8]) -> KeyRange {
    prefix_range(&joined(&[b"u/", bucket.as_bytes(), &escape_object_prefix(prefix)]).0)
}

/// Object key, upload and, where it is a part's, part number of a `u/` key.
pub fn upload_of(key: &Key) -> Option<(Vec<u8>, UploadId, Option<u16>)> {
    let (_, escaped) = key.0.strip_prefix(b"u/")?.split_first_chunk::<8>()?;
    let (object, rest) = unescape_object_key(escaped)?;
    let (upload, rest) = rest.split_first_chunk()?;
    let part = match rest {
        [] => None,
        [high, low] => Some(u16::from_be_bytes([*high, *low])),
        _ => return None,
    };
    Some((object, UploadId(*upload), part))
}

/// `x/<extent>`: `records::Extent`.
pub fn extent(extent: ExtentId) -> Key {
    joined(&[b"x/", extent.as_bytes()])
}

/// All extents.
pub fn extents() -> KeyRange {
    prefix_range(b"x/")
}

/// `l/<site>/<extent>`: `records::Placement`.
pub fn placement(site: &SiteName, extent: ExtentId) -> Key {
    joined(&[b"l/", site.as_str().as_bytes(), b"/", extent.as_bytes()])
}

/// All placements of a site.
pub fn placements(site: &SiteName) -> KeyRange {
    prefix_range(&joined(&[b"l/", site.as_str().as_bytes(), b"/"]).0)
}

/// `n/<site>/<extent>`: `records::Wanted`.
pub fn wanted(site: &SiteName, extent: ExtentId) -> Key {
    joined(&[b"n/", site.as_str().as_bytes(), b"/", extent.as_bytes()])
}

/// All extents that a site was told of and lacks.
pub fn all_wanted(site: &SiteName) -> KeyRange {
    prefix_range(&joined(&[b"n/", site.as_str().as_bytes(), b"/"]).0)
}

/// Extent of an `x/`, `l/` or `n/` key: its last 16 bytes.
pub fn extent_of(key: &Key) -> Option<ExtentId> {
    matches!(key.0.first(), Some(b'x' | b'l' | b'n')).then_some(())?;
    key.0.last_chunk().copied().map(ExtentId)
}

/// `g/<extent><blob>`: `records::DeadMark`.
pub fn dead_mark(extent: ExtentId, blob: BlobId) -> Key {
    joined(&[b"g/", extent.as_bytes(), blob.as_bytes()])
}

/// All dead marks of an extent.
pub fn dead_marks(extent: ExtentId) -> KeyRange {
    prefix_range(&joined(&[b"g/", extent.as_bytes()]).0)
}

/// `c/B<key><version>`: `records::Head`, a conflict version.
pub fn conflict(bucket: BucketId, key: &[u8], version: VersionId) -> Key {
    joined(&[b"c/", bucket.as_bytes(), &escape_object_key(key), version.as_bytes()])
}

/// All conflict versions of one object.
pub fn conflicts(bucket: BucketId, key: &[u8]) -> KeyRange {
    prefix_range(&joined(&[b"c/", bucket.as_bytes(), &escape_object_key(key)]).0)
}

/// Conflict versions of all objects of a bucket.
pub fn conflicts_of_bucket(bucket: BucketId) -> KeyRange {
    prefix_range(&joined(&[b"c/", bucket.as_bytes()]).0)
}

/// Bucket, object and version of a `c/` key.
pub fn object_of_conflict(key: &Key) -> Option<(BucketId, Vec<u8>, VersionId)> {
    let (bucket, escaped) = key.0.strip_prefix(b"c/")?.split_first_chunk()?;
    let (object, version) = unescape_object_key(escaped)?;
    Some((BucketId(*bucket), object, VersionId(version.try_into().ok()?)))
}

/// Bucket and object of an `h/` or `v/` key.
pub fn bucket_and_object(key: &Key) -> Option<(BucketId, Vec<u8>)> {
    let rest = key.0.strip_prefix(b"h/").or_else(|| key.0.strip_prefix(b"v/"))?;
    let (bucket, escaped) = rest.split_first_chunk()?;
    let (object, _) = unescape_object_key(escaped)?;
    Some((BucketId(*bucket), object))
}

/// `y/<epoch><n>`: `records::LedgerEntry`.
pub fn ledger(epoch: Epoch, number: u64) -> Key {
    joined(&[b"y/", &epoch.0.to_be_bytes(), &number.to_be_bytes()])
}

/// All ledger entries.
pub fn ledger_entries() -> KeyRange {
    prefix_range(b"y/")
}

/// Who may write `key`. None: no key of the catalog.
pub fn owner(key: &Key) -> Option<Owner> {
    let bytes = key.0.as_slice();
    let site_after = |prefix: &[u8]| -> Option<SiteName> {
        let rest = bytes.strip_prefix(prefix)?;
        let end = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
    };
    if let Some(site) = site_after(b"s/site/") {
        return Some(Owner::Private(site));
    }
    for prefix in
        [b"s/cursor/".as_slice(), b"s/keys/", b"s/map/", b"s/dev/", b"s/drain/", b"s/drill/", b"l/", b"n/"]
    {
        if let Some(site) = site_after(prefix) {
            return Some(if site == SiteName::outside() { Owner::Active } else { Owner::Site(site) });
        }
    }
    let family = bytes.split(|&byte| byte == b'/').next()?;
    match family {
        b"s" | b"a" | b"t" | b"b" | b"h" | b"v" | b"p" | b"u" | b"x" | b"g" | b"c" | b"y" => {
            Some(Owner::Active)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUCKET: BucketId = BucketId([7; 8]);

    proptest! {
        #[test]
        fn escaping_keeps_the_order_of_keys(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_eq!(a.cmp(&b), head(BUCKET, &a).cmp(&head(BUCKET, &b)));
        }

        #[test]
        fn an_object_key_reads_back(object: Vec<u8>) {
            prop_assert_eq!(object_of_head(&head(BUCKET, &object)), Some((BUCKET, object)));
        }

        #[test]
        fn a_prefix_range_holds_just_what_begins_with_it(prefix: Vec<u8>, object: Vec<u8>) {
            let range = heads(BUCKET, &prefix);
            let key = head(BUCKET, &object);
            prop_assert_eq!(range.start <= key && key < range.end, object.starts_with(&prefix));
        }

        #[test]
        fn a_conflict_key_reads_back(object: Vec<u8>, version: [u8; 16]) {
            let version = VersionId(version);
            prop_assert_eq!(object_of_conflict(&conflict(BUCKET, &object, version)), Some((BUCKET, object, version)));
        }

        #[test]
        fn an_upload_key_reads_back(object: Vec<u8>, id: [u8; 16], part in 1_u16..=10_000) {
            let id = UploadId(id);
            prop_assert_eq!(upload_of(&upload(BUCKET, &object, id)), Some((object.clone(), id, None)));
            prop_assert_eq!(upload_of(&upload_part(BUCKET, &object, id, part)), Some((object, id, Some(part))));
        }
    }

    #[test]
    fn a_node_that_shall_be_emptied_reads_back() {
        let (east, node): (SiteName, NodeName) =
            ("east".parse().expect("a name"), "n1".parse().expect("a name"));
        let key = drain(&east, &node);
        let range = drains(&east);
        assert!(range.start <= key && key < range.end);
        assert_eq!(drained_node_of(&key), Some(node));
        assert_eq!(drained_node_of(&drills(&east)), None);
    }

    #[test]
    fn newer_versions_come_first() {
        let at = |epoch, hlc| older_version(BUCKET, b"k", Epoch(epoch), Hlc(hlc));
        assert!(at(2, 1) < at(1, 9));
        assert!(at(1, 2) < at(1, 1));
    }

    #[test]
    fn each_key_has_the_owner_of_the_table() {
        let east: SiteName = "east".parse().expect("a name");
        let extent_id = ExtentId([1; 16]);
        assert_eq!(owner(&site_gate(&east)), Some(Owner::Private(east.clone())));
        for key in [
            cursor(&east),
            map(&east),
            device(&east, DeviceId(1)),
            drills(&east),
            site_keys(&east),
            drain(&east, &"n1".parse().expect("a name")),
            placement(&east, extent_id),
        ] {
            assert_eq!(owner(&key), Some(Owner::Site(east.clone())), "{key:?}");
        }
        for key in [cluster(), keyring(), term(Epoch(1)), bucket("b"), head(BUCKET, b"k"), extent(extent_id)]
        {
            assert_eq!(owner(&key), Some(Owner::Active), "{key:?}");
        }
        assert_eq!(owner(&token_family(FamilyId([1; 16]))), Some(Owner::Active));
        let outside = SiteName::outside();
        let node: NodeName = "o1".parse().expect("a name");
        for key in
            [map(&outside), drain(&outside, &node), placement(&outside, extent_id), outside_node(&node)]
        {
            assert_eq!(owner(&key), Some(Owner::Active), "{key:?}");
        }
        assert_eq!(owner(&Key(b"zz/".to_vec())), None);
    }

    #[test]
    fn what_outside_nodes_can_say_again_is_told_from_what_was_declared_of_them() {
        let (outside, east) = (SiteName::outside(), "east".parse().expect("a name"));
        let extent_id = ExtentId([1; 16]);
        assert!(
            [map(&outside), device(&outside, DeviceId(1)), placement(&outside, extent_id)]
                .iter()
                .all(is_outside)
        );
        let node = "o1".parse().expect("a name");
        assert_eq!(outside_node_of(&outside_node(&node)), Some(node.clone()));
        assert!(![outside_node(&node), map(&east), placement(&east, extent_id)].iter().any(is_outside));
    }
}
