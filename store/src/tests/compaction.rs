//! Rows move out of segments that are mostly dead, and nothing that was deleted comes back by that.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::thread;

use diptych_core::ids::InstanceId;
use diptych_core::records::ExtentKind;

use super::support::*;
use crate::disk::simulated::{CutOff, SimulatedDisk};
use crate::inspect::{self, RecordState};
use crate::{Device, NewRow, OpenOptions, Purpose, StoreError};

/// Bytes of which four rows fill a segment.
const QUARTER: usize = 60_000;

fn content(row: &NewRow) -> Vec<u8> {
    bytes(u64::from_be_bytes(row.instance.0), QUARTER)
}

/// Puts rows with these numbers.
fn put_all(device: &Device, numbers: impl IntoIterator<Item = u64>) -> Vec<NewRow> {
    let rows = numbers.into_iter().map(|number| new_row((number % 200) as u8, (number / 200) as u8, number));
    let put_one = |row: NewRow| {
        put(device, &row, &content(&row)).expect("there is room");
        row
    };
    rows.map(put_one).collect()
}

fn delete_all<'r>(device: &Device, rows: impl IntoIterator<Item = &'r NewRow>) {
    for row in rows {
        delete(device, row).expect("it is there");
    }
}

fn all_read<'r>(device: &Device, rows: impl IntoIterator<Item = &'r NewRow>) {
    for row in rows {
        reads(device, row);
    }
}

fn all_gone<'r>(device: &Device, rows: impl IntoIterator<Item = &'r NewRow>) {
    for row in rows {
        is_gone(device, row);
    }
}

fn reads(device: &Device, row: &NewRow) {
    let read = get(device, row).unwrap_or_else(|error| panic!("{}: {error}", row.instance));
    assert!(read == content(row), "record {} has wrong bytes", row.instance);
}

fn is_gone(device: &Device, row: &NewRow) {
    let read = get(device, row).map(|read| read.len());
    assert!(matches!(read, Err(StoreError::NotFound { .. })), "record {}: {read:?}", row.instance);
}

/// Segments that have a copy of a row.
fn copies(disk: &SimulatedDisk, row: &NewRow) -> Vec<PathBuf> {
    let has = |path: &PathBuf| find(disk, path, &content(row)[..64]).is_some();
    segments(disk).into_iter().filter(has).collect()
}

fn reopen(disk: &SimulatedDisk, device: Device, lose_index: bool) -> Device {
    device.close().expect("it closes");
    drop(device);
    if lose_index {
        disk.plant(&folder().join("index.redb"), Vec::new());
    }
    open(disk)
}

/// Writes and deletes until the segments that were begun before are full, and what was needed of them has moved.
fn roll_on(device: &Device, numbers: std::ops::Range<u64>) {
    let filler = put_all(device, numbers);
    delete_all(device, &filler);
    device.compact().expect("it compacts");
}

#[test]
fn what_lives_in_segments_that_are_mostly_dead_moves_and_their_files_go() {
    let disk = formatted();
    let device = open(&disk);
    let rows = put_all(&device, 0..12);
    let dead = [&rows[0..3], &rows[4..7]].concat();
    let live = [&rows[3..4], &rows[7..12]].concat();
    delete_all(&device, &dead);
    let before = segments(&disk);
    assert_eq!(device.reclaim().expect("it reclaims"), 0, "in each segment something lives");
    let freed = device.compact().expect("it compacts");
    assert!(freed > 400_000, "{freed} bytes");
    let after = segments(&disk);
    assert!(!after.contains(&before[0]) && !after.contains(&before[1]), "{after:?}");
    assert_eq!(device.compact().expect("it compacts"), 0, "there is nothing left to do");
    let mut device = device;
    for lose_index in [false, false, true] {
        all_read(&device, &live);
        all_gone(&device, &dead);
        assert_eq!(device.record_count().expect("it counts"), 6);
        device = reopen(&disk, device, lose_index);
    }
    all_read(&device, &live);
    assert_eq!(device.record_count().expect("it counts"), 6);
    for row in &live {
        device.verify(row.extent, row.row, Some(row.instance)).expect("the disk has it");
        assert!(matches!(put(&device, row, b"again"), Err(StoreError::InstanceUsed { .. })));
    }
}

/// A segment whose first row is rotten, so that it stays after `moved`, its last, was copied out of it.
struct Stuck {
    disk: SimulatedDisk,
    device: Device,
    segment: PathBuf,
    rotten: NewRow,
    moved: NewRow,
}

