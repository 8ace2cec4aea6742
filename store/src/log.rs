//! The append-only log: who gets which room, in which segment.
//!
//! ```text
//!  segment 7 (sealed)             segment 8 (full)          segment 9 (active)
//!  [head│rec│rec│rec│foot]        [head│rec│rec│...]        [head│rec│re.│rec│0000000000]      [10: ready]
//!                                       ▲ still written                  ▲ position   ▲ zeroed
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::health::Health;
use crate::index::LogPosition;
use crate::segment::{self, FIRST_RECORD, Owner, Segment};

/// Longer reservations write their own bytes beyond the zeros: writing those twice would cost more than growing the file.
const ZEROS_HELP_UP_TO: u64 = 256 << 10;
/// Shorter ones that come in a row before zeros are written: between long ones they are few, and what follows would write over the zeros.
const SHORT_IN_ROW: u32 = 16;
/// Zeros are written in pieces, so that a reservation that runs into them waits for little.
const ZERO_PIECE: u64 = 1 << 20;

/// What the log is made of.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) device: PathBuf,
    pub(crate) owner: Owner,
    pub(crate) health: Arc<Health>,
    segment_bytes: u64,
    zero_ahead: u64,
    state: Mutex<State>,
    /// A piece of zeros was written.
    zeroed: Condvar,
    /// The groomer has something to do.
    groom: Condvar,
    segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    /// Bytes of all segments but the active one.
    settled_bytes: AtomicU64,
}

#[derive(Debug)]
struct State {
    active: Option<Arc<Segment>>,
    /// Where the next record begins.
    position: u64,
    /// All from `position` up to here is zeros on the disk.
    zeroed: u64,
    zeroing: Option<Range<u64>>,
    /// Records since the last long one.
    short_in_row: u32,
    /// Short records come, and few zeros are left for them.
    zeros_low: bool,
    ready: Option<Arc<Segment>>,
    /// One is being made, outside of the lock.
    making: bool,
    /// Making one failed when the log ended here; the groomer tries again further on.
    not_made_at: Option<u64>,
    next_number: u64,
    /// Reservations that are neither durable in the index nor given up.
    in_flight: BTreeSet<LogPosition>,
    /// No more room in them, not sealed yet.
    full: Vec<Arc<Segment>>,
    stopped: bool,
}

/// Room in the log, its head written.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) segment: Arc<Segment>,
    pub(crate) at: LogPosition,
}

