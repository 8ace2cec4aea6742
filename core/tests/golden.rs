//! The formats against golden vectors from a script that shares no code with them (`golden.py`).

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use diptych_core::chunk::{ChunkOpener, ChunkSealer, SealedChunk};
use diptych_core::cipher::{BulkCipher, Purpose, RustCryptoAesGcm, SecretKey, blob_key, subkey};
use diptych_core::erasure::Encoder;
use diptych_core::fragment::{
    BlockChecks, Codec, Foot, FootEntry, Record, RecordHead, RecordKind, SegmentHead, Tombstone, Trailer,
    record_len,
};
use diptych_core::ids::{
    BlobId, BucketId, ClusterId, DeviceId, Epoch, ExtentId, FamilyId, Generation, Hlc, InstanceId,
    KeeperNumber, RingKeyNumber, Row, SegmentId, Stamp, UploadId, VersionId,
};
use diptych_core::keyring::{ClusterKey, Keyring, NewRingKey, RingKeyState};
use diptych_core::layout::{CHUNK, StripeBuilder, StripeLayout};
use diptych_core::records::{Etag, ExtentKind, Position, Record as _};
use diptych_core::session::{self, FAMILY_MS, Grant, Holder, SESSION_MS, TokenKind, User};
use diptych_core::tail::{Tail, TailBuilder, TailEntry};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Bytes counted up from `start`: the ids of the script.
fn counted<const N: usize>(start: u8) -> [u8; N] {
    std::array::from_fn(|at| start + at as u8)
}

const SEGMENT: SegmentId = SegmentId([
    0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f,
]);

fn cluster() -> ClusterId {
    ClusterId(counted(0x10))
}

fn extent() -> ExtentId {
    ExtentId(counted(0x20))
}

fn blob() -> BlobId {
    BlobId(counted(0x40))
}

fn instance() -> InstanceId {
    InstanceId(counted(0x70))
}

/// Test bytes of the script: SHA-256 of label and block number, block after block.
fn stream(label: &str, length: usize) -> Vec<u8> {
    let block = |n: u32| Sha256::new().chain_update(label).chain_update(n.to_le_bytes()).finalize();
    (0..length.div_ceil(32) as u32).flat_map(block).take(length).collect()
}

fn array<const N: usize>(label: &str) -> [u8; N] {
    stream(label, N).try_into().expect("as many bytes as asked for")
}

fn folder() -> PathBuf {
    PathBuf::from("tests")
}

fn vectors() -> Value {
    let text = std::fs::read_to_string(folder().join("golden/vectors.json")).expect("the committed vectors");
    serde_json::from_str(&text).expect("JSON")
}

fn hex_of(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("hexadecimal text")).expect("hexadecimal")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