fn stuck() -> Stuck {
    let disk = formatted();
    let device = open(&disk);
    let mut rows = put_all(&device, 0..8);
    let segment = segments(&disk).remove(0);
    let at = find(&disk, &segment, &content(&rows[0])[..64]).expect("it is there");
    disk.flip(&segment, at + 50_000);
    delete_all(&device, &rows[1..3]);
    device.compact().expect("it compacts");
    assert_eq!(copies(&disk, &rows[3]).len(), 2, "the segment stays with what is rotten");
    let (moved, rotten) = (rows.remove(3), rows.remove(0));
    Stuck { disk, device, segment, rotten, moved }
}

#[test]
fn a_rotten_row_stays_in_quarantine_and_its_segment_with_it_until_it_is_deleted() {
    let Stuck { disk, device, segment, rotten, moved } = stuck();
    let findings = device.findings().expect("it lists");
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].key.instance, rotten.instance);
    assert!(findings[0].reason.contains("block 12 of the row has checksum"), "{}", findings[0].reason);
    reads(&device, &moved);
    assert_eq!(device.compact().expect("it compacts"), 0, "it was tried");
    assert!(segments(&disk).contains(&segment));
    assert_eq!(copies(&disk, &moved).len(), 2);
    assert!(matches!(get(&device, &rotten), Err(StoreError::Rotten { .. })));
    let device = reopen(&disk, device, true);
    assert!(matches!(get(&device, &rotten), Err(StoreError::Rotten { .. })));
    reads(&device, &moved);
    delete(&device, &rotten).expect("what is rotten can be deleted");
    device.compact().expect("it compacts");
    assert!(!segments(&disk).contains(&segment));
    reads(&device, &moved);
}

#[test]
fn what_moved_and_was_deleted_stays_deleted_whichever_of_its_segments_goes_first() {
    for old_goes_first in [true, false] {
        let Stuck { disk, device, segment, rotten, moved } = stuck();
        delete(&device, &moved).expect("it is there");
        if old_goes_first {
            delete(&device, &rotten).expect("what is rotten can be deleted");
            device.reclaim().expect("it reclaims");
            assert!(!segments(&disk).contains(&segment));
        } else {
            // The copy's segment goes, then the tombstone's own, and the tombstone moves on.
            for round in 0..3 {
                roll_on(&device, 100 + 20 * round..110 + 20 * round);
            }
            assert_eq!(copies(&disk, &moved), [segment], "only the old copy is left");
        }
        is_gone(&device, &moved);
        let device = reopen(&disk, device, true);
        is_gone(&device, &moved);
        device.compact().expect("it compacts");
        roll_on(&device, 300..310);
        is_gone(&reopen(&disk, device, true), &moved);
    }
}

#[test]
fn tombstones_go_with_the_last_segment_that_needs_them() {
    let Stuck { disk, device, rotten, moved, .. } = stuck();
    let rest = put_all(&device, [50]);
    delete(&device, &moved).expect("it is there");
    roll_on(&device, 100..110);
    delete(&device, &rotten).expect("what is rotten can be deleted");
    let device = reopen(&disk, device, false);
    let anywhere = || segments(&disk).iter().any(|path| find(&disk, path, &moved.extent.0).is_some());
    // Each round moves on by more than a segment, and nobody needs it any more.
    for round in 0..6 {
        roll_on(&device, 220 + 20 * round..230 + 20 * round);
    }
    assert!(!anywhere(), "neither the record nor its tombstone is anywhere");
    reads(&device, &rest[0]);
}

#[test]
fn a_row_whose_tombstone_is_written_is_not_moved_behind_it() {
    let disk = formatted();
    let device = open(&disk);
    let rows = put_all(&device, 0..8);
    delete_all(&device, &rows[..2]);
    device.log().moving().fates().dying.insert(rows[2].instance);
    device.compact().expect("it compacts");
    assert_eq!(copies(&disk, &rows[2]).len(), 1, "it stays where it was");
    assert_eq!(copies(&disk, &rows[3]).len(), 2, "the one beside it moved");
    disk.fail_syncs_after(Some(0));
    delete(&device, &rows[5]).expect_err("its tombstone is written and not synced");
    assert!(device.log().moving().fates().dying.contains(&rows[5].instance));
}

#[test]
fn a_segment_stays_while_copies_are_on_their_way_out_of_it() {
    let disk = formatted();
    let device = open(&disk);
    let rows = put_all(&device, 0..8);
    let segment = segments(&disk).remove(0);
    let emptying = device.log().moving().empty(1);
    delete_all(&device, &rows[..4]);
    device.reclaim().expect("it reclaims");
    assert!(segments(&disk).contains(&segment));
    drop(emptying);
    device.reclaim().expect("it reclaims");
    assert!(!segments(&disk).contains(&segment));
}