impl Log {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        device: PathBuf,
        owner: Owner,
        health: Arc<Health>,
        limits: (u64, u64),
        segments: BTreeMap<u64, Arc<Segment>>,
        next_number: u64,
    ) -> Self {
        let state = State {
            active: None,
            position: 0,
            zeroed: 0,
            zeroing: None,
            short_in_row: 0,
            zeros_low: true,
            ready: None,
            making: false,
            not_made_at: None,
            next_number,
            in_flight: BTreeSet::new(),
            full: Vec::new(),
            stopped: false,
        };
        Self {
            disk,
            device,
            owner,
            health,
            segment_bytes: limits.0,
            zero_ahead: limits.1.min(limits.0),
            state: Mutex::new(state),
            zeroed: Condvar::new(),
            groom: Condvar::new(),
            settled_bytes: AtomicU64::new(segments.values().map(|segment| segment.bytes()).sum()),
            segments: RwLock::new(segments),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    pub(crate) fn longest_record(&self) -> u64 {
        self.segment_bytes.saturating_sub(FIRST_RECORD)
    }

    /// Reserves `bytes` and lets `write` put the head (or a whole small record) there.
    ///
    /// FENCING: position and head under one lock: a record that is synced has every head before it synced too, so a scan
    /// that hops from head to head reaches it.
    pub(crate) fn reserve(
        &self,
        bytes: u64,
        write: impl FnOnce(&Segment, u64) -> io::Result<()>,
    ) -> Result<Reservation, StoreError> {
        let mut state = self.state();
        loop {
            self.health.check()?;
            if state.stopped {
                return Err(StoreError::Closed);
            }
            let fits = state.active.is_some() && state.position + bytes <= self.segment_bytes;
            let blocked =
                state.zeroing.as_ref().is_some_and(|zeroing| zeroing.start < state.position + bytes);
            if fits && !blocked {
                break;
            }
            if !fits && !state.making && state.zeroing.is_none() {
                self.rotate(&mut state)?;
            } else {
                state = self.zeroed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        let end = state.position + bytes;
        let segment = state.active.clone().ok_or(StoreError::Closed)?;
        let at = LogPosition { segment: segment.number, offset: state.position };
        write(&segment, at.offset)
            .map_err(|error| StoreError::io_at("writing", &segment.path, &self.device, error))?;
        state.in_flight.insert(at);
        state.position = end;
        state.zeroed = state.zeroed.max(end);
        segment.set_bytes(end);
        self.maybe_groom(&mut state, bytes);
        Ok(Reservation { segment, at })
    }

    fn maybe_groom(&self, state: &mut State, bytes: u64) {
        // Behind long records the zeros would never get ahead: each of their bytes would be written twice.
        let is_low = || state.zeros_low || state.zeroed - state.position < self.zero_ahead / 2;
        state.short_in_row = if bytes <= ZEROS_HELP_UP_TO { state.short_in_row.saturating_add(1) } else { 0 };
        state.zeros_low = state.short_in_row >= SHORT_IN_ROW && is_low();
        if state.zeros_low || self.wants_next(state) {
            self.groom.notify_one();
        }
    }

    fn wants_next(&self, state: &State) -> bool {
        let useful = state.position > self.segment_bytes / 4 * 3 && state.not_made_at != Some(state.position);
        useful && state.ready.is_none() && !state.making
    }

    /// The active segment is full: the next one takes its place.
    fn rotate(&self, state: &mut State) -> Result<(), StoreError> {
        let next = match state.ready.take() {
            Some(ready) => ready,
            None => self.make(state.next_number)?,
        };
        state.next_number = state.next_number.max(next.number + 1);
        if let Some(full) = state.active.replace(Arc::clone(&next)) {
            state.full.push(full);
        }
        state.position = FIRST_RECORD;
        state.zeroed = FIRST_RECORD + self.first_zeros();
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(next.number, next);
        self.count_settled(state);
        Ok(())
    }

    fn first_zeros(&self) -> u64 {
        self.zero_ahead.min(self.segment_bytes.saturating_sub(FIRST_RECORD)).min(ZERO_PIECE)
    }

    fn make(&self, number: u64) -> Result<Arc<Segment>, StoreError> {
        let made = Segment::create(&*self.disk, &self.device, &self.owner, number, self.first_zeros());
        let path = segment::path(&self.device, number);
        made.map(Arc::new).map_err(|error| StoreError::io_at("making", &path, &self.device, error))
    }

    /// The record at this position is durable in the index, or was given up.
    pub(crate) fn settle(&self, positions: impl IntoIterator<Item = LogPosition>) {
        let mut state = self.state();
        for position in positions {
            state.in_flight.remove(&position);
        }
    }

    /// Everything before it is settled.
    pub(crate) fn cursor(&self) -> LogPosition {
        let state = self.state();
        let end =
            state.active.as_ref().map_or(LogPosition { segment: state.next_number, offset: 0 }, |active| {
                LogPosition { segment: active.number, offset: state.position }
            });
        state.in_flight.first().copied().unwrap_or(end)
    }

    /// Full segments in which nothing is being written any more.
    pub(crate) fn take_sealable(&self) -> Vec<Arc<Segment>> {
        let mut state = self.state();
        let State { full, in_flight, .. } = &mut *state;
        let busy = |number| {
            let (start, end) =
                (LogPosition { segment: number, offset: 0 }, LogPosition { segment: number + 1, offset: 0 });
            in_flight.range(start..end).next().is_some()
        };
        let (waiting, sealable) = full.drain(..).partition(|segment| busy(segment.number));
        *full = waiting;
        sealable
    }

    /// Gives back a segment that could not be sealed for want of room.
    pub(crate) fn not_sealed(&self, segment: Arc<Segment>) {
        self.state().full.push(segment);
    }

    /// No reservation is given any more; the active segment counts as full, a prepared one is given back to be removed.
    pub(crate) fn stop(&self) -> Option<Arc<Segment>> {
        let mut state = self.state();
        state.stopped = true;
        self.groom.notify_all();
        while state.making || state.zeroing.is_some() {
            state = self.zeroed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(active) = state.active.take() {
            state.full.push(active);
        }
        state.ready.take()
    }

    pub(crate) fn segment(&self, number: u64) -> Option<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// Takes a segment out of the log; who reads in it goes on.
    pub(crate) fn drop_segment(&self, number: u64) -> Option<Arc<Segment>> {
        let dropped = self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        self.count_settled(&self.state());
        dropped
    }

    /// Bytes that the log takes.
    pub(crate) fn bytes(&self) -> u64 {
        let active = self.state().active.as_ref().map_or(0, |active| active.bytes());
        active + self.settled_bytes.load(Ordering::Relaxed)
    }

    fn count_settled(&self, state: &State) {
        let active = state.active.as_ref().map(|active| active.number);
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let settled = segments.values().filter(|segment| Some(segment.number) != active);
        self.settled_bytes.store(settled.map(|segment| segment.bytes()).sum(), Ordering::Relaxed);
    }

    /// Body of the groomer's thread: writes zeros ahead and makes the next segment before it is needed.
    pub(crate) fn groom(&self) {
        let mut state = self.state();
        while !state.stopped && self.health.check().is_ok() {
            if let Some(piece) = self.next_zeros(&state) {
                state = self.write_ahead(state, piece);
                continue;
            }
            state.zeros_low = false;
            if self.wants_next(&state) {
                state = self.make_ready(state);
            } else {
                state = self.groom.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn next_zeros(&self, state: &State) -> Option<Range<u64>> {
        state.active.as_ref().filter(|_| state.zeros_low)?;
        let goal = (state.position + self.zero_ahead).min(self.segment_bytes);
        let start = state.zeroed;
        (start < goal).then(|| start..goal.min(start + ZERO_PIECE))
    }

    fn write_ahead<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        piece: Range<u64>,
    ) -> MutexGuard<'s, State> {
        let Some(active) = state.active.clone() else { return state };
        state.zeroing = Some(piece.clone());
        drop(state);
        let written = segment::write_zeros(&*active.file, piece.start, piece.end - piece.start);
        // Zeros that don't fit are no loss: the appends that come here will say so themselves.
        if written.is_ok()
            && let Err(error) = active.file.sync()
        {
            self.health.fail(StoreError::failed("syncing zeros", &error));
        }
        let mut state = self.state();
        state.zeroing = None;
        state.zeroed = piece.end;
        self.zeroed.notify_all();
        state
    }

    fn make_ready<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        state.making = true;
        let number = state.next_number;
        drop(state);
        let made = self.make(number);
        let mut state = self.state();
        state.making = false;
        self.zeroed.notify_all();
        match made {
            Ok(ready) => {
                state.next_number = number + 1;
                state.ready = Some(ready);
            }
            // Whoever needs it tries again, and hears why not.
            Err(_) => state.not_made_at = Some(state.position),
        }
        state
    }
}
