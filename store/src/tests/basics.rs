//! What a device does when nothing goes wrong.

use diptych_core::ids::{ClusterId, DeviceId};

use super::support::*;
use crate::{Commits, Device, DeviceIdentity, ExpectedIdentity, OpenOptions, StoreError};

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

#[test]
fn who_writes_alone_shares_no_commit() {
    let device = open(&formatted());
    for number in 1..=3 {
        put(&device, &new_row(1, 2, number), b"a row").expect("there is room");
    }
    assert_eq!(device.commits(), Commits { batches: 3, records: 3 });
}
