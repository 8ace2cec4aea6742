//! What waits for the committer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use diptych_core::fragment::FootEntry;
use diptych_core::ids::InstanceId;

use crate::error::StoreError;
use crate::index::{Location, LogPosition};
use crate::pending::Answer;
use crate::segment::Segment;
use crate::types::{Commits, Deleted, InventoryKey, Sealed, WholeRow};

/// Work for the committer.
#[derive(Debug)]
pub(crate) enum Work {
    /// A short row of which nothing is written yet.
    Write(Box<WholeRow>, Answer<Sealed>),
    /// To be made durable.
    Written(Item),
}

impl From<Item> for Work {
    fn from(item: Item) -> Self {
        Self::Written(item)
    }
}

/// What is in the log, or nearly.
#[derive(Debug)]
pub(crate) enum Item {
    /// A row whose trailer is written.
    Row {
        key: InventoryKey,
        location: Location,
        entry: FootEntry,
        segment: Arc<Segment>,
        sealed: Sealed,
        answer: Answer<Sealed>,
    },
    /// A tombstone that is written.
    Tombstone {
        key: InventoryKey,
        at: LogPosition,
        entry: FootEntry,
        segment: Arc<Segment>,
        answer: Answer<Deleted>,
    },
    /// The copy of a tombstone of segment `from` is written.
    Carried {
        instance: InstanceId,
        from: u64,
        at: LogPosition,
        entry: FootEntry,
        segment: Arc<Segment>,
        answer: Answer<()>,
    },
    /// Somebody gave up a reservation.
    Abandoned(LogPosition),
    /// Unlink what is dead.
    Reclaim(Answer<u64>),
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Work>,
    taken: Commits,
    closed: bool,
}

/// Between the threads that write and the committer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

impl Queue {
    /// Queues work; refused once the queue is closed.
    pub(crate) fn push(&self, work: impl Into<Work>) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(StoreError::Closed);
        }
        state.items.push_back(work.into());
        self.filled.notify_one();
        Ok(())
    }

    /// Takes no more; the committer ends when it has done what is there.
    pub(crate) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.filled.notify_one();
    }

    /// Everything that waits. Empty: the time is over. `None`: closed and empty.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Option<VecDeque<Work>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.items.is_empty() && !state.closed {
            match patience {
                None => state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.filled.wait_timeout(state, patience);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    break;
                }
            }
        }
        if state.items.is_empty() && state.closed {
            return None;
        }
        state.taken.batches += u64::from(!state.items.is_empty());
        state.taken.records += state.items.len() as u64;
        Some(std::mem::take(&mut state.items))
    }

    /// What was taken so far.
    pub(crate) fn taken(&self) -> Commits {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).taken
    }
}
