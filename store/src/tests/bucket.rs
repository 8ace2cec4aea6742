//! A device in a bucket, where the bucket and those who use it do what they should not.

use std::collections::BTreeMap;
use std::sync::Arc;

use diptych_core::ids::InstanceId;
use diptych_core::lease::Millis;

use super::support::{self, *};
use crate::bucket::simulated::{Fault, SimulatedBucket};
use crate::bucket::{BucketPlace, inspect};
use crate::disk::simulated::Dice;
use crate::{Device, Keyring, NewRow, OpenOptions, Purpose, StoreError};

/// A bucket that is a device, and the agent that made it.
fn bucket() -> (SimulatedBucket, Arc<BucketPlace>) {
    let bucket = SimulatedBucket::default();
    let place = agent_at(&bucket, "o1");
    Device::format_bucket(&place, &identity()).expect("an empty bucket can be formatted");
    (bucket, place)
}

fn open(place: &Arc<BucketPlace>) -> Result<Device, StoreError> {
    Device::open_bucket(place, options())
}

/// Opens it once the one that had it was silent for long enough.
fn take_over(bucket: &SimulatedBucket, place: &Arc<BucketPlace>) -> Device {
    for _ in 0..2 {
        if let Ok(device) = open(place) {
            return device;
        }
        bucket.pass(Millis(45_000));
    }
    open(place).expect("it was silent")
}

#[test]
fn a_second_agent_is_refused_while_the_first_renews_its_hold() {
    let (bucket, first) = bucket();
    let device = open(&first).expect("it is free");
    assert!(matches!(open(&first), Err(StoreError::Held { .. })), "nor is it opened twice by one agent");
    let second = agent_at(&bucket, "o2");
    for _ in 0..20 {
        let error = open(&second).expect_err("it is held");
        assert_eq!(
            error.to_string(),
            "s3://rows/o1 is held by agent o1: two agents never share a bucket; it is opened here once o1 has given it up or was silent for 45 s"
        );
        bucket.pass(Millis(20_000));
        device.bucket().renew().expect("it is there");
    }
    put(&device, &new_row(1, 0, 1), b"row").expect("it is held still");
    device.close().expect("it closes");
    assert_eq!(
        get(&open(&second).expect("it was given up"), &new_row(1, 0, 1)).expect("it is there"),
        b"row"
    );
}

#[test]
fn who_was_taken_over_answers_nothing_and_what_it_answered_before_is_there() {
    let (bucket, first) = bucket();
    let device = open(&first).expect("it is free");
    put(&device, &new_row(1, 0, 1), b"answered").expect("it is held");
    let second = agent_at(&bucket, "o2");
    open(&second).expect_err("it is held");
    // The first is stopped in the midst of a write, and goes on after the second has taken the bucket.
    bucket.fault([Fault::Slow(Millis(46_000))]);
    let late = new_row(2, 0, 2);
    let error = put(&device, &late, b"late").expect_err("its hold is over");
    assert!(matches!(error, StoreError::DeviceFailed { .. }), "{error}");
    let taken = open(&second).expect("it was silent");
    assert!(taken.open_report().unclean);
    assert_eq!(get(&taken, &new_row(1, 0, 1)).expect("it was answered"), b"answered");
    taken.admit(stamp(9)).expect("higher passes");
    for refused in [
        put(&device, &new_row(3, 0, 3), b"zombie").expect_err("it was taken over"),
        delete(&device, &new_row(1, 0, 1)).expect_err("it was taken over"),
        device.admit(stamp(10)).expect_err("it was taken over"),
        get(&device, &new_row(1, 0, 1)).map(drop).expect_err("it was taken over"),
    ] {
        assert!(matches!(refused, StoreError::DeviceFailed { .. }), "{refused}");
    }
    drop(device);
    taken.bucket().renew().expect("who was taken over gives nothing up");
    assert_eq!(taken.highest_stamp(), stamp(9));
}

#[test]
fn a_process_knows_that_the_one_before_it_on_its_machine_is_dead() {
    let (bucket, _) = bucket();
    let home = tempfile::tempdir().expect("a folder");
    let here = || {
        let (name, local) = ("s3://rows/o1".into(), home.path().join("hold"));
        Arc::new(BucketPlace::new(Arc::new(bucket.clone()), name, "o1".to_owned(), Some(local)))
    };
    let place = here();
    let device = open(&place).expect("it is free");
    put(&device, &new_row(1, 0, 1), b"row").expect("there is room");
    assert!(matches!(open(&here()), Err(StoreError::InUse { .. })), "the first lives");
    // It dies: nothing is given up, its lock is let go.
    bucket.stay_away(true);
    device.close().expect("nothing failed before");
    drop((device, place));
    bucket.stay_away(false);
    assert!(
        matches!(open(&agent_at(&bucket, "o2")), Err(StoreError::Held { .. })),
        "for others it is silent"
    );
    let device = open(&here()).expect("the one before it is dead");
    assert_eq!(get(&device, &new_row(1, 0, 1)).expect("it is there"), b"row");
}

