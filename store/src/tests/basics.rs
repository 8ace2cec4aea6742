//! What a device does when nothing goes wrong.

use std::thread;

use diptych_core::ids::{ClusterId, DeviceId, Generation};
use diptych_core::records::{ExtentKind, Position};

use super::support::*;
use crate::{
    Commits, Deleted, Device, DeviceIdentity, ExpectedIdentity, Keyring, NewRow, OpenOptions, Purpose,
    StoreError, WholeRow,
};

#[test]
fn a_row_reads_back_whole_and_in_ranges_after_a_reopen() {
    let disk = formatted();
    let device = open(&disk);
    let (row, content) = (new_row(1, 2, 3), bytes(1, 150_000));
    put(&device, &row, &content).expect("there is room");
    for reopened in [false, true] {
        let device = if reopened {
            device.close().expect("it closes");
            open(&disk)
        } else {
            device.clone()
        };
        assert_eq!(get(&device, &row).expect("it reads"), content);
        for range in [0..1, 65_535..65_537, 149_999..150_000, 70_000..140_000, 5..5] {
            let read = device.read(row.extent, row.row, None, range.clone()).expect("it is in the row");
            assert_eq!(read, content[range.start as usize..range.end as usize], "{range:?}");
        }
        let error = device.read(row.extent, row.row, None, 0..150_001).expect_err("that is too far");
        assert!(matches!(error, StoreError::OutOfRange { row_bytes: 150_000, .. }), "{error}");
    }
}

#[test]
fn who_writes_alone_shares_no_commit() {
    let device = open(&formatted());
    for number in 1..=3 {
        put(&device, &new_row(1, 2, number), b"a row").expect("there is room");
    }
    assert_eq!(device.commits(), Commits { batches: 3, records: 3 });
}

#[test]
fn a_row_written_in_pieces_is_described_as_it_was_sealed() {
    let disk = formatted();
    let device = open(&disk);
    let (row, content) = (new_row(1, 2, 3), bytes(2, 70_001));
    let mut writer = device.begin(&row, 100_000, Purpose::Client).expect("there is room");
    for piece in content.chunks(1_111) {
        writer.append(piece).expect("it was reserved");
    }
    let error = writer.append(&vec![0; 30_000]).expect_err("that passes the reservation");
    assert!(matches!(error, StoreError::TooLong { limit: 100_000, .. }), "{error}");
    let sealed = writer.seal(&end()).expect("it is whole").wait().expect("it is durable");
    assert_eq!(sealed.row_bytes, 70_001);
    let described = device.describe(row.extent, row.row, None).expect("it is there");
    assert_eq!((described.row, described.end, described.row_bytes), (row.clone(), end(), 70_001));
    assert_eq!(get(&device, &row).expect("it reads"), content);
    let verified = device.verify(row.extent, row.row, None).expect("it is whole");
    assert_eq!((verified.row_bytes, verified.extent_hash), (70_001, [9; 32]));
    assert_eq!(device.read_uncached(row.extent, row.row, None).expect("it reads"), content);
}

#[test]
fn rows_written_at_once_by_many_threads_are_all_there() {
    let disk = formatted();
    let device = open(&disk);
    thread::scope(|scope| {
        for thread in 0..8_u8 {
            let device = &device;
            scope.spawn(move || {
                for number in 0..20_u64 {
                    let row = new_row(thread, number as u8, u64::from(thread) * 100 + number);
                    let content = bytes(number, 100 + 3_000 * number as usize);
                    put(device, &row, &content).expect("there is room");
                    assert_eq!(get(device, &row).expect("it reads"), content);
                }
            });
        }
    });
    assert_eq!(device.record_count().expect("it counts"), 160);
    device.close().expect("it closes");
    let device = open(&disk);
    assert_eq!(device.open_report().replayed, 0, "a clean close leaves nothing to replay");
    assert!(!device.open_report().unclean);
    assert_eq!(get(&device, &new_row(3, 19, 319)).expect("it reads"), bytes(19, 57_100));
}

#[test]
fn an_instance_is_used_once_even_after_its_delete() {
    let disk = formatted();
    let device = open(&disk);
    let row = new_row(1, 1, 1);
    put(&device, &row, b"once").expect("there is room");
    assert!(matches!(put(&device, &row, b"twice"), Err(StoreError::InstanceUsed { .. })));
    delete(&device, &row).expect("it is there");
    assert!(matches!(put(&device, &row, b"again"), Err(StoreError::InstanceUsed { .. })));
    assert!(matches!(get(&device, &row), Err(StoreError::NotFound { .. })));
}

