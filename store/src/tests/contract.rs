//! What every device does when nothing goes wrong, be it in a folder or in a bucket.

use std::thread;

use diptych_core::ids::Generation;
use diptych_core::records::{ExtentKind, Position};

use super::support::*;
use crate::{Deleted, Keyring, NewRow, Pending, Purpose, StoreError, WholeRow};

#[test]
fn a_row_reads_back_whole_and_in_ranges_after_a_reopen() {
    on_each(|medium| {
        let device = medium.open();
        let (row, content) = (new_row(1, 2, 3), bytes(1, 150_000));
        put(&device, &row, &content).expect("there is room");
        for reopened in [false, true] {
            let device = if reopened {
                device.close().expect("it closes");
                medium.open()
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
    });
}

#[test]
fn a_row_written_in_pieces_is_described_as_it_was_sealed() {
    on_each(|medium| {
        let device = medium.open();
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
    });
}

#[test]
fn rows_written_at_once_by_many_threads_are_all_there() {
    on_each(|medium| {
        let device = medium.open();
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
        let device = medium.open();
        assert_eq!(device.open_report().replayed, 0, "a clean close leaves nothing to replay");
        assert!(!device.open_report().unclean);
        assert_eq!(get(&device, &new_row(3, 19, 319)).expect("it reads"), bytes(19, 57_100));
    });
}

#[test]
fn a_delete_names_one_record_of_a_row() {
    on_each(|medium| {
        let device = medium.open();
        let (old, new) = (new_row(1, 1, 1), new_row(1, 1, 2));
        put(&device, &old, b"old").expect("there is room");
        put(&device, &new, b"new").expect("there is room");
        assert_eq!(device.instances(old.extent, old.row).expect("it lists").len(), 2);
        assert_eq!(device.read(old.extent, old.row, None, 0..3).expect("it reads"), &b"new"[..]);
        delete(&device, &new).expect("it is there");
        assert_eq!(device.read(old.extent, old.row, None, 0..3).expect("it reads"), &b"old"[..]);
        let again = device.delete(new.extent, new.row, new.instance, stamp(1)).expect("it is asked").wait();
        assert_eq!(again.expect("it is answered"), Deleted::NothingThere);
    });
}

#[test]
fn lower_stamps_and_older_keyrings_are_refused_after_a_reopen() {
    on_each(|medium| {
        let device = medium.open();
        let row = new_row(1, 1, 1);
        put(&device, &row, b"row").expect("there is room");
        device.admit(stamp(5)).expect("higher passes");
        let keyring = Keyring { number: Generation(3), bytes: b"wrapped".to_vec() };
        device.put_keyring(keyring.clone()).expect("it is the first");
        device.close().expect("it closes");
        let device = medium.open();
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
    });
}

#[test]
fn the_inventory_pages_through_everything_in_order() {
    on_each(|medium| {
        let device = medium.open();
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
    });
}

#[test]
fn records_of_one_kind_are_listed_by_themselves() {
    on_each(|medium| {
        let device = medium.open();
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
    });
}

#[tokio::test]
async fn a_durable_answer_can_be_awaited() {
    for medium in media() {
        let device = medium.open();
        let pending = place(&device, &new_row(1, 1, 1), b"row", Purpose::Client).expect("there is room");
        assert_eq!(pending.await.expect("it is durable").row_bytes, 3);
    }
}

#[test]
fn an_instance_is_used_once() {
    on_each(|medium| {
        let device = medium.open();
        let row = new_row(1, 1, 1);
        put(&device, &row, b"once").expect("there is room");
        assert!(matches!(put(&device, &row, b"twice"), Err(StoreError::InstanceUsed { .. })));
        device.close().expect("it closes");
        let device = medium.open();
        assert!(matches!(put(&device, &row, b"again"), Err(StoreError::InstanceUsed { .. })));
    });
}

#[test]
fn a_deleted_row_stays_deleted_after_a_reopen() {
    on_each(|medium| {
        let device = medium.open();
        let (kept, deleted) = (new_row(1, 0, 1), new_row(2, 0, 2));
        for row in [&kept, &deleted] {
            put(&device, row, &bytes(7, 100_000)).expect("there is room");
        }
        delete(&device, &deleted).expect("it is there");
        device.close().expect("it closes");
        let device = medium.open();
        assert_eq!(get(&device, &kept).expect("it lives"), bytes(7, 100_000));
        assert!(matches!(get(&device, &deleted), Err(StoreError::NotFound { .. })));
        assert_eq!(device.record_count().expect("it counts"), 1);
    });
}

#[test]
fn a_round_of_scrub_says_what_it_has_read_and_nothing_newer() {
    on_each(|medium| {
        let device = medium.open();
        for number in 0..5_u8 {
            put(&device, &new_row(number, 0, u64::from(number)), &bytes(3, 90_000)).expect("there is room");
        }
        let first = device.scrub_step(1, 77).expect("it reads");
        assert_eq!((first.records, first.rotten, first.finished), (1, 0, false));
        put(&device, &new_row(9, 0, 9), b"late").expect("there is room");
        while !device.scrub_step(1, 78).expect("it reads").finished {}
        let verified: Vec<_> = device.inventory(None, None, 10).expect("it lists");
        let verified: Vec<_> = verified.iter().map(|entry| entry.verified_ms).collect();
        assert_eq!(verified, [Some(77), Some(77), Some(77), Some(77), Some(77), None]);
        assert_eq!(device.scrub_state().expect("it says").last_finished_ms, Some(78));
        device.close().expect("it closes");
        let device = medium.open();
        assert_eq!(device.scrub_state().expect("it says").last_finished_ms, Some(78));
    });
}

#[test]
fn only_the_device_that_is_expected_opens_and_nothing_is_formatted_twice() {
    on_each(|medium| {
        let identity = identity();
        let expect = |device| crate::ExpectedIdentity {
            cluster: identity.cluster,
            site: identity.site.clone(),
            device: diptych_core::ids::DeviceId(device),
        };
        let options = |device| crate::OpenOptions { expect: Some(expect(device)), ..options() };
        let error = medium.try_open(options(8)).expect_err("it is another");
        assert!(error.to_string().contains("has device 7, expected 8"), "{error}");
        medium.try_open(options(7)).expect("it is the one").close().expect("it closes");
        assert!(matches!(medium.format(), Err(StoreError::AlreadyFormatted { .. })));
    });
}

#[test]
fn a_row_whose_command_was_overtaken_by_a_newer_sender_is_not_written() {
    on_each(|medium| {
        let device = medium.open();
        device.admit(stamp(5)).expect("it is the first one");
        for len in [10, 100_000] {
            let (row, bytes) = (new_row(1, 1, 1), bytes(1, len).into());
            let whole = WholeRow { stamp: stamp(4), row, bytes, end: end(), purpose: Purpose::Client };
            let refused = device.place(whole).and_then(Pending::wait).expect_err("it is of an older sender");
            assert!(matches!(refused, StoreError::OldStamp { .. }), "{refused}");
        }
        assert_eq!(device.record_count().expect("it knows"), 0);
    });
}