#[test]
fn rows_that_are_deleted_while_they_move_stay_deleted() {
    for seed in 0..30_u64 {
        let disk = formatted();
        let device = open(&disk);
        let rows = put_all(&device, 0..24);
        let (first, rest): (Vec<NewRow>, Vec<NewRow>) =
            rows.into_iter().partition(|row| row.instance.0[7] % 4 < 2);
        delete_all(&device, &first);
        let (dead, live) = rest.split_at(rest.len() / 2 + seed as usize % 4);
        thread::scope(|scope| {
            scope.spawn(|| device.compact().expect("it compacts"));
            let order: Vec<&NewRow> =
                if seed % 2 == 0 { dead.iter().collect() } else { dead.iter().rev().collect() };
            delete_all(&device, order);
        });
        let mut device = device;
        for lose_index in [seed % 3 == 0, true, true] {
            if seed % 5 != 0 {
                device.compact().expect("it compacts");
            }
            device = reopen(&disk, device, lose_index);
            all_gone(&device, dead.iter().chain(&first));
            all_read(&device, live);
        }
        roll_on(&device, 100..110);
        let device = reopen(&disk, device, true);
        all_gone(&device, dead.iter().chain(&first));
        all_read(&device, live);
    }
}

#[test]
fn readers_never_miss_a_row_that_moves() {
    let disk = formatted();
    let device = open(&disk);
    let kept = put_all(&device, (0..10).map(|number| 4 * number));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1..12 {
                roll_on(&device, 1_000 * round..1_000 * round + 6);
                // The rows that are kept become a minority anew.
                let beside = put_all(&device, 1_000 * round + 10..1_000 * round + 14);
                delete_all(&device, &beside);
            }
        });
        while !writer.is_finished() {
            for row in &kept {
                reads(&device, row);
                device.verify(row.extent, row.row, Some(row.instance)).expect("the disk has it");
            }
            while !device.scrub_step(200_000, 1).expect("it reads").finished {}
        }
    });
    assert!(device.findings().expect("it lists").is_empty());
}

#[test]
fn a_full_device_of_which_two_thirds_were_deleted_takes_writes_again() {
    let disk = formatted();
    let options = OpenOptions { capacity: Some(8 << 20), ..options() };
    let device = try_open_with(&disk, options).expect("it opens");
    let put_row = |number: u64| {
        let row = new_row((number % 200) as u8, (number / 200) as u8, number);
        place(&device, &row, &content(&row), Purpose::Client).and_then(crate::Pending::wait).map(|_| row)
    };
    let mut rows = Vec::new();
    let full = loop {
        match put_row(rows.len() as u64) {
            Ok(row) => rows.push(row),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::DeviceFull { limit_percent: 90, .. }), "{full}");
    let (kept, dead): (Vec<NewRow>, Vec<NewRow>) =
        rows.into_iter().partition(|row| u64::from_be_bytes(row.instance.0) % 3 == 0);
    delete_all(&device, &dead);
    device.compact().expect("it compacts");
    let used = device.room().expect("it knows").used_percent();
    assert!(used < 50, "{used} % are in use");
    put_row(1_000).expect("there is room again");
    all_read(&device, &kept);
}

#[test]
fn once_a_device_is_crowded_segments_with_less_dead_in_them_are_emptied_too() {
    for crowded in [false, true] {
        let disk = formatted();
        let device = open(&disk);
        let rows = put_all(&device, 0..12);
        delete_all(&device, [&rows[0], &rows[4]]);
        device.close().expect("it closes");
        let capacity = Some(if crowded { 1 << 20 } else { 1 << 30 });
        let device = try_open_with(&disk, OpenOptions { capacity, ..options() }).expect("it opens");
        assert_eq!(device.compact().expect("it compacts") > 0, crowded);
        all_read(&device, rows[1..4].iter().chain(&rows[5..]));
    }
}

#[test]
fn without_room_for_two_segments_nothing_moves_and_nothing_is_lost() {
    let disk = formatted();
    let device = open(&disk);
    let rows = put_all(&device, 0..8);
    delete_all(&device, &rows[..3]);
    let before = segments(&disk);
    for room in [0, 200_000, 500_000] {
        disk.leave_room(room);
        assert_eq!(device.compact().expect("a full disk is no error"), 0);
        let after = segments(&disk);
        assert!(before.iter().all(|segment| after.contains(segment)), "{after:?}");
        all_read(&device, &rows[3..]);
    }
    disk.set_capacity(1 << 40);
    assert!(device.compact().expect("it compacts") > 0);
    all_read(&device, &rows[3..]);
}