#[test]
fn a_delete_names_one_record_of_a_row() {
    let disk = formatted();
    let device = open(&disk);
    let (old, new) = (new_row(1, 1, 1), new_row(1, 1, 2));
    put(&device, &old, b"old").expect("there is room");
    put(&device, &new, b"new").expect("there is room");
    assert_eq!(device.instances(old.extent, old.row).expect("it lists").len(), 2);
    assert_eq!(device.read(old.extent, old.row, None, 0..3).expect("it reads"), &b"new"[..]);
    delete(&device, &new).expect("it is there");
    assert_eq!(device.read(old.extent, old.row, None, 0..3).expect("it reads"), &b"old"[..]);
    let again = device.delete(new.extent, new.row, new.instance, stamp(1)).expect("it is asked").wait();
    assert_eq!(again.expect("it is answered"), Deleted::NothingThere);
}

#[test]
fn lower_stamps_and_older_keyrings_are_refused_after_a_reopen() {
    let disk = formatted();
    let device = open(&disk);
    let row = new_row(1, 1, 1);
    put(&device, &row, b"row").expect("there is room");
    device.admit(stamp(5)).expect("higher passes");
    let keyring = Keyring { number: Generation(3), bytes: b"wrapped".to_vec() };
    device.put_keyring(keyring.clone()).expect("it is the first");
    device.close().expect("it closes");
    let device = open(&disk);
    assert_eq!(device.highest_stamp(), stamp(5));
    let error =
        device.delete(row.extent, row.row, row.instance, stamp(4)).expect_err("the sender was replaced");
    assert_eq!(
        error.to_string(),
        "stamp 4.1 is lower than 5.1, which this device has seen: the sender has been replaced"
    );
    assert_eq!(device.keyring(), Some(keyring.clone()));
    let older = Keyring { number: Generation(2), bytes: b"old".to_vec() };
    assert!(matches!(device.put_keyring(older), Err(StoreError::OldKeyring { given: 2, kept: 3 })));
    device.put_keyring(keyring).expect("the same is no change");
}

#[test]
fn the_inventory_pages_through_everything_in_order() {
    let disk = formatted();
    let device = open(&disk);
    for number in 0..25_u8 {
        put(&device, &new_row(number / 5, number % 5, u64::from(number)), b"row").expect("there is room");
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = device.inventory(after, None, 4).expect("it lists");
        let Some(last) = page.last() else { break };
        after = Some(last.key);
        seen.extend(page.iter().map(|entry| entry.key));
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted());
}

#[test]
fn records_of_one_kind_are_listed_by_themselves() {
    let disk = formatted();
    let device = open(&disk);
    let first_position = Some(Position { incarnation: 7, revision: 1 });
    for number in 0..25_u8 {
        let row = new_row(number, 0, u64::from(number));
        let journal = NewRow { kind: ExtentKind::Journal, first_position, ..row.clone() };
        put(&device, if number % 5 == 0 { &journal } else { &row }, b"row").expect("there is room");
    }
    let (mut after, mut seen) = (None, Vec::new());
    while let Some(last) = {
        let page = device.inventory(after, Some(ExtentKind::Journal), 2).expect("it lists");
        seen.extend(page.iter().map(|entry| entry.key.extent.0[0]));
        page.last().copied()
    } {
        after = Some(last.key);
    }
    assert_eq!(seen, [0, 5, 10, 15, 20]);
    assert!(device.inventory(None, Some(ExtentKind::Checkpoint), 2).expect("it lists").is_empty());
}

#[test]
fn a_segment_in_which_all_is_dead_is_unlinked_and_stays_gone() {
    let disk = formatted();
    let device = open(&disk);
    let rows: Vec<_> = (0..12).map(|number| new_row(number, 0, u64::from(number))).collect();
    for row in &rows {
        put(&device, row, &bytes(u64::from(row.extent.0[0]), 60_000)).expect("there is room");
    }
    let before = segments(&disk).len();
    assert!(before >= 3, "{before} segments");
    let reader = device.clone();
    for row in &rows[..11] {
        delete(&device, row).expect("it is there");
    }
    device.reclaim().expect("it reclaims");
    assert!(segments(&disk).len() < before, "{} segments of {before}", segments(&disk).len());
    assert_eq!(get(&reader, &rows[11]).expect("it lives"), bytes(11, 60_000));
    device.close().expect("it closes");
    drop((device, reader));
    let device = open(&disk);
    assert_eq!(device.record_count().expect("it counts"), 1);
    assert_eq!(get(&device, &rows[11]).expect("it lives"), bytes(11, 60_000));
}