#[test]
fn of_two_that_take_over_at_the_same_moment_one_has_it() {
    let (bucket, first) = bucket();
    let device = open(&first).expect("it is free");
    let places = [agent_at(&bucket, "o2"), agent_at(&bucket, "o3")];
    for place in &places {
        open(place).expect_err("it is held");
    }
    bucket.pass(Millis(45_000));
    let won = std::thread::scope(|scope| {
        let opening: Vec<_> = places.iter().map(|place| scope.spawn(move || open(place))).collect();
        opening.into_iter().map(|opening| opening.join().expect("it ends")).collect::<Vec<_>>()
    });
    assert_eq!(won.iter().filter(|opened| opened.is_ok()).count(), 1, "{won:?}");
    assert!(put(&device, &new_row(1, 0, 1), b"zombie").is_err());
}

#[test]
fn a_change_of_the_record_whose_answer_is_lost_was_made_once() {
    let (bucket, place) = bucket();
    let device = open(&place).expect("it is free");
    for fault in [Fault::AnswerLost, Fault::Refused] {
        bucket.fault([fault]);
        let epoch = device.highest_stamp().epoch.0 + 1;
        device.admit(stamp(epoch)).expect("it is looked up");
        bucket.fault([fault, Fault::Refused]);
        let keyring = Keyring { number: diptych_core::ids::Generation(epoch), bytes: b"wrapped".to_vec() };
        device.put_keyring(keyring.clone()).expect("it is looked up");
        assert_eq!(device.read_keyring().expect("it reads"), Some(keyring));
    }
    device.close().expect("it closes");
    assert_eq!(open(&place).expect("it opens").highest_stamp(), stamp(2));
}

#[test]
fn a_hold_is_counted_from_the_first_time_that_its_renewal_was_sent() {
    let (bucket, place) = bucket();
    let device = open(&place).expect("it is free");
    device.admit(stamp(1)).expect("a change of the record renews the hold, the next one has none to make");
    // It is renewed at once, but that is known only when the store answers again.
    let away = [Fault::Refused; 31];
    bucket.fault([Fault::AnswerLost].into_iter().chain(away));
    device.bucket().renew().expect("it is looked up");
    bucket.pass(Millis(16_000));
    assert!(put(&device, &new_row(1, 0, 1), b"row").is_err(), "30 s after the first sending it is over");
}

#[test]
fn a_store_that_stays_away_closes_the_device_and_nothing_that_was_answered_is_lost() {
    let (bucket, place) = bucket();
    let device = open(&place).expect("it is free");
    put(&device, &new_row(1, 0, 1), &bytes(1, 200_000)).expect("it is there");
    bucket.stay_away(true);
    let error = put(&device, &new_row(2, 0, 2), b"row").expect_err("nobody answers");
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(matches!(device.bucket().renew(), Err(StoreError::DeviceFailed { .. })));
    let failure = device.failure().expect("it is closed").to_string();
    assert!(
        failure.contains("s3://rows/o1 is not held any more: the store has confirmed nothing for 30 s"),
        "{failure}"
    );
    assert!(open(&place).expect_err("nobody answers").to_string().contains("failed"));
    bucket.stay_away(false);
    assert!(matches!(open(&agent_at(&bucket, "o2")), Err(StoreError::Held { .. })));
    let device = open(&place).expect("the one that had it was this process, and it has failed");
    assert_eq!(get(&device, &new_row(1, 0, 1)).expect("it is there"), bytes(1, 200_000));
}

#[test]
fn what_the_way_has_cut_is_no_rot_and_what_lies_wrong_is_until_it_is_put_right() {
    let (bucket, place) = bucket();
    let device = open(&place).expect("it is free");
    let (small, large) = (new_row(1, 0, 1), new_row(2, 0, 2));
    let contents = [(&small, bytes(1, 20_000)), (&large, bytes(2, 200_000))];
    for (row, content) in &contents {
        put(&device, row, content).expect("there is room");
        bucket.fault([Fault::Torn]);
        assert_eq!(get(&device, row).expect("it is read again"), *content);
    }
    let object = bucket.rows().remove(0);
    let sound = bucket.bytes(&object);
    for wrong in [flipped(&sound, 5_000), flipped(&sound, 3), sound[..sound.len() - 9].to_vec(), Vec::new()] {
        bucket.plant(&object, wrong);
        let error = get(&device, &small).expect_err("it is rotten");
        assert!(matches!(error, StoreError::Rotten { .. }), "{error}");
        assert_eq!(device.findings().expect("it lists").len(), 1);
        bucket.plant(&object, sound.clone());
        assert_eq!(get(&device, &small).expect("it was put right"), contents[0].1);
        assert!(device.findings().expect("it lists").is_empty());
    }
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut wrong = bytes.to_vec();
    wrong[at] ^= 1;
    wrong
}

