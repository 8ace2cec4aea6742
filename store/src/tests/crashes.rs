//! What is left after the machine dies.

use std::path::PathBuf;

use diptych_core::fragment::SEGMENT_HEAD_LEN;

use super::support::*;
use crate::{NewRow, Purpose, StoreError};

#[test]
fn a_row_that_was_answered_survives_any_crash() {
    for seed in 0..60 {
        let disk = formatted();
        let device = open(&disk);
        let (kept, unanswered) = (new_row(1, 0, 1), new_row(2, 0, 2));
        put(&device, &kept, &bytes(seed, 50_000)).expect("there is room");
        let mut writer = device.begin(&unanswered, 90_000, Purpose::Client).expect("there is room");
        writer.append(&bytes(seed, 90_000)).expect("it was reserved");
        disk.crash(seed);
        drop((writer, device));
        let device = open(&disk);
        assert_eq!(
            get(&device, &kept).unwrap_or_else(|error| panic!("seed {seed}: {error}")),
            bytes(seed, 50_000)
        );
        assert!(matches!(get(&device, &unanswered), Err(StoreError::NotFound { .. })), "seed {seed}");
        assert!(device.open_report().unclean);
    }
}

/// What a segment has on its disk, and where the last of its two records begins.
struct TwoRecords {
    path: PathBuf,
    whole: Vec<u8>,
    start: usize,
    first: NewRow,
    last: NewRow,
}

/// A record of 3,000 bytes, then one of `last_bytes`.
fn two_records(last_bytes: usize) -> TwoRecords {
    let disk = formatted();
    let device = open(&disk);
    let (first, last) = (new_row(1, 0, 1), new_row(2, 0, 2));
    put(&device, &first, &bytes(1, 3_000)).expect("there is room");
    let path = segments(&disk).pop().expect("there is a segment");
    let start = disk.bytes(&path).len();
    put(&device, &last, &bytes(2, last_bytes)).expect("there is room");
    let whole = disk.bytes(&path);
    TwoRecords { path, whole, start, first, last }
}

#[test]
fn a_segment_cut_at_any_byte_of_its_last_record_keeps_all_before_it() {
    let TwoRecords { path, whole, start, first, last } = two_records(700);
    for cut in start..whole.len() {
        let disk = formatted();
        disk.plant(&path, whole[..cut].to_vec());
        let device = open(&disk);
        assert_eq!(get(&device, &first).expect("it is whole"), bytes(1, 3_000), "cut at {cut}");
        assert!(matches!(get(&device, &last), Err(StoreError::NotFound { .. })), "cut at {cut}");
        put(&device, &new_row(3, 0, 3), b"goes on").expect("there is room");
    }
    let disk = formatted();
    disk.plant(&path, whole);
    assert_eq!(get(&open(&disk), &last).expect("nothing was cut"), bytes(2, 700));
}

#[test]
fn a_flipped_byte_of_the_last_record_is_never_served() {
    let TwoRecords { path, whole, start, first, last } = two_records(300);
    for at in start..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x40;
        let disk = formatted();
        disk.plant(&path, flipped);
        let device = open(&disk);
        assert_eq!(get(&device, &first).expect("it is whole"), bytes(1, 3_000), "byte {at}");
        match get(&device, &last) {
            Ok(read) => assert_eq!(read, bytes(2, 300), "byte {at} is padding"),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
}

#[test]
fn rot_in_one_head_does_not_hide_the_records_behind_it() {
    let disk = formatted();
    let device = open(&disk);
    let rows: Vec<_> = (0..3).map(|number| new_row(number, 0, u64::from(number))).collect();
    for row in &rows {
        put(&device, row, &bytes(u64::from(row.extent.0[0]), 5_000)).expect("there is room");
    }
    let path = segments(&disk).pop().expect("there is a segment");
    let middle =
        find(&disk, &path, &[1; 16]).map(|_| find(&disk, &path, &bytes(1, 64)).expect("it is there") - 128);
    disk.crash(0);
    drop(device);
    disk.flip(&path, middle.expect("it is there") + 20);
    let device = open(&disk);
    assert_eq!(get(&device, &rows[2]).expect("it is whole"), bytes(2, 5_000));
    assert!(matches!(get(&device, &rows[1]), Err(StoreError::NotFound { .. })));
}

#[test]
fn what_rots_before_a_crash_is_reported_after_it_and_not_forgotten() {
    // A byte of the record's head, of its row, of its trailer.
    for at in [20, 128 + 10, 128 + 3_000 + 80] {
        for alone in [true, false] {
            let disk = formatted();
            let device = open(&disk);
            let (rotten, sound) = (new_row(1, 0, 1), new_row(2, 0, 2));
            put(&device, &rotten, &bytes(1, 3_000)).expect("there is room");
            if !alone {
                put(&device, &sound, &bytes(2, 3_000)).expect("there is room");
            }
            let path = segments(&disk).pop().expect("there is a segment");
            disk.flip(&path, SEGMENT_HEAD_LEN + at);
            assert!(matches!(get(&device, &rotten), Err(StoreError::Rotten { .. })), "byte {at}");
            disk.crash(0);
            drop(device);
            for _ in 0..2 {
                let device = open(&disk);
                assert_eq!(device.record_count().expect("it counts"), 2 - u64::from(alone), "byte {at}");
                assert!(matches!(get(&device, &rotten), Err(StoreError::Rotten { .. })), "byte {at}");
                assert_eq!(device.findings().expect("it lists").len(), 1, "byte {at}");
                assert!(alone || get(&device, &sound).expect("it is whole") == bytes(2, 3_000));
            }
            delete(&open(&disk), &rotten).expect("what is rotten can be deleted");
        }
    }
}

#[test]
fn a_delete_that_was_answered_survives_any_crash() {
    for seed in 0..40 {
        let disk = formatted();
        let device = open(&disk);
        let rows: Vec<_> = (0..8).map(|number| new_row(number, 0, u64::from(number))).collect();
        for row in &rows {
            put(&device, row, &bytes(3, 60_000)).expect("there is room");
        }
        for row in &rows[..7] {
            delete(&device, row).expect("it is there");
        }
        if seed % 2 == 0 {
            device.reclaim().expect("it reclaims");
        }
        disk.crash(seed);
        drop(device);
        for _ in 0..2 {
            let device = open(&disk);
            assert_eq!(device.record_count().expect("it counts"), 1, "seed {seed}");
            assert_eq!(get(&device, &rows[7]).expect("it lives"), bytes(3, 60_000), "seed {seed}");
            device.close().expect("it closes");
        }
    }
}
