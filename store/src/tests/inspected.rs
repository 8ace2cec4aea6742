//! `inspect` beside an open device.

use std::collections::HashSet;
use std::fs;
use std::ops::ControlFlow;

use diptych_core::ids::InstanceId;
use diptych_core::records::ExtentKind;

use super::support::*;
use crate::inspect::{self, RecordState};
use crate::{Device, OpenOptions, Purpose};

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

    let killed = HashSet::from([deleted.instance]);
    let mut found = Vec::new();
    let list = |kind, found: &mut Vec<inspect::FoundRow>| {
        inspect::rows(&path, kind, &killed, |row| {
            found.push(row.expect("it reads"));
            ControlFlow::Continue(())
        })
    };
    list(ExtentKind::Data, &mut found).expect("it reads");
    let rows: Vec<_> = found.iter().map(|row| row.description.row.clone()).collect();
    assert_eq!(rows, [whole, rotten], "what is deleted or has no end is no row");
    let at = &found[0];
    assert_eq!(inspect::row_at(&path, at.segment, at.offset).expect("it is whole"), bytes(1, 10_000));
    inspect::row_at(&path, found[1].segment, found[1].offset).expect_err("it is rotten");
    list(ExtentKind::Journal, &mut found).expect("it reads");
    assert_eq!(found.len(), 2, "there is no journal");

    assert!(inspect::hold(&path).expect("it can be looked at").is_none(), "it is in use");
    drop(writer);
    device.close().expect("it closes");
    let held = inspect::hold(&path).expect("it can be looked at").expect("nobody has it open");
    assert!(inspect::hold(&path).expect("it can be looked at").is_some(), "others may read it too");
    Device::open(&path, options()).expect_err("it is being read");
    drop(held);
    Device::open(&path, options()).expect("it opens");
}

#[test]
fn a_segment_that_does_not_read_hides_no_other() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("d0");
    Device::format(&path, &identity()).expect("it is empty");
    let options = OpenOptions { segment_bytes: 1 << 20, ..options() };
    let device = Device::open(&path, options).expect("it opens");
    let rows: Vec<_> = (0..8).map(|number| new_row(number, 0, u64::from(number))).collect();
    for row in &rows {
        put(&device, row, &bytes(u64::from(row.extent.0[0]), 300_000)).expect("there is room");
    }
    device.close().expect("it closes");
    let segments = inspect::device(&path).expect("it reads").segments;
    assert!(segments.len() >= 2, "{segments:?}");
    let mut damaged = fs::read(&segments[0]).expect("it reads");
    damaged[10] ^= 1;
    fs::write(&segments[0], damaged).expect("it writes");
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    let listed = inspect::rows(&path, ExtentKind::Data, &HashSet::<InstanceId>::new(), |row| {
        match row {
            Ok(row) => found.push(row.description.row),
            Err(error) => errors.push(error.to_string()),
        }
        ControlFlow::Continue(())
    });
    listed.expect("the folder reads");
    assert!(!found.is_empty() && rows.ends_with(&found), "{found:?}");
    assert!(errors.len() == 1 && errors[0].contains(&segments[0].display().to_string()), "{errors:?}");
    let mut killed = 0;
    let failed = inspect::each_tombstone(&path, |_| killed += 1).expect("the folder reads");
    assert!(failed.is_some() && killed == 0);
}
