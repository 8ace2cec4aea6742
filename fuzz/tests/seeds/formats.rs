//! Seeds of what lies on devices.

use diptych_core::ids::{BlobId, BucketId, RingKeyNumber, UploadId, VersionId};
use diptych_core::records::Etag;
use diptych_core::tail::TailEntry;
use serde_json::Value;

use super::Seed;

pub(super) fn seeds() -> Vec<Seed> {
    let golden = std::fs::read_to_string("../core/tests/golden/vectors.json").expect("the golden vectors");
    let golden: Value = serde_json::from_str(&golden).expect("JSON");
    let vector = |value: &Value| hex::decode(value.as_str().expect("hexadecimal text")).expect("hexadecimal");
    let fragments = &golden["fragments"];
    let record_head = vector(&fragments["record_head"]);
    let row: Vec<u8> = (0..4200_u32).map(|at| (at >> 4) as u8).collect();
    vec![
        seed("fragment_record", "row_of_two_blocks", &[&record_head, &row]),
        seed("fragment_record", "row_of_a_byte", &[&record_head, b"x"]),
        seed("fragment_record", "trailer", &[&record_head, &vector(&fragments["trailer"])]),
        seed("fragment_record", "tombstone", &[&vector(&fragments["tombstone"])]),
        seed("segment_foot", "golden", &[&vector(&fragments["foot"])]),
        seed("segment_foot", "empty", &[]),
        seed("extent_tail", "golden", &[&vector(&golden["tail"])]),
        seed("extent_tail", "list", &[&tail_parts()]),
        seed("keyring", "golden", &[&vector(&golden["keyring"])]),
        seed("keyring", "two_ring_keys", &[&[1; 24], &[1, 0, 0, 0], &[2; 52], &[2, 0, 0, 0], &[3; 52]]),
        seed("segment_scan", "rows", &[&[0, 3], &[7; 96], &[4, 1], &[8; 32], &[0, 0]]),
        seed("segment_scan", "killed_row", &[&[0, 3], &[7; 96], &[1, 0], &[0, 1], &[8; 32]]),
        seed("segment_scan", "forged_head", &[&[0, 1], &[7; 32], &[2, 0], &record_head, &[0, 1], &[8; 32]]),
        seed("segment_scan", "noise", &[&[3, 70], &[9; 70], &[0, 1], &[7; 32]]),
    ]
}

/// An input that changes the last bit of what it is about.
fn seed(target: &'static str, name: &str, parts: &[&[u8]]) -> Seed {
    let alteration = [0xff, 0xff, 0xff, 0, 1, 0, 0, 0];
    Seed { target, name: name.to_owned(), bytes: [&alteration[..], &parts.concat()].concat() }
}

/// Chunk lengths and list of two blobs, before they are sealed, behind where the list begins.
fn tail_parts() -> Vec<u8> {
    let entry = |number: u8, part| TailEntry {
        blob: BlobId([number; 16]),
        ring_key: RingKeyNumber(1),
        first_chunk: 0,
        offset: 600 * u32::from(number),
        sealed: 600,
        plain: 584,
        last: true,
        bucket: BucketId([5; 8]),
        key: b"a/key".to_vec(),
        version: VersionId([6; 16]),
        part,
        size: Some(584),
        etag: Some(Etag { md5: [7; 16], parts: 0 }),
        headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
    };
    let entries = [entry(0, None), entry(1, Some((UploadId([8; 16]), 300)))];
    let list = [vec![1], postcard::to_stdvec(&entries.to_vec()).expect("it encodes")].concat();
    let lengths = [0, 2, 500, 0x64 | 1 << 31, 600, 1, 600].map(u32::to_le_bytes).concat();
    [(lengths.len() as u16).to_le_bytes().to_vec(), lengths, list].concat()
}
