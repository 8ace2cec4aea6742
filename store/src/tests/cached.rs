//! Reads from memory, and files that are lent.

use super::support::*;
use crate::disk::Disk;
use crate::{Device, NewRow};

fn cached(device: &Device, row: &NewRow, range: std::ops::Range<u64>) -> Option<Vec<u8>> {
    device.read_cached(row.extent, row.row, Some(row.instance), &range).map(|bytes| bytes.to_vec())
}

#[test]
fn a_short_range_is_read_from_memory_and_no_other() {
    let disk = formatted();
    let device = open(&disk);
    let (row, content) = (new_row(1, 2, 3), bytes(1, 150_000));
    put(&device, &row, &content).expect("there is room");
    for range in [0..1, 65_530..65_550, 100_000..132_768, 149_999..150_000] {
        let expected = &content[range.start as usize..range.end as usize];
        assert_eq!(cached(&device, &row, range.clone()).as_deref(), Some(expected), "{range:?}");
    }
    assert_eq!(cached(&device, &row, 0..32_769), None, "copying that is no short work");
    assert_eq!(cached(&device, &row, 149_999..150_001), None, "the row ends before");
    assert_eq!(cached(&device, &new_row(1, 2, 4), 0..1), None, "that record is not there");
    disk.set_cold(true);
    assert_eq!(cached(&device, &row, 0..1), None, "it would have to wait for the disk");
    assert_eq!(get(&device, &row).expect("it reads"), content);
}

#[test]
fn what_is_wrong_in_memory_is_left_to_a_read_that_says_so() {
    let disk = formatted();
    let device = open(&disk);
    let (row, content) = (new_row(1, 2, 3), bytes(1, 5_000));
    put(&device, &row, &content).expect("there is room");
    let segment = segments(&disk).remove(0);
    let at = find(&disk, &segment, &content[..64]).expect("it is in the first segment");
    disk.flip(&segment, at + 10);
    assert_eq!(cached(&device, &row, 0..100), None);
    assert_eq!(device.findings().expect("they read"), [], "nothing was written for it");
    get(&device, &row).expect_err("a byte is wrong");
    assert_eq!(device.findings().expect("they read").len(), 1);
    disk.flip(&segment, at + 10);
    assert_eq!(cached(&device, &row, 0..100), None, "a record in quarantine is looked at whole");
    assert_eq!(get(&device, &row).expect("it is whole again"), content);
    assert_eq!(cached(&device, &row, 0..100).as_deref(), Some(&content[..100]));
    device.close().expect("it closes");
    assert_eq!(cached(&device, &row, 0..100), None);
}

#[test]
fn a_lent_file_has_the_row_where_it_is_said_to_be_and_keeps_it_when_the_segment_goes() {
    use std::os::unix::fs::FileExt;

    let folder = tempfile::tempdir().expect("a folder");
    Device::format(folder.path(), &identity()).expect("an empty folder");
    let device = Device::open(folder.path(), options()).expect("it opens");
    let (row, content) = (new_row(1, 2, 3), bytes(1, 150_000));
    put(&device, &row, &content).expect("there is room");
    let place = device.row_place(row.extent, row.row, None).expect("it is there").expect("it lies in a file");
    assert_eq!(place.row_bytes, 150_000);
    let lent = device.lend(place.segment).expect("it opens").expect("it is there");
    let lent = std::fs::File::from(lent);
    lent.write_at(b"x", 0).expect_err("it was opened for reading");
    let mut read = vec![0; content.len()];
    delete(&device, &row).expect("it is there");
    // More than a segment, so that the first one is sealed and freed.
    for number in 10..13 {
        put(&device, &new_row(2, 0, number), &bytes(number, 150_000)).expect("there is room");
    }
    device.reclaim().expect("it frees");
    assert!(device.lend(place.segment).expect("no error").is_none(), "the segment is gone");
    lent.read_exact_at(&mut read, place.offset).expect("whoever has it open reads on");
    assert_eq!(read, content);
}

#[test]
fn neither_a_bucket_nor_a_simulated_disk_lends_anything() {
    on_each(|medium| {
        let device = medium.open();
        let row = new_row(1, 2, 3);
        put(&device, &row, &bytes(1, 5_000)).expect("there is room");
        match device.row_place(row.extent, row.row, None).expect("it is there") {
            Some(place) => assert!(device.lend(place.segment).expect("no error").is_none()),
            None => assert_eq!(cached(&device, &row, 0..10), None),
        }
    });
    let disk = formatted();
    assert!(disk.lend(&folder()).expect("no error").is_none());
}
