//! Failing syncs, full disks, rot, and files that don't belong.

use diptych_core::fragment::{Foot, Record, RecordHead, SEGMENT_HEAD_LEN, SegmentHead};
use diptych_core::ids::{ClusterId, DeviceId, Generation, SegmentId};

use super::support::*;
use crate::{Device, OpenOptions, Purpose, StoreError};

#[test]
fn a_failed_sync_closes_the_device_and_reopening_shows_what_was_kept() {
    let disk = formatted();
    let device = open(&disk);
    let (kept, lost) = (new_row(1, 0, 1), new_row(2, 0, 2));
    put(&device, &kept, &bytes(1, 30_000)).expect("there is room");
    disk.fail_syncs_after(Some(0));
    assert!(matches!(put(&device, &lost, &bytes(2, 30_000)), Err(StoreError::DeviceFailed { .. })));
    disk.fail_syncs_after(None);
    assert!(
        matches!(get(&device, &kept), Err(StoreError::DeviceFailed { .. })),
        "nothing is served from cache"
    );
    assert!(matches!(put(&device, &new_row(3, 0, 3), b"x"), Err(StoreError::DeviceFailed { .. })));
    assert!(matches!(device.admit(stamp(9)), Err(StoreError::DeviceFailed { .. })));
    assert!(matches!(device.close(), Err(StoreError::DeviceFailed { .. })));
    let device = open(&disk);
    assert_eq!(get(&device, &kept).expect("it was answered"), bytes(1, 30_000));
    match get(&device, &lost) {
        Ok(read) => assert_eq!(read, bytes(2, 30_000)),
        Err(StoreError::NotFound { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    put(&device, &new_row(3, 0, 4), b"goes on").expect("there is room");
}

#[test]
fn a_full_disk_in_the_middle_of_a_row_leaves_everything_readable() {
    let disk = formatted();
    let device = open(&disk);
    let kept = new_row(1, 0, 1);
    put(&device, &kept, &bytes(1, 30_000)).expect("there is room");
    let mut writer = device.begin(&new_row(2, 0, 2), 200_000, Purpose::Client).expect("there is room");
    disk.set_capacity(0);
    let error = (0..20).find_map(|_| writer.append(&[7; 10_000]).err()).expect("the disk is full");
    assert!(error.is_full(), "{error}");
    drop(writer);
    assert!(put(&device, &new_row(3, 0, 3), b"no room").expect_err("the disk is full").is_full());
    assert_eq!(get(&device, &kept).expect("it reads"), bytes(1, 30_000));
    disk.set_capacity(1 << 40);
    put(&device, &new_row(4, 0, 4), b"room again").expect("there is room");
    disk.crash(3);
    drop(device);
    let device = open(&disk);
    assert_eq!(get(&device, &kept).expect("it reads"), bytes(1, 30_000));
    assert_eq!(get(&device, &new_row(4, 0, 4)).expect("it reads"), b"room again");
}

#[test]
fn a_device_on_a_disk_without_a_byte_left_opens_and_reads() {
    let disk = formatted();
    let device = open(&disk);
    let rows: Vec<_> = (0..40).map(|number| new_row(number, 0, u64::from(number))).collect();
    for row in &rows {
        put(&device, row, &bytes(u64::from(row.extent.0[0]), 20_000)).expect("there is room");
    }
    disk.crash(8);
    drop(device);
    disk.plant(&folder().join("index.redb"), Vec::new());
    disk.set_capacity(0);
    let device = open(&disk);
    assert!(device.open_report().index_in_memory);
    for row in &rows {
        assert_eq!(get(&device, row).expect("it reads"), bytes(u64::from(row.extent.0[0]), 20_000));
    }
    assert!(put(&device, &new_row(99, 0, 99), b"no room").expect_err("the disk is full").is_full());
    drop(device);
    disk.set_capacity(1 << 40);
    let device = open(&disk);
    assert!(!device.open_report().index_in_memory);
    assert_eq!(device.record_count().expect("it counts"), 40);
    put(&device, &new_row(99, 0, 99), b"room again").expect("there is room");
}

#[test]
fn an_index_that_fails_closes_the_device_and_is_made_anew() {
    let disk = formatted();
    let device = open(&disk);
    let row = new_row(1, 0, 1);
    put(&device, &row, &bytes(1, 30_000)).expect("there is room");
    device.log().fail_index();
    assert!(matches!(get(&device, &row), Err(StoreError::DeviceFailed { .. })));
    drop(device);
    let device = open(&disk);
    assert!(device.open_report().index_rebuilt);
    assert_eq!(get(&device, &row).expect("it reads"), bytes(1, 30_000));
}

#[test]
fn clients_are_refused_before_repair_and_deletes_never() {
    let disk = formatted();
    let options = OpenOptions { capacity: Some(8 << 20), ..options() };
    let device = Device::open_on(std::sync::Arc::new(disk.mounted()), &folder(), options).expect("it opens");
    let put = |number: u64, purpose| {
        let row = new_row((number % 200) as u8, (number / 200) as u8, number);
        place(&device, &row, &bytes(number, 20_000), purpose).and_then(crate::Pending::wait)
    };
    let full = (0..1_000).find_map(|number| put(number, Purpose::Client).err().map(|error| (number, error)));
    let (written, error) = full.expect("it fills up");
    assert!(matches!(error, StoreError::DeviceFull { limit_percent: 90, .. }), "{error}");
    assert!(written > 100, "{written} rows");
    put(5_000, Purpose::Repair).expect("repair may go on to 95 %");
    let full = (5_001..6_000).find_map(|number| put(number, Purpose::Repair).err()).expect("it fills up");
    assert!(matches!(full, StoreError::DeviceFull { limit_percent: 95, .. }), "{full}");
    for number in 0..written {
        let row = new_row((number % 200) as u8, (number / 200) as u8, number);
        delete(&device, &row).expect("deletes go on");
    }
    device.reclaim().expect("it reclaims");
    put(9_000, Purpose::Client).expect("there is room again");
}

#[test]
fn rot_is_quarantined_reported_and_found_again_after_a_reopen() {
    let disk = formatted();
    let device = open(&disk);
    let (rotten, sound) = (new_row(1, 0, 1), new_row(2, 0, 2));
    put(&device, &rotten, &bytes(1, 100_000)).expect("there is room");
    put(&device, &sound, &bytes(2, 100_000)).expect("there is room");
    let path = segments(&disk).remove(0);
    let at = find(&disk, &path, &bytes(1, 64)).expect("it is there");
    disk.flip(&path, at + 70_000);
    let first = device.read(rotten.extent, rotten.row, None, 0..65_536).expect("that block is sound");
    assert_eq!(first, bytes(1, 100_000)[..65_536]);
    let error = device.read(rotten.extent, rotten.row, None, 70_000..70_001).expect_err("it is rotten");
    assert!(matches!(error, StoreError::Rotten { .. }), "{error}");
    let error = device.read(rotten.extent, rotten.row, None, 0..1).expect_err("it is in quarantine");
    assert!(error.to_string().contains("block 1 of the row has checksum"), "{error}");
    disk.crash(5);
    drop(device);
    let device = open(&disk);
    let findings = device.findings().expect("it lists");
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].key.instance, rotten.instance);
    assert_eq!(get(&device, &sound).expect("it reads"), bytes(2, 100_000));
    delete(&device, &rotten).expect("what is rotten can be deleted");
    assert!(device.findings().expect("it lists").is_empty());
}

#[test]
fn a_row_in_quarantine_that_is_put_right_is_served_again() {
    let disk = formatted();
    let device = open(&disk);
    let row = new_row(1, 0, 1);
    put(&device, &row, &bytes(1, 100_000)).expect("there is room");
    let path = segments(&disk).remove(0);
    let at = find(&disk, &path, &bytes(1, 64)).expect("it is there");
    disk.flip(&path, at + 70_000);
    device.read(row.extent, row.row, None, 70_000..70_001).expect_err("it is rotten");
    device.read(row.extent, row.row, None, 0..1).expect_err("no part of it is served while it is rotten");
    disk.flip(&path, at + 70_000);
    assert_eq!(get(&device, &row).expect("it reads"), bytes(1, 100_000));
    assert!(device.findings().expect("it lists").is_empty());
}

#[test]
fn scrub_finds_each_rotten_record_once_and_remembers_where_it_was() {
    let disk = formatted();
    let device = open(&disk);
    for number in 0..20 {
        put(&device, &new_row(number, 0, u64::from(number)), &bytes(u64::from(number), 9_000))
            .expect("there is room");
    }
    for number in [4_u64, 15] {
        for path in segments(&disk) {
            if let Some(at) = find(&disk, &path, &bytes(number, 64)) {
                disk.flip(&path, at + 8_000);
            }
        }
    }
    let first = device.scrub_step(30_000, 111).expect("it reads");
    assert!(!first.finished && first.records < 20, "{first:?}");
    let after = device.scrub_state().expect("it knows").after;
    assert!(after.is_some());
    device.close().expect("it closes");
    let device = open(&disk);
    assert_eq!(device.scrub_state().expect("it knows").after, after);
    let (mut rotten, mut finished) = (first.rotten, false);
    while !finished {
        let step = device.scrub_step(30_000, 222).expect("it reads");
        rotten += step.rotten;
        finished = step.finished;
    }
    assert_eq!(rotten, 2);
    assert_eq!(device.findings().expect("it lists").len(), 2);
    let state = device.scrub_state().expect("it knows");
    assert_eq!((state.after, state.last_finished_ms), (None, Some(222)));
}

#[test]
fn only_what_a_whole_round_has_read_and_found_right_counts_as_verified() {
    let disk = formatted();
    let device = open(&disk);
    let write = |device: &Device, number: u64| {
        put(device, &new_row(number as u8, 0, number), &bytes(number, 9_000)).expect("there is room");
    };
    let count = |device: &Device, ms: Option<u64>| {
        let all = device.inventory(None, None, 1_000).expect("it lists");
        all.iter().filter(|entry| entry.verified_ms == ms).count()
    };
    let round =
        |device: &Device, now_ms| while !device.scrub_step(30_000, now_ms).expect("it reads").finished {};
    (1..=10).for_each(|number| write(&device, number));
    assert!(!device.scrub_step(1, 100).expect("it reads").finished);
    write(&device, 0);
    device.close().expect("it closes");
    let device = open(&disk);
    assert_eq!(count(&device, None), 11, "half a round says nothing");
    round(&device, 200);
    assert_eq!(
        (count(&device, Some(100)), count(&device, None)),
        (10, 1),
        "what came after the round began is not answered for"
    );
    let path = segments(&disk).remove(0);
    let at = find(&disk, &path, &bytes(4, 64)).expect("it is there");
    disk.flip(&path, at + 8_000);
    round(&device, 300);
    assert_eq!((count(&device, Some(300)), count(&device, None)), (10, 1), "what is rotten is not verified");
}

#[test]
fn rot_that_is_only_on_the_platter_is_seen_by_verify() {
    let disk = formatted();
    let device = open(&disk);
    let row = new_row(1, 0, 1);
    put(&device, &row, &bytes(1, 30_000)).expect("there is room");
    let path = segments(&disk).pop().expect("there is a segment");
    let at = find(&disk, &path, &bytes(1, 64)).expect("it is there");
    disk.flip_platter(&path, at + 9);
    assert_eq!(get(&device, &row).expect("memory has it right"), bytes(1, 30_000));
    assert!(matches!(device.verify(row.extent, row.row, None), Err(StoreError::Rotten { .. })));
}

fn segment_of(cluster: u8, format: u16) -> Vec<u8> {
    let head = SegmentHead {
        cluster: ClusterId([cluster; 16]),
        device: DeviceId(7),
        generation: Generation(1),
        segment: SegmentId([4; 16]),
    };
    let mut bytes = head.encode();
    bytes[8..10].copy_from_slice(&format.to_le_bytes());
    let covered = bytes.len() - 4;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[4; 16]), &bytes[..covered]);
    bytes[covered..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_segment_of_another_cluster_is_refused_by_name_and_left_alone() {
    let disk = formatted();
    let path = folder().join("segments/0000000000000005.segment");
    disk.plant(&path, segment_of(9, 1));
    let error = try_open(&disk).expect_err("it is another's");
    assert!(matches!(error, StoreError::ForeignSegment { .. }), "{error}");
    assert_eq!(disk.bytes(&path), segment_of(9, 1));
}

#[test]
fn a_segment_of_a_newer_format_is_refused_and_left_alone() {
    let disk = formatted();
    let path = folder().join("segments/0000000000000005.segment");
    disk.plant(&path, segment_of(1, 2));
    let error = try_open(&disk).expect_err("it is newer");
    assert!(matches!(error, StoreError::UnknownFormat { found: 2, known: 1, .. }), "{error}");
    assert_eq!(disk.bytes(&path), segment_of(1, 2));
}

#[test]
fn a_device_that_lost_a_segment_goes_on_without_its_records() {
    let disk = formatted();
    let device = open(&disk);
    for number in 0..10 {
        put(&device, &new_row(number, 0, u64::from(number)), &bytes(u64::from(number), 60_000))
            .expect("there is room");
    }
    device.close().expect("it closes");
    let first = segments(&disk).remove(0);
    crate::disk::Disk::remove(&disk, &first).expect("it is there");
    let device = open(&disk);
    assert!(device.open_report().index_rebuilt);
    assert!(matches!(get(&device, &new_row(0, 0, 0)), Err(StoreError::NotFound { .. })));
    assert_eq!(get(&device, &new_row(9, 0, 9)).expect("it is there"), bytes(9, 60_000));
}

#[test]
fn a_head_with_a_right_checksum_that_claims_endless_room_hides_nothing() {
    let disk = formatted();
    let device = open(&disk);
    let row = new_row(1, 0, 1);
    put(&device, &row, &bytes(1, 3_000)).expect("there is room");
    disk.crash(0);
    drop(device);
    let path = segments(&disk).pop().expect("there is a segment");
    let mut log = disk.bytes(&path);
    let segment = SegmentHead::parse(&log, None).expect("it is whole").segment;
    let Ok(Record::Row(head)) = Record::parse(&log[SEGMENT_HEAD_LEN..], segment, None) else {
        panic!("there is a row");
    };
    let written = log.len();
    log.extend_from_slice(&RecordHead { reserved: u64::MAX - 63, ..head }.encode(segment));
    log.extend_from_within(SEGMENT_HEAD_LEN..written);
    disk.plant(&path, log);
    let device = open(&disk);
    assert_eq!(get(&device, &row).expect("it is whole"), bytes(1, 3_000));
    put(&device, &new_row(2, 0, 2), b"goes on").expect("there is room");
}

#[test]
fn a_foot_with_a_right_checksum_that_names_impossible_records_is_not_believed() {
    let disk = formatted();
    let device = open(&disk);
    let row = new_row(1, 0, 1);
    put(&device, &row, &bytes(1, 3_000)).expect("there is room");
    device.close().expect("it closes");
    let path = segments(&disk).pop().expect("it is sealed");
    let mut log = disk.bytes(&path);
    let segment = SegmentHead::parse(&log, None).expect("it is whole").segment;
    let mut foot = Foot::parse(&log, segment, log.len() as u64).expect("it is sealed");
    foot.entries[0].offset = u64::MAX - 63;
    log.truncate(log.len() - Foot::len_for(1));
    log.extend_from_slice(&foot.encode(segment));
    disk.plant(&path, log);
    disk.plant(&folder().join("index.redb"), Vec::new());
    let device = open(&disk);
    device.verify(row.extent, row.row, None).expect("it was found by its head");
    assert_eq!(get(&device, &row).expect("it is whole"), bytes(1, 3_000));
}