#[test]
fn parts_of_a_large_row_are_read_without_the_rest_of_it() {
    let (bucket, place) = bucket();
    let device = Device::open_bucket(&place, OpenOptions { segment_bytes: 16 << 20, ..options() });
    let device = device.expect("it is free");
    let (row, content) = (new_row(1, 0, 1), bytes(3, 1_500_000));
    put(&device, &row, &content).expect("there is room");
    let object = bucket.rows().remove(0);
    bucket.plant(&object, flipped(&bucket.bytes(&object), 1_200_000));
    for range in [0..1, 65_535..65_537, 700_001..900_000] {
        bucket.fault([Fault::Fine, Fault::Fine, Fault::Torn]);
        let read = device.read(row.extent, row.row, None, range.clone());
        assert_eq!(read.expect("it is sound there"), content[range.start as usize..range.end as usize]);
    }
    let error = device.read(row.extent, row.row, None, 1_190_000..1_210_000).expect_err("it is rotten there");
    assert!(matches!(error, StoreError::Rotten { .. }), "{error}");
}

#[test]
fn an_object_under_the_name_of_another_row_does_not_pass_for_it() {
    let (bucket, place) = bucket();
    let device = open(&place).expect("it is free");
    for number in 1..3 {
        put(&device, &new_row(number, 0, u64::from(number)), b"row").expect("there is room");
    }
    let rows = bucket.rows();
    bucket.plant(&rows[0], bucket.bytes(&rows[1]));
    assert!(matches!(get(&device, &new_row(1, 0, 1)), Err(StoreError::Rotten { .. })));
}

#[test]
fn a_round_of_scrub_finds_what_rots_misses_what_was_taken_away_and_meets_what_nobody_knows() {
    let (bucket, place) = bucket();
    let device = open(&place).expect("it is free");
    let rows: Vec<NewRow> = (0..4).map(|number| new_row(number, 0, u64::from(number))).collect();
    for row in &rows {
        put(&device, row, &bytes(8, 50_000)).expect("there is room");
    }
    let objects = bucket.rows();
    bucket.plant(&objects[0], flipped(&bucket.bytes(&objects[0]), 20_000));
    bucket.take_away(&objects[1]);
    // Its answer was lost, so its writer was told that it failed.
    bucket.fault([Fault::AnswerLost]);
    put(&device, &new_row(9, 0, 9), b"orphan").expect_err("nobody knows");
    let mut rotten = 0;
    loop {
        let step = device.scrub_step(60_000, 5).expect("it reads");
        rotten += step.rotten;
        if step.finished {
            break;
        }
    }
    assert_eq!(rotten, 1);
    let findings = device.findings().expect("it lists");
    assert_eq!(findings.iter().map(|finding| finding.key.extent).collect::<Vec<_>>(), [rows[0].extent]);
    let held: Vec<u8> = device
        .inventory(None, None, 10)
        .expect("it lists")
        .iter()
        .map(|entry| entry.key.extent.0[0])
        .collect();
    assert_eq!(held, [0, 2, 3, 9]);
    assert!(matches!(get(&device, &rows[1]), Err(StoreError::NotFound { .. })));
}

#[test]
fn a_bucket_that_holds_something_is_not_formatted_and_a_store_without_conditions_is_not_used() {
    let bucket = SimulatedBucket::default();
    bucket.plant("thesis.tex", b"precious".to_vec());
    let place = agent_at(&bucket, "o1");
    let error = Device::format_bucket(&place, &identity()).expect_err("it is not empty");
    assert!(error.to_string().contains("thesis.tex is there"), "{error}");
    assert!(matches!(open(&place), Err(StoreError::Missing { .. })));
    bucket.take_away("thesis.tex");
    Device::format_bucket(&place, &identity()).expect("it is empty");
    bucket.ignore_conditions();
    assert!(open(&place).is_err());
}

#[test]
fn a_record_that_does_not_read_is_named_and_nothing_is_changed() {
    let (bucket, place) = bucket();
    let sound = bucket.bytes("device");
    bucket.plant("device", flipped(&sound, 30));
    let calls = bucket.calls();
    let error = open(&place).expect_err("it is damaged");
    assert!(error.to_string().contains("s3://rows/o1/device is damaged"), "{error}");
    assert_eq!(bucket.calls(), calls + 1, "it was read, nothing else");
    bucket.plant("device", sound);
    open(&place).expect("it was put right");
}

