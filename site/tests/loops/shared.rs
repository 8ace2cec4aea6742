//! Shared extents as the gateway writes them: sealed blobs and a tail, named by heads.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use diptych_catalog::View;
use diptych_core::chunk::ChunkSealer;
use diptych_core::cipher::RustCryptoAesGcm;
use diptych_core::ids::{BlobId, BucketId, DeviceId, ExtentId, Hlc, Row, VersionId};
use diptych_core::journal::open_run;
use diptych_core::keyring::Keyring;
use diptych_core::keys::{self, Key};
use diptych_core::records::{
    Blob, Content, DeadMark, Etag, Extent, ExtentState, Head, HeadBody, Holds, Layout, Object, Piece,
    PlacedRow, Placement, Record, VersionRef,
};
use diptych_core::tail::{Tail, TailBuilder, TailEntry};
use diptych_core::whole;

use crate::harness::{EPOCH, East, NEEDED, ROWS, east, west};
use crate::support::{content, facts, place};

pub(crate) const BUCKET: BucketId = BucketId([3; 8]);

/// What clients stored and read.
#[derive(Default)]
pub(crate) struct Objects {
    /// By key, the plaintext.
    pub(crate) stored: BTreeMap<String, Vec<u8>>,
    made: u64,
}

fn blob_of(head: &Head) -> &Blob {
    let HeadBody::Object(object) = &head.body else { unreachable!("{head:?} is no object") };
    let Content::Inline(blobs) = &object.content else { unreachable!("{head:?} has pages") };
    &blobs[0]
}

fn mark(blob: &Blob) -> (Key, Vec<u8>) {
    let piece = blob.pieces[0];
    (keys::dead_mark(piece.extent, blob.id), DeadMark { sealed: u64::from(piece.sealed) }.encode())
}

impl Objects {
    fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// Stores objects of so many bytes together in one extent, and what they replace dies.
    pub(crate) async fn put(&mut self, site: &East, objects: &[(&str, usize)]) -> ExtentId {
        self.put_from(site, objects, Row(0)).await
    }

    /// As `put`; the site has the rows from `first` on: not from 0 where the other one wrote.
    pub(crate) async fn put_from(&mut self, site: &East, objects: &[(&str, usize)], first: Row) -> ExtentId {
        let keyring = keyring(site).await;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.number().to_be_bytes());
        let extent = ExtentId(id);
        let (mut bytes, mut tail, mut changes) = (Vec::new(), TailBuilder::new(), Vec::new());
        for &(key, len) in objects {
            let number = self.number();
            let plain = content(number, len);
            let (head, entry) = self.seal(&keyring, extent, key, &plain, &mut bytes, &mut tail);
            changes.extend(replacing(site, key, Some((head, entry.version))).await);
            self.stored.insert(key.to_owned(), plain);
        }
        let payload = bytes.len() as u32;
        bytes.extend(tail.finish(extent, keyring.current(), &[7; 12]).expect("a tail"));
        let (record, placement) = write_rows(site, extent, payload, &bytes, first).await;
        changes.push((keys::extent(extent), Some(record.encode())));
        changes.push((keys::placement(&east(), extent), Some(placement.encode())));
        crate::resurrecting::commit(site, changes).await;
        extent
    }

    fn seal(
        &mut self,
        keyring: &Keyring,
        extent: ExtentId,
        key: &str,
        plain: &[u8],
        bytes: &mut Vec<u8>,
        tail: &mut TailBuilder,
    ) -> (Head, TailEntry) {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&self.number().to_be_bytes());
        let (blob, version, ring_key) = (BlobId(id), VersionId(id), keyring.current());
        let offset = bytes.len() as u32;
        let mut sealer = ChunkSealer::new(blob, ring_key.blob_key(blob), Arc::new(RustCryptoAesGcm));
        let chunk = sealer.seal(plain, true, bytes).expect("one chunk");
        let piece = Piece {
            extent,
            first_chunk: 0,
            offset,
            sealed: bytes.len() as u32 - offset,
            plain: plain.len() as u32,
            last: true,
            layout: Layout::Plain,
        };
        let entry = TailEntry {
            blob,
            ring_key: ring_key.number(),
            first_chunk: 0,
            offset,
            sealed: piece.sealed,
            plain: piece.plain,
            last: true,
            bucket: BUCKET,
            key: key.as_bytes().to_vec(),
            version,
            part: None,
            size: Some(plain.len() as u64),
            etag: None,
            headers: Vec::new(),
        };
        tail.add(entry.clone(), &[chunk]);
        let object = Object {
            size: plain.len() as u64,
            etag: Etag { md5: [0; 16], parts: 0 },
            modified_ms: 0,
            headers: vec![],
            tags: vec![],
            content: Content::Inline(vec![Blob {
                id: blob,
                ring_key: ring_key.number(),
                pieces: vec![piece],
            }]),
        };
        let at = VersionRef { epoch: EPOCH, hlc: Hlc(self.number()), version };
        (Head::new(at, None, HeadBody::Object(Box::new(object))), entry)
    }

    /// Deletes an object.
    pub(crate) async fn delete(&mut self, site: &East, key: &str) {
        let changes = replacing(site, key, None).await;
        crate::resurrecting::commit(site, changes).await;
        self.stored.remove(key);
    }

    /// Reads every object by its head, as a reader with the keyring does, and compares it with what was stored.
    pub(crate) async fn all_read(&self, site: &East) {
        for (key, plain) in &self.stored {
            assert!(&read(site, key).await == plain, "{key} reads otherwise than it was stored");
        }
    }
}