#[test]
fn a_row_longer_than_a_segment_has_become_stays_where_it_is() {
    let disk = formatted();
    let long = try_open_with(&disk, OpenOptions { segment_bytes: 1 << 20, ..options() }).expect("it opens");
    let (row, other) = (new_row(1, 0, 1), new_row(2, 0, 2));
    put(&long, &row, &bytes(1, 400_000)).expect("there is room");
    put(&long, &other, &bytes(2, 500_000)).expect("there is room");
    delete(&long, &other).expect("it is there");
    long.close().expect("it closes");
    drop(long);
    let device = open(&disk);
    assert_eq!(device.compact().expect("it compacts"), 0);
    assert_eq!(get(&device, &row).expect("it reads"), bytes(1, 400_000));
}

#[test]
fn an_index_with_the_tables_of_an_older_version_is_made_anew() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("d0");
    Device::format(&path, &identity()).expect("it is empty");
    let device = Device::open(&path, options()).expect("it opens");
    let (kept, dead) = (new_row(1, 0, 1), new_row(2, 0, 2));
    for row in [&kept, &dead] {
        put(&device, row, b"row").expect("there is room");
    }
    delete(&device, &dead).expect("it is there");
    device.close().expect("it closes");
    drop(device);
    let database = redb::Database::create(path.join("index.redb")).expect("it is an index");
    let killed = redb::TableDefinition::<(u64, u64), u64>::new("killed");
    let older = redb::TableDefinition::<&[u8; 8], (u64, u64)>::new("killed");
    let transaction = database.begin_write().expect("it writes");
    assert!(transaction.delete_table(killed).expect("it writes"));
    drop(transaction.open_table(older).expect("it writes"));
    transaction.commit().expect("it writes");
    drop(database);
    let device = Device::open(&path, options()).expect("it opens");
    assert!(device.open_report().index_rebuilt);
    assert_eq!(get(&device, &kept).expect("it lives"), b"row");
    is_gone(&device, &dead);
}

#[test]
fn inspect_shows_a_row_that_moved_once() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("d0");
    Device::format(&path, &identity()).expect("it is empty");
    let device = Device::open(&path, options()).expect("it opens");
    let rows = put_all(&device, 0..8);
    let segment = inspect::device(&path).expect("it reads").segments.remove(0);
    let mut altered = std::fs::read(&segment).expect("it reads");
    let at = altered.windows(64).position(|window| window == &content(&rows[0])[..64]).expect("it is there");
    altered[at + 9] ^= 1;
    std::fs::write(&segment, altered).expect("it writes");
    delete_all(&device, &rows[1..3]);
    device.compact().expect("it compacts");
    let states = |row: &NewRow| -> Vec<RecordState> {
        let records = inspect::records(&path).expect("it reads");
        let same = records.into_iter().filter(|record| record.description.row.instance == row.instance);
        same.filter(|record| record.segment != segment).map(|record| record.state).collect()
    };
    assert_eq!(states(&rows[3]), [RecordState::Whole]);
    let mut found = 0;
    inspect::rows(&path, ExtentKind::Data, &std::collections::HashSet::<InstanceId>::new(), |row| {
        found += usize::from(row.expect("it reads").description.row.instance == rows[3].instance);
        ControlFlow::Continue(())
    })
    .expect("it reads");
    assert_eq!(found, 2, "both copies are there for whoever looks for any");
    assert_eq!(inspect::records(&path).expect("it reads").len(), 8, "each record is shown once");
    delete(&device, &rows[3]).expect("it is there");
    assert_eq!(states(&rows[3]), [RecordState::Deleted]);
    assert_eq!(inspect::records(&path).expect("it reads").len(), 8, "each record is shown once");
}

#[test]
fn a_segment_whose_unlinking_was_cut_off_never_comes_back_without_its_tombstones() {
    for seed in 0..240 {
        let disk = formatted();
        let device = open(&disk);
        let rows = put_all(&device, 0..5);
        delete_all(&device, &rows);
        device.close().expect("it closes");
        drop(device);
        let device = open(&disk);
        disk.fail_syncs_after(Some(seed % 6));
        drop(device.reclaim());
        drop(device);
        disk.fail_syncs_after(None);
        disk.plant(&folder().join("index.redb"), Vec::new());
        let device = open(&disk);
        disk.cut_off_after(seed / 6 % 20, CutOff::Power(seed));
        drop(device.reclaim());
        disk.crash(seed);
        drop(device);
        disk.plant(&folder().join("index.redb"), Vec::new());
        let device = open(&disk);
        all_gone(&device, &rows);
    }
}
