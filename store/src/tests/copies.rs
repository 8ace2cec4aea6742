//! What the index makes of records that lie in the log more than once, and of the tombstones that hold them down.

use diptych_core::ids::SegmentId;
use diptych_core::records::ExtentKind;

use super::support::*;
use crate::InventoryKey;
use crate::index::{Change, Index, Location, LogPosition, Sync};

fn key() -> InventoryKey {
    let row = new_row(1, 0, 1);
    InventoryKey { extent: row.extent, row: row.row, instance: row.instance }
}

fn put_in(segment: u64) -> Change {
    let at = LogPosition { segment, offset: 4096 };
    Change::Put(key(), Location { at, record_bytes: 640, kind: ExtentKind::Data, quarantined: false })
}

fn kill_in(segment: u64) -> Change {
    Change::Kill { key: key(), segment }
}

/// An index of the sealed segments `filled`, in which `changes` happened.
fn index_of(changes: &[Change], filled: &[u64]) -> Index {
    let index = Index::in_memory(1 << 20, b"owner").expect("there is memory");
    for number in filled {
        let begun = [Change::Begun(*number, SegmentId([*number as u8; 16])), Change::Sealed(*number)];
        index.apply(&begun, Sync::No).expect("it applies");
    }
    // As a replay does, each twice and all twice.
    for _ in 0..2 {
        for change in changes {
            for _ in 0..2 {
                index.apply(std::slice::from_ref(change), Sync::No).expect("it applies");
            }
        }
    }
    index
}

fn dead(index: &Index) -> Vec<u64> {
    index.dead_segments().expect("it lists")
}

#[test]
fn a_tombstone_outlives_every_copy_whatever_the_index_heard_of_first() {
    for changes in [
        [put_in(1), put_in(5), kill_in(6)],
        [put_in(1), kill_in(6), put_in(5)],
        [put_in(5), put_in(1), kill_in(6)],
        [put_in(5), kill_in(6), put_in(1)],
    ] {
        for (first, second) in [(1, 5), (5, 1)] {
            let index = index_of(&changes, &[1, 5, 6]);
            let key = key();
            let found = index.find(key.extent, key.row, Some(key.instance)).expect("it looks");
            assert_eq!(found, None, "{changes:?}");
            assert_eq!(dead(&index), [1, 5], "{changes:?}");
            index.forget_segment(first).expect("it forgets");
            assert_eq!(dead(&index), [second], "{changes:?}");
            index.forget_segment(second).expect("it forgets");
            assert_eq!(dead(&index), [6], "{changes:?}");
            assert!(index.was_killed(key.instance).is_ok_and(|killed| !killed), "{changes:?}");
        }
    }
}

#[test]
fn a_tombstone_that_was_carried_on_holds_down_what_it_held_down() {
    let carried = Change::Carried { instance: key().instance, from: 6, to: 9 };
    let index = index_of(&[put_in(1), put_in(5), kill_in(6), carried, kill_in(9)], &[1, 5, 6, 9]);
    assert_eq!(dead(&index), [1, 5, 6]);
    index.forget_segment(6).expect("it forgets");
    assert!(index.was_killed(key().instance).expect("it looks"));
    index.forget_segment(5).expect("it forgets");
    assert_eq!(dead(&index), [1]);
    index.forget_segment(1).expect("it forgets");
    assert_eq!(dead(&index), [9]);
}

#[test]
fn a_record_lives_where_it_lies_last() {
    for changes in [[put_in(1), put_in(5)], [put_in(5), put_in(1)]] {
        let index = index_of(&changes, &[1, 5]);
        let key = key();
        let (_, location) =
            index.find(key.extent, key.row, Some(key.instance)).expect("it looks").expect("it lives");
        assert_eq!(location.at.segment, 5, "{changes:?}");
        assert_eq!(dead(&index), [1], "{changes:?}");
        let row = index.segment(5).expect("it looks").expect("it is there");
        assert_eq!((row.live_records, row.live_bytes), (1, 640), "{changes:?}");
    }
}