async fn head(site: &East, key: &str) -> Head {
    let raw = site.get(&keys::head(BUCKET, key.as_bytes())).await.expect("a head");
    Head::decode(&raw).expect("it reads")
}

/// What an object's bytes are called.
pub(crate) async fn blob_id(site: &East, key: &str) -> BlobId {
    blob_of(&head(site, key).await).id
}

/// Where an object's bytes lie.
pub(crate) async fn extent_of(site: &East, key: &str) -> ExtentId {
    blob_of(&head(site, key).await).pieces[0].extent
}

/// A new head, or none, and what becomes of the one before: an older version that goes, and a mark.
async fn replacing(site: &East, key: &str, new: Option<(Head, VersionId)>) -> Vec<(Key, Option<Vec<u8>>)> {
    let name = keys::head(BUCKET, key.as_bytes());
    let mut changes = Vec::new();
    if let Some(raw) = site.get(&name).await {
        let old = Head::decode(&raw).expect("it reads");
        let older = keys::older_version(BUCKET, key.as_bytes(), old.at.epoch, old.at.hlc);
        let (mark, value) = mark(blob_of(&old));
        changes.extend([(older, Some(raw.to_vec())), (mark, Some(value))]);
    }
    changes.push((name, new.map(|(head, _)| head.encode())));
    changes
}

async fn keyring(site: &East) -> Keyring {
    let sealed = site.get(&keys::keyring()).await.expect("a keyring");
    site.context.cluster_keys.open(&sealed).expect("it opens")
}

async fn write_rows(
    site: &East,
    extent: ExtentId,
    payload: u32,
    bytes: &[u8],
    first: Row,
) -> (Extent, Placement) {
    let facts = facts(extent, NEEDED, bytes);
    let numbers: Vec<Row> = (first.0..first.0 + ROWS).map(Row).collect();
    let rows = whole::split(NEEDED, &numbers, bytes).expect("it splits");
    let mut placed = Vec::new();
    for (device, (row, row_bytes)) in (0..).zip(numbers.into_iter().zip(rows)) {
        let client = site.site.gateway(device as usize / 2);
        let instance = place(&client, &facts, device, row.0, &row_bytes).await;
        placed.push(PlacedRow { row, device: DeviceId(device), instance });
    }
    let other = Row(ROWS - first.0);
    let record = Extent {
        state: ExtentState::Live,
        holds: Holds::Data,
        length: facts.length,
        payload,
        hash: facts.hash,
        needed: NEEDED,
        rows: vec![(east(), first, ROWS), (west(), other, ROWS)],
        epoch: EPOCH,
        hlc: facts.birth_hlc,
    };
    (record, Placement { rows: placed, verified_day: 0 })
}

/// All bytes of an extent, from the rows that its placement names.
pub(crate) async fn bytes_of(site: &East, extent: ExtentId) -> Vec<u8> {
    let raw = site.get(&keys::extent(extent)).await.expect("it is known");
    let record = Extent::decode(&raw).expect("it reads");
    let raw = site.get(&keys::placement(&east(), extent)).await.expect("it is placed");
    let mut rows: Vec<(Row, Bytes)> = Vec::new();
    for placed in Placement::decode(&raw).expect("it reads").rows {
        rows.extend(site.read(extent, &placed).await.map(|bytes| (placed.row, bytes)));
    }
    let found = whole::recover(record.needed, u64::from(record.length), &record.hash, &rows);
    found.expect("its rows give its hash")
}

async fn read(site: &East, key: &str) -> Vec<u8> {
    let head = head(site, key).await;
    let blob = blob_of(&head);
    let piece = blob.pieces[0];
    let bytes = bytes_of(site, piece.extent).await;
    let (tail, keyring) = (Tail::parse(&bytes).expect("a tail"), keyring(site).await);
    let entries = tail.open(piece.extent, &keyring).expect("its list opens");
    let is_it = |entry: &&TailEntry| (entry.blob, entry.offset) == (blob.id, piece.offset);
    let entry = entries.iter().find(is_it).expect("its tail lists it");
    assert_eq!((&entry.key[..], entry.version), (key.as_bytes(), head.at.version));
    open_run(&bytes, &tail, entry, &keyring).expect("every chunk opens")
}

/// Extents of objects' bytes that the catalog has, condemned ones too.
pub(crate) fn extents(view: &dyn View) -> BTreeMap<ExtentId, Extent> {
    let all = view.scan(&keys::extents(), 100_000).expect("it reads").entries;
    let known = all
        .into_iter()
        .filter_map(|(key, raw)| Some((keys::extent_of(&key)?, Extent::decode(&raw).expect("it reads"))));
    known.filter(|(_, record)| record.holds == Holds::Data).collect()
}

/// Bytes of all records on all devices.
pub(crate) async fn used(site: &East) -> u64 {
    let mut used = 0;
    for device in 0..2 * site.site.agents.len() as u32 {
        let client = site.site.operator(device as usize / 2);
        let page = client.inventory(DeviceId(device), None, None, 10_000).await.expect("a page");
        used += page.records.iter().map(|record| record.record_bytes).sum::<u64>();
    }
    used
}