#[test]
fn the_committed_vectors_are_what_the_independent_script_computes() {
    let output = Command::new("python3")
        .arg(folder().join("golden.py"))
        .output()
        .expect("python3 is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let committed = std::fs::read(folder().join("golden/vectors.json")).expect("the committed vectors");
    assert!(output.stdout == committed, "core/tests/golden/vectors.json differs from what golden.py prints");
}

#[test]
fn rows_are_those_of_the_vectors() {
    for case in vectors()["rows"].as_array().expect("cases") {
        let needed = number(&case["needed"]) as u8;
        let rows: Vec<Row> = (0..number(&case["rows"]) as u8).map(Row).collect();
        let extent = stream("extent", number(&case["length"]) as usize);
        let encoder = Encoder::new(needed, rows.iter().copied()).expect("a coding");
        let mut made = vec![Vec::new(); rows.len()];
        let mut builder = StripeBuilder::new(needed);
        let mut input = extent.as_slice();
        let mut add = |stripe| {
            for (row, shard) in made.iter_mut().zip(encoder.encode(&stripe)) {
                row.extend_from_slice(&shard);
            }
        };
        while !input.is_empty() {
            builder.push(&mut input).into_iter().for_each(&mut add);
        }
        builder.finish().into_iter().for_each(&mut add);

        let length = StripeLayout::new(needed, extent.len() as u64).row_len();
        assert!(made.iter().all(|row| row.len() as u64 == length));
        let mut digests: Vec<String> = made.iter().map(|row| hex::encode(Sha256::digest(row))).collect();
        if rows.len() == 255 {
            let all: String = made.iter().map(hex::encode).collect();
            digests = vec![hex::encode(Sha256::digest(all))];
        }
        assert_eq!(serde_json::json!(digests), case["sha256"], "k = {needed}");
        let last = case["last_hex"].as_array().expect("a list");
        for (row, golden) in made.iter().rev().zip(last.iter().rev()) {
            assert_eq!(*row, hex_of(golden));
        }
    }
}

#[test]
fn keys_and_chunks_are_those_of_the_vectors() {
    let golden = &vectors()["chunks"];
    let ring_key = SecretKey::new(array("ring key 1"));
    let key = blob_key(&ring_key, blob());
    assert_eq!(key.expose()[..], hex_of(&golden["blob_key"]));

    let cipher: Arc<dyn BulkCipher> = Arc::new(RustCryptoAesGcm);
    let opener = ChunkOpener::new(blob(), key.clone(), cipher.clone());
    for (name, plain, compressed) in [
        ("plain", stream("chunk", 1000), false),
        ("empty", Vec::new(), false),
        ("compressed", vec![b'd'; 5000], true),
    ] {
        let case = &golden[name];
        let index = number(&case["index"]) as u32;
        let sealed = hex_of(&case["sealed"]);
        let opened = opener.open(index, true, compressed, sealed[..].into()).expect(name);
        assert!(opened == plain, "{name}");

        // LZ4 allows many encodings of the same bytes, so only what is not compressed is compared as sealed.
        if !compressed {
            let mut sealer = ChunkSealer::new(blob(), key.clone(), cipher.clone());
            for _ in 0..index {
                sealer.seal(&vec![0; CHUNK], false, &mut Vec::new()).expect("a whole chunk");
            }
            let mut sealed = Vec::new();
            sealer.seal(&plain, true, &mut sealed).expect(name);
            assert_eq!(sealed, hex_of(&case["sealed"]), "{name}");
        }
    }
}

#[test]
fn subkeys_are_those_of_the_vectors() {
    let ring_key = SecretKey::new(array("ring key 1"));
    let golden = &vectors()["subkeys"];
    for (purpose, name) in [
        (Purpose::ExtentTail, "extent tail"),
        (Purpose::AccessKeySecret, "access key secret"),
        (Purpose::TokenSignature, "token signature"),
        (Purpose::TokenMark, "token mark"),
        (Purpose::AuthorityKey, "authority key"),
        (Purpose::OpaqueToken, "opaque token"),
    ] {
        assert_eq!(subkey(&ring_key, purpose, b"context").expose()[..], hex_of(&golden[name]), "{name}");
    }
}

#[test]
fn segment_and_record_are_those_of_the_vectors() {
    let golden = &vectors()["fragments"];
    let segment_head =
        SegmentHead { cluster: cluster(), device: DeviceId(5), generation: Generation(6), segment: SEGMENT };
    let bytes = hex_of(&golden["segment_head"]);
    assert_eq!(segment_head.encode(), bytes);
    assert_eq!(SegmentHead::parse(&bytes, Some(cluster())), Ok(segment_head));

    let row = stream("row", 10_000);
    let reserved = record_len(10_000, 4096);
    let head = RecordHead {
        kind: ExtentKind::Journal,
        codec: Codec::Vandermonde,
        cluster: cluster(),
        extent: extent(),
        instance: instance(),
        row: Row(9),
        needed: 4,
        coding: 3,
        shard_size: 10_000,
        crc_block: 4096,
        birth_epoch: Epoch(11),
        birth_hlc: Hlc(1 << 60),
        first_position: Some(Position { incarnation: 12, revision: 13 }),
        reserved,
    };
    let head_bytes = head.encode(SEGMENT);
    assert_eq!(head_bytes[..], hex_of(&golden["record_head"]));
    assert_eq!(Record::parse(&head_bytes, SEGMENT, Some(cluster())), Ok(Record::Row(head)));

    let mut checks = BlockChecks::new(4096);
    checks.push(&row);
    let trailer = Trailer {
        blocks: checks.finish(),
        row_bytes: 10_000,
        extent_bytes: 40_000,
        extent_hash: counted(0x80),
        last_position: Some(Position { incarnation: 12, revision: 14 }),
    };
    let bytes = hex_of(&golden["trailer"]);
    assert_eq!(trailer.encode(&head_bytes), bytes);
    assert_eq!(Trailer::parse(&bytes, &head, &head_bytes), Ok(trailer));

    let stamp = Stamp { epoch: Epoch(15), keeper: KeeperNumber(16) };
    let tombstone =
        Tombstone { cluster: cluster(), extent: extent(), row: Row(9), killed: instance(), stamp };
    let bytes = hex_of(&golden["tombstone"]);
    assert_eq!(tombstone.encode(SEGMENT)[..], bytes);
    assert_eq!(Record::parse(&bytes, SEGMENT, Some(cluster())), Ok(Record::Tombstone(tombstone)));

    let entry = |kind, offset, length| FootEntry {
        extent: extent(),
        row: Row(9),
        kind,
        instance: instance(),
        offset,
        length,
    };
    let entries =
        vec![entry(RecordKind::Journal, 4096, reserved), entry(RecordKind::Tombstone, 4096 + reserved, 128)];
    let foot = Foot { entries };
    let bytes = hex_of(&golden["foot"]);
    assert_eq!(foot.encode(SEGMENT), bytes);
    let segment_len = 4096 + reserved + 128 + bytes.len() as u64;
    assert_eq!(Foot::parse(&bytes, SEGMENT, segment_len), Ok(foot));
}

fn keyring() -> Keyring {
    let new = |key: &str, nonce: &str, made_ms| NewRingKey {
        key: SecretKey::new(array(key)),
        nonce: array(nonce),
        made_ms,
    };
    let first = Keyring::create(cluster(), new("ring key 1", "nonce 1", 1000));
    let second = new("ring key 2", "nonce 2", 2000);
    first.with_ring_key(Epoch(0), second, RingKeyState::InUse).expect("a number is left")
}

#[test]
fn the_keyring_is_that_of_the_vectors() {
    let cluster_key = ClusterKey::new(array("cluster key"));
    let bytes = hex_of(&vectors()["keyring"]);
    assert_eq!(keyring().seal(&cluster_key), bytes);
    assert_eq!(Keyring::open(&bytes, &cluster_key), Ok(keyring()));
}

#[test]
fn the_tail_is_that_of_the_vectors() {
    let entry = TailEntry {
        blob: blob(),
        ring_key: RingKeyNumber(1),
        first_chunk: 0,
        offset: 0,
        sealed: (1 << 20) + 516,
        plain: (1 << 20) + 4000,
        last: true,
        bucket: BucketId(counted(0x78)),
        key: b"a/key".to_vec(),
        version: VersionId(counted(0x50)),
        part: Some((UploadId(counted(0x60)), 300)),
        size: Some((1 << 20) + 4000),
        etag: Some(Etag { md5: [0; 16], parts: 0 }),
        headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
    };
    let chunks = [
        SealedChunk { index: 0, len: (1 << 20) + 16, compressed: false },
        SealedChunk { index: 1, len: 500, compressed: true },
    ];
    let mut builder = TailBuilder::new();
    builder.add(entry.clone(), &chunks);
    let keyring = keyring();
    let made = builder.finish(extent(), keyring.current(), &array("tail nonce")).expect("it seals");
    let bytes = hex_of(&vectors()["tail"]);
    assert_eq!(made, bytes);
    let tail = Tail::parse(&bytes).expect("it parses");
    assert_eq!(tail.open(extent(), &keyring), Ok(vec![entry]));
}

#[test]
fn a_session_is_that_of_the_vectors() {
    let golden = &vectors()["session"];
    let text = |name: &str| golden[name].as_str().expect("text").to_owned();
    let now = number(&golden["now_ms"]);
    let user = User {
        name: "jane".to_owned(),
        uid: Some("uid-1".to_owned()),
        groups: vec!["readers".to_owned(), "writers".to_owned()],
        extra: [("scopes".to_owned(), vec!["read".to_owned()])].into(),
    };
    let (family, holder, serial) = (FamilyId(counted(0xa0)), Holder::User(user), counted(0xb0));
    let issued = session::issue(&keyring(), (family, holder.clone()), serial, now + FAMILY_MS, now);
    let issued = issued.expect("tokens");
    assert_eq!((issued.session.as_str(), issued.refresh.as_str()), (&*text("session"), &*text("refresh")));
    assert_eq!(issued.record.encode(), hex_of(&golden["record"]));
    for (kind, name, lives) in
        [(TokenKind::Session, "session", SESSION_MS), (TokenKind::Refresh, "refresh", FAMILY_MS)]
    {
        let grant = Grant { family, holder: holder.clone(), expires_ms: now + lives, serial };
        assert_eq!(session::read(&keyring(), kind, &text(name), now), Ok(grant), "{name}");
    }
}
