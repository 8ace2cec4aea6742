//! The commits of etcd from a revision on, out of a watch.

use bytes::Bytes;
use diptych_core::keys::Key;
use etcd_client::{Event, EventType, WatchResponse, WatchStream};

use super::client::read_error;
use super::space::{Incarnation, Space};
use crate::CatalogError;
use crate::disk::{Changed, corrupt, unavailable};

/// A watch of everything.
#[derive(Debug)]
pub(super) struct Tail {
    watch: WatchStream,
    space: Space,
}

/// One revision of etcd.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) revision: u64,
    /// Empty where only others' keys were changed.
    pub(super) changes: Vec<Changed>,
    /// The incarnation, where it was written.
    pub(super) incarnation: Option<u64>,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Tailed {
    /// In order, without a gap, each whole.
    Commits(Vec<Commit>),
    /// etcd forgot what came next; it still has all after this revision.
    Compacted { revision: u64 },
}

impl Tail {
    pub(super) fn new(watch: WatchStream, space: Space) -> Self {
        Self { watch, space }
    }

    /// Waits for the next commits.
    pub(super) async fn next(&mut self) -> Result<Tailed, CatalogError> {
        loop {
            let answer = self.watch.message().await.map_err(|error| read_error(&error))?;
            let answer = answer.ok_or_else(|| unavailable("etcd ended the watch"))?;
            if answer.compact_revision() > 0 {
                return Ok(Tailed::Compacted { revision: answer.compact_revision() as u64 });
            }
            if answer.canceled() {
                return Err(unavailable(format!("etcd cancelled the watch: {}", answer.cancel_reason())));
            }
            if !answer.events().is_empty() {
                return Ok(Tailed::Commits(self.commits(&answer)?));
            }
        }
    }

    /// etcd puts all events of a revision into one message.
    fn commits(&self, answer: &WatchResponse) -> Result<Vec<Commit>, CatalogError> {
        let mut commits: Vec<Commit> = Vec::new();
        for event in answer.events() {
            let pair = event.kv().ok_or_else(|| corrupt("etcd sent an event without a key"))?;
            let revision = pair.mod_revision() as u64;
            if commits.last().is_none_or(|commit| commit.revision != revision) {
                commits.push(Commit { revision, changes: Vec::new(), incarnation: None });
            }
            if let Some(commit) = commits.last_mut() {
                self.add(commit, event, pair.key(), pair.value())?;
            }
        }
        Ok(commits)
    }

    fn add(&self, commit: &mut Commit, event: &Event, name: &[u8], value: &[u8]) -> Result<(), CatalogError> {
        if let Some(key) = self.space.key(name) {
            let value = match event.event_type() {
                EventType::Put => Some(Bytes::copy_from_slice(value)),
                EventType::Delete => None,
            };
            commit.changes.push((Key(key.to_vec()), value));
        } else if name == self.space.incarnation() {
            let found =
                Incarnation::decode(value).ok_or_else(|| corrupt("the incarnation in etcd can't be read"))?;
            commit.incarnation = Some(found.number);
        }
        Ok(())
    }
}