#[test]
fn what_was_deleted_stays_deleted_when_the_index_is_made_anew() {
    let disk = formatted();
    let device = open(&disk);
    let (kept, deleted) = (new_row(1, 0, 1), new_row(2, 0, 2));
    for row in [&kept, &deleted] {
        put(&device, row, &bytes(7, 100_000)).expect("there is room");
    }
    delete(&device, &deleted).expect("it is there");
    device.close().expect("it closes");
    disk.plant(&folder().join("index.redb"), b"this is no index".to_vec());
    let device = open(&disk);
    assert!(device.open_report().index_rebuilt);
    assert_eq!(get(&device, &kept).expect("it lives"), bytes(7, 100_000));
    assert!(matches!(get(&device, &deleted), Err(StoreError::NotFound { .. })));
    assert_eq!(device.record_count().expect("it counts"), 1);
}

#[test]
fn a_real_folder_is_formatted_opened_once_and_known_by_its_identity() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("d0");
    assert!(matches!(Device::open(&path, options()), Err(StoreError::Missing { .. })));
    Device::format(&path, &identity()).expect("it is empty");
    assert!(matches!(Device::format(&path, &identity()), Err(StoreError::AlreadyFormatted { .. })));
    let device =
        Device::open(&path, OpenOptions { zero_ahead_bytes: 128 << 10, ..options() }).expect("it opens");
    assert!(matches!(Device::open(&path, options()), Err(StoreError::InUse { .. })));
    for number in 0..30 {
        put(&device, &new_row(1, number, u64::from(number)), &bytes(u64::from(number), 20_000))
            .expect("room");
    }
    device.close().expect("it closes");
    let DeviceIdentity { cluster, site, device: number, .. } = identity();
    let expect = ExpectedIdentity { cluster: ClusterId([2; 16]), site: site.clone(), device: number };
    let error =
        Device::open(&path, OpenOptions { expect: Some(expect), ..options() }).expect_err("another's");
    assert!(matches!(error, StoreError::WrongIdentity { what: "cluster", .. }), "{error}");
    let expect = ExpectedIdentity { cluster, site: site.clone(), device: DeviceId(8) };
    let error =
        Device::open(&path, OpenOptions { expect: Some(expect), ..options() }).expect_err("another's");
    assert!(error.to_string().contains("has device 7, expected 8"), "{error}");
    let expect = ExpectedIdentity { cluster, site, device: number };
    let device =
        Device::open(&path, OpenOptions { expect: Some(expect), ..options() }).expect("it is the one");
    assert_eq!(get(&device, &new_row(1, 29, 29)).expect("it reads"), bytes(29, 20_000));
    device.verify(new_row(1, 29, 29).extent, new_row(1, 29, 29).row, None).expect("it is on the disk");
}

#[test]
fn a_folder_with_something_in_it_is_not_formatted() {
    let home = tempfile::tempdir().expect("a folder");
    std::fs::write(home.path().join("thesis.tex"), b"precious").expect("it writes");
    let error = Device::format(home.path(), &identity()).expect_err("it is not empty");
    assert!(error.to_string().contains("thesis.tex is there"), "{error}");
}

#[tokio::test]
async fn a_durable_answer_can_be_awaited() {
    let disk = formatted();
    let device = open(&disk);
    let pending = place(&device, &new_row(1, 1, 1), b"row", Purpose::Client).expect("there is room");
    assert_eq!(pending.await.expect("it is durable").row_bytes, 3);
}

#[test]
fn a_row_whose_command_was_overtaken_by_a_newer_sender_is_not_written() {
    let disk = formatted();
    let device = open(&disk);
    device.admit(stamp(5)).expect("it is the first one");
    for len in [10, 100_000] {
        let whole = WholeRow {
            stamp: stamp(4),
            row: new_row(1, 1, 1),
            bytes: bytes(1, len).into(),
            end: end(),
            purpose: Purpose::Client,
        };
        let refused =
            device.place(whole).and_then(crate::Pending::wait).expect_err("it is of an older sender");
        assert!(matches!(refused, StoreError::OldStamp { .. }), "{refused}");
    }
    assert_eq!(device.record_count().expect("it knows"), 0);
}
