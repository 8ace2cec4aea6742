//! When checkpoints and merges are due.

use std::time::{Duration, Instant};

use crate::context::LoopOptions;

/// After a checkpoint that failed: it costs more than a journal.
const CHECKPOINT_AGAIN: Duration = Duration::from_secs(30);

/// What is done beside the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chore {
    Checkpoint,
    Merge,
}

/// What there is to do as the journal stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToDo {
    /// A checkpoint is wanted.
    pub(super) checkpoint: bool,
    /// Small journals may be merged: a checkpoint is there that they go on from.
    pub(super) merge: bool,
}

/// When each may begin.
#[derive(Debug)]
pub(super) struct Chores {
    merge_every: Duration,
    merge_at: Instant,
    checkpoint_at: Instant,
}

impl Chores {
    pub(super) fn new(now: Instant, options: &LoopOptions) -> Self {
        let LoopOptions { checkpoint_after, merge_every, .. } = *options;
        Self { merge_every, merge_at: now + merge_every, checkpoint_at: now + checkpoint_after }
    }

    /// What is begun now, if anything is.
    pub(super) fn begin(&mut self, now: Instant, to_do: ToDo) -> Option<Chore> {
        if to_do.checkpoint && now >= self.checkpoint_at {
            self.checkpoint_at = now + CHECKPOINT_AGAIN;
            return Some(Chore::Checkpoint);
        }
        if to_do.merge && now >= self.merge_at {
            self.merge_at = now + self.merge_every;
            return Some(Chore::Merge);
        }
        None
    }

    /// When there may be something to begin; None: not before something changes.
    pub(super) fn again(&self, to_do: ToDo) -> Option<Instant> {
        let checkpoint = to_do.checkpoint.then_some(self.checkpoint_at);
        let merge = to_do.merge.then_some(self.merge_at);
        checkpoint.into_iter().chain(merge).min()
    }

    /// A checkpoint is whole: the next one waits for nothing but its need.
    pub(super) fn checkpoint_made(&mut self, now: Instant) {
        self.checkpoint_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_begun_it_is_looked_at_again_later_and_not_at_once() {
        let begun = Instant::now();
        for (checkpoint, merge) in [(true, false), (true, true), (false, true), (false, false)] {
            let to_do = ToDo { checkpoint, merge };
            let merge_every = Duration::from_secs(5);
            let mut chores = Chores::new(begun, &LoopOptions { merge_every, ..LoopOptions::default() });
            for second in 0..100 {
                let now = begun + Duration::from_secs(second);
                while chores.begin(now, to_do).is_some() {}
                assert!(chores.again(to_do).is_none_or(|again| again > now), "{to_do:?} at {second} s");
            }
        }
    }

    #[test]
    fn a_checkpoint_that_fails_waits_and_one_that_is_whole_does_not() {
        let begun = Instant::now();
        let to_do = ToDo { checkpoint: true, merge: false };
        let options = LoopOptions::default();
        let mut chores = Chores::new(begun, &options);
        assert_eq!(chores.begin(begun, to_do), None, "the term has just begun");
        let begun = begun + options.checkpoint_after;
        assert_eq!(chores.begin(begun, to_do), Some(Chore::Checkpoint));
        assert_eq!(chores.begin(begun + CHECKPOINT_AGAIN / 2, to_do), None);
        assert_eq!(chores.begin(begun + CHECKPOINT_AGAIN, to_do), Some(Chore::Checkpoint));
        chores.checkpoint_made(begun + CHECKPOINT_AGAIN);
        assert_eq!(chores.begin(begun + CHECKPOINT_AGAIN, to_do), Some(Chore::Checkpoint));
    }
}