#[test]
fn more_rows_than_memory_has_room_for_are_refused_and_fit_once_others_have_ended() {
    let (_bucket, place) = bucket();
    let device = Device::open_bucket(&place, OpenOptions { segment_bytes: 256 << 20, ..options() });
    let device = device.expect("it is free");
    let begin = |number| device.begin(&new_row(number, 0, u64::from(number)), 100 << 20, Purpose::Repair);
    let (first, _second) = (begin(1).expect("there is room"), begin(2).expect("there is room"));
    let error = begin(3).expect_err("there is none");
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    first.abandon();
    begin(3).expect("there is room again");
}

#[test]
fn the_room_that_is_declared_stops_clients_before_repair_and_deletes_never() {
    let (_bucket, place) = bucket();
    let device = Device::open_bucket(&place, OpenOptions { capacity: Some(8 << 20), ..options() });
    let device = device.expect("it is free");
    let put = |number: u64, purpose| {
        let row = new_row((number % 200) as u8, (number / 200) as u8, number);
        support::place(&device, &row, &bytes(number, 20_000), purpose).and_then(crate::Pending::wait)
    };
    let full = (0..1_000).find_map(|number| put(number, Purpose::Client).err().map(|error| (number, error)));
    let (written, error) = full.expect("it fills up");
    assert!(matches!(error, StoreError::DeviceFull { limit_percent: 90, .. }), "{error}");
    assert!(written > 300, "{written} rows");
    put(5_000, Purpose::Repair).expect("repair may go on to 95 %");
    delete(&device, &new_row(0, 0, 0)).expect("deletes go on");
}

#[test]
fn a_row_is_inspected_as_it_lies_there_while_an_agent_holds_the_bucket() {
    let (bucket, place) = bucket();
    let device = open(&place).expect("it is free");
    let row = new_row(1, 2, 3);
    put(&device, &row, &bytes(1, 70_000)).expect("there is room");
    let look =
        |instance: InstanceId| inspect::row(&place, row.extent, row.row, instance).expect("it answers");
    let found = look(row.instance).expect("it is there");
    let (description, content) = found.row.expect("it is sound");
    assert_eq!((description.row, content), (row.clone(), bytes(1, 70_000)));
    bucket.plant(&found.key, flipped(&bucket.bytes(&found.key), 40_000));
    assert!(look(row.instance).expect("it is there").row.is_err());
    assert!(look(InstanceId([9; 8])).is_none());
}

/// What a caller was told of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    There,
    Deleted,
    /// An error: either may be.
    Unclear,
}

#[test]
fn whatever_befalls_calls_what_was_answered_is_so() {
    for seed in 0..120 {
        let (bucket, place) = bucket();
        let mut dice = Dice::new(seed);
        let mut device = Some(open(&place).expect("it is free"));
        let mut told: BTreeMap<u8, Told> = BTreeMap::new();
        for number in 0..60_u8 {
            let faults =
                [Fault::Fine, Fault::Refused, Fault::AnswerLost, Fault::Torn, Fault::Slow(Millis(12_000))];
            let now = device.take().unwrap_or_else(|| take_over(&bucket, &place));
            bucket.fault((0..3).map(|_| if dice.roll(3) == 0 { faults[dice.roll(5)] } else { Fault::Fine }));
            match dice.roll(10) {
                0 => drop(now.close()),
                1 => drop(now.bucket().renew()),
                2 => drop(now.scrub_step(100_000, 1)),
                3 | 4 if number > 0 => {
                    let victim = dice.roll(usize::from(number)) as u8;
                    if told.get(&victim) == Some(&Told::There) {
                        let outcome = delete(&now, &new_row(victim, 0, u64::from(victim)));
                        told.insert(victim, outcome.map_or(Told::Unclear, |()| Told::Deleted));
                    }
                }
                _ => {
                    let outcome =
                        put(&now, &new_row(number, 0, u64::from(number)), &bytes(u64::from(number), 9_000));
                    told.insert(number, outcome.map_or(Told::Unclear, |()| Told::There));
                }
            }
            bucket.fault([]);
            let open = now.record_count().is_ok();
            device = open.then_some(now);
        }
        drop(device);
        let device = take_over(&bucket, &place);
        for (number, told) in told {
            let read = get(&device, &new_row(number, 0, u64::from(number)));
            match (told, read) {
                (Told::There | Told::Unclear, Ok(content)) => {
                    assert_eq!(content, bytes(u64::from(number), 9_000), "seed {seed}, row {number}");
                }
                (Told::Deleted | Told::Unclear, Err(StoreError::NotFound { .. })) => {}
                (told, read) => panic!("seed {seed}, row {number}: {told:?}, but {read:?}"),
            }
        }
    }
}
