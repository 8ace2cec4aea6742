//! `inspect` beside an open device.

use std::fs;

use super::support::*;
use crate::inspect::{self, RecordState};
use crate::{Device, Purpose};

#[test]
fn inspect_sees_every_state_of_a_record_while_the_device_is_open() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("d0");
    Device::format(&path, &identity()).expect("it is empty");
    let device = Device::open(&path, options()).expect("it opens");
    let (whole, deleted, rotten, open) =
        (new_row(1, 0, 1), new_row(2, 0, 2), new_row(3, 0, 3), new_row(4, 0, 4));
    for row in [&whole, &deleted, &rotten] {
        put(&device, row, &bytes(u64::from(row.extent.0[0]), 10_000)).expect("there is room");
    }
    delete(&device, &deleted).expect("it is there");
    let mut writer = device.begin(&open, 5_000, Purpose::Client).expect("there is room");
    writer.append(b"half").expect("it was reserved");
    let found = inspect::device(&path).expect("it reads");
    assert_eq!((found.identity, found.segments.len()), (identity(), 1));
    let segment = &found.segments[0];
    let mut content = fs::read(segment).expect("it reads");
    let at = content.windows(64).position(|window| window == &bytes(3, 64)[..]).expect("it is there");
    content[at + 5_000] ^= 1;
    fs::write(segment, content).expect("it writes");

    let records = inspect::records(&path).expect("it reads");
    let states: Vec<_> = records.iter().map(|record| record.state.clone()).collect();
    assert_eq!(states[..2], [RecordState::Whole, RecordState::Deleted]);
    assert!(
        matches!(&states[2], RecordState::Rotten(reason) if reason.contains("block 1")),
        "{:?}",
        states[2]
    );
    assert_eq!(states[3..], [RecordState::Unfinished]);
    assert_eq!(records[0].description.row, whole);
    assert_eq!(inspect::row_bytes(&records[0]).expect("it is whole"), bytes(1, 10_000));
    assert!(inspect::row_bytes(&records[2]).is_err());
    let payload = records[0].payload_offset as usize;
    assert_eq!(fs::read(segment).expect("it reads")[payload..payload + 100], bytes(1, 100)[..]);
    assert_eq!(inspect::tombstones(&path).expect("it reads")[0].killed, deleted.instance);
}
