//! A bucket in memory, with a clock of its own, that refuses, loses answers, cuts them, and stays away.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use diptych_core::lease::{BootTime, Millis};

use super::{Bucket, BucketError, ListedObject};

/// What befalls one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None.
    Fine,
    /// Nothing is done, 503.
    Refused,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It is done, and takes this long.
    Slow(Millis),
    /// Of a read, half the bytes come.
    Torn,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, (String, Bytes)>,
    writes: u64,
    now: Millis,
    faults: VecDeque<Fault>,
    away: bool,
    ignores_conditions: bool,
    calls: u64,
}

/// Clones are the same bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimulatedBucket(Arc<Mutex<State>>);

fn failed(why: &str) -> BucketError {
    BucketError::Failed(why.to_owned())
}

impl SimulatedBucket {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panicked")
    }

    /// The next calls, in order.
    pub(crate) fn fault(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults = faults.into_iter().collect();
    }

    /// Nothing is answered and nothing is done.
    pub(crate) fn stay_away(&self, away: bool) {
        self.state().away = away;
    }

    pub(crate) fn ignore_conditions(&self) {
        self.state().ignores_conditions = true;
    }

    pub(crate) fn pass(&self, time: Millis) {
        self.state().now.0 += time.0;
    }

    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    pub(crate) fn rows(&self) -> Vec<String> {
        self.state().objects.keys().filter(|key| key.starts_with("rows/")).cloned().collect()
    }

    pub(crate) fn bytes(&self, key: &str) -> Bytes {
        self.state().objects[key].1.clone()
    }

    pub(crate) fn plant(&self, key: &str, bytes: impl Into<Bytes>) {
        let mut state = self.state();
        state.write(key, bytes.into());
    }

    pub(crate) fn take_away(&self, key: &str) {
        self.state().objects.remove(key);
    }

    /// Does a call as the next fault says.
    fn call<T>(
        &self,
        act: impl FnOnce(&mut State, bool) -> Result<T, BucketError>,
    ) -> Result<T, BucketError> {
        let mut state = self.state();
        state.calls += 1;
        if state.away {
            // As long as a client waits.
            state.now.0 += 10_000;
            return Err(failed("no answer"));
        }
        match state.faults.pop_front().unwrap_or(Fault::Fine) {
            Fault::Fine => act(&mut state, false),
            Fault::Refused => Err(failed("503, SlowDown")),
            Fault::AnswerLost => act(&mut state, false).and(Err(failed("the connection was reset"))),
            Fault::Slow(time) => {
                state.now.0 += time.0;
                act(&mut state, false)
            }
            Fault::Torn => act(&mut state, true),
        }
    }
}

impl State {
    fn write(&mut self, key: &str, bytes: Bytes) -> String {
        self.writes += 1;
        let etag = format!("{:x}", self.writes);
        self.objects.insert(key.to_owned(), (etag.clone(), bytes));
        etag
    }
}

impl Bucket for SimulatedBucket {
    fn now(&self) -> BootTime {
        BootTime(0) + self.state().now
    }

    fn pause(&self, pause: Duration) {
        self.pass(Millis(pause.as_millis() as u64));
    }

    fn prove(&self) -> Result<(), BucketError> {
        if self.state().ignores_conditions { Err(failed("it ignores If-Match on writes")) } else { Ok(()) }
    }

    fn get(&self, key: &str, limit: u64) -> Result<(Bytes, String), BucketError> {
        self.call(|state, torn| {
            let (etag, bytes) = state.objects.get(key).cloned().ok_or(BucketError::Absent)?;
            if bytes.len() as u64 > limit {
                return Err(failed("the answer is too long"));
            }
            let len = if torn { bytes.len() / 2 } else { bytes.len() };
            Ok((bytes.slice(..len), etag))
        })
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        self.call(|state, torn| {
            let (_, bytes) = state.objects.get(key).ok_or(BucketError::Absent)?;
            let end = (range.end as usize).min(bytes.len());
            let start = (range.start as usize).min(end);
            let len = if torn { (end - start) / 2 } else { end - start };
            Ok(bytes.slice(start..start + len))
        })
    }

    fn put(&self, key: &str, bytes: Bytes) -> Result<(), BucketError> {
        self.call(|state, _| {
            state.write(key, bytes);
            Ok(())
        })
    }

    fn swap(&self, key: &str, bytes: Bytes, etag: Option<&str>) -> Result<String, BucketError> {
        self.call(|state, _| {
            if state.objects.get(key).map(|(etag, _)| etag.as_str()) != etag {
                return Err(failed("412, PreconditionFailed"));
            }
            Ok(state.write(key, bytes))
        })
    }

    fn delete(&self, key: &str) -> Result<(), BucketError> {
        self.call(|state, _| {
            state.objects.remove(key);
            Ok(())
        })
    }

    fn list(&self, prefix: &str, page: &mut dyn FnMut(Vec<ListedObject>)) -> Result<(), BucketError> {
        let listed = self.call(|state, _| {
            let objects = state.objects.iter().filter(|(key, _)| key.starts_with(prefix));
            let listed = |(key, (_, bytes)): (&String, &(String, Bytes))| ListedObject {
                key: key.clone(),
                bytes: bytes.len() as u64,
            };
            Ok(objects.map(listed).collect::<Vec<_>>())
        })?;
        listed.chunks(3).for_each(|some| page(some.to_vec()));
        Ok(())
    }
}
