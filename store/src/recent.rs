//! What was written lately stays in the kernel's memory, for the other site and for who reads it next; what is older is let go.
//!
//! Else every byte that is written takes memory that others gave up for it, and on a machine that has to fetch memory from its host that costs more than
//! the write. What is read after it was let go comes into memory again, and stays as long as the kernel likes.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::segment::Segment;

/// Bytes of each device that stay: seconds at the rate of a disk.
const KEPT: u64 = if cfg!(test) { 64 << 10 } else { 256 << 20 };
/// So many go at once.
const STEP: u64 = if cfg!(test) { 16 << 10 } else { 16 << 20 };

/// Records in the order in which they became durable.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// A segment that was unlinked is not kept open.
    written: VecDeque<(Weak<Segment>, Range<u64>)>,
    bytes: u64,
}

impl Recent {
    /// A record is durable.
    pub(crate) fn wrote(&mut self, segment: &Arc<Segment>, offset: u64, length: u64) {
        let range = offset..offset + length;
        self.bytes += length;
        if let Some((last, before)) = self.written.back_mut()
            && before.end == range.start
            && std::ptr::eq(last.as_ptr(), Arc::as_ptr(segment))
        {
            before.end = range.end;
        } else {
            self.written.push_back((Arc::downgrade(segment), range));
        }
    }

    /// Lets go of what is too much, once it is worth a call.
    pub(crate) fn let_go(&mut self) {
        if self.bytes < KEPT + STEP {
            return;
        }
        while let Some((segment, range)) = self.written.front_mut()
            && self.bytes > KEPT
        {
            let length = (range.end - range.start).min(self.bytes - KEPT);
            // Memory that is not let go is no fault of the device.
            let _ = segment.upgrade().map(|segment| segment.file.drop_cache(range.start, length));
            range.start += length;
            self.bytes -= length;
            if range.is_empty() {
                self.written.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use diptych_core::ids::SegmentId;

    use super::*;
    use crate::disk::{DiskFile, ReadAt};

    /// Remembers what was let go.
    #[derive(Debug, Default)]
    struct Listening(Mutex<Vec<Range<u64>>>);

    impl ReadAt for Listening {
        fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
            Ok(0)
        }

        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
    }

    impl DiskFile for Listening {
        fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
            Ok(())
        }

        fn set_len(&self, _len: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn drop_cache(&self, offset: u64, len: u64) -> io::Result<()> {
            self.0.lock().expect("no panic").push(offset..offset + len);
            Ok(())
        }
    }

    fn segment(number: u64) -> (Arc<Segment>, Arc<Listening>) {
        let file = Arc::new(Listening::default());
        let id = SegmentId([number as u8; 16]);
        (Arc::new(Segment::new(number, id, PathBuf::new(), Arc::clone(&file) as _, 0)), file)
    }

    #[test]
    fn the_oldest_goes_first_and_as_much_as_is_kept_stays() {
        let ((first, of_first), (second, of_second)) = (segment(1), segment(2));
        let mut recent = Recent::default();
        recent.wrote(&first, 4_096, KEPT / 2);
        recent.wrote(&first, 4_096 + KEPT / 2, KEPT / 2);
        recent.wrote(&second, 4_096, STEP - 1);
        recent.let_go();
        assert!(of_first.0.lock().expect("no panic").is_empty(), "that is not worth a call");
        recent.wrote(&second, 4_096 + STEP - 1, 1);
        recent.let_go();
        recent.let_go();
        assert_eq!(*of_first.0.lock().expect("no panic"), vec![4_096..4_096 + STEP]);
        recent.wrote(&second, 4_096 + STEP, KEPT);
        recent.let_go();
        let gone = vec![4_096..4_096 + STEP, 4_096 + STEP..4_096 + KEPT];
        assert_eq!(*of_first.0.lock().expect("no panic"), gone);
        assert_eq!(*of_second.0.lock().expect("no panic"), vec![4_096..4_096 + STEP]);
    }

    #[test]
    fn a_segment_that_is_gone_is_not_kept_open() {
        let ((first, of_first), (second, _)) = (segment(1), segment(2));
        let mut recent = Recent::default();
        recent.wrote(&first, 4_096, KEPT);
        drop(first);
        assert_eq!(Arc::strong_count(&of_first), 1, "its file is closed");
        recent.wrote(&second, 4_096, KEPT);
        recent.let_go();
        assert_eq!(recent.bytes, KEPT);
    }
}
