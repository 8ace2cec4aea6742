//! A feed: the log to its end, then on whenever the tip moves.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use diptych_core::records::Position;
use futures::{StreamExt, stream};
use redb::ReadableDatabase;
use tokio::sync::watch;

use super::error::{storage, unavailable};
use super::view::{LogPage, read_log};
use super::{Disk, Tip};
use crate::{CatalogError, Feed, FeedEntry};

/// Bytes of the log that are read at once.
const PAGE_BYTES: usize = 256 << 10;

/// Does not keep the file open: a feed ends with an error when its catalog is dropped.
struct Follower {
    disk: Weak<Disk>,
    tip: watch::Receiver<Tip>,
    /// Everything up to here was handed out or is in `ready`.
    after: Position,
    ready: VecDeque<FeedEntry>,
}

/// Entries after `after`, of which the log is known to hold all.
pub(crate) fn follow(disk: &Arc<Disk>, after: Position) -> Feed {
    let follower = Follower { disk: Arc::downgrade(disk), tip: disk.watch(), after, ready: VecDeque::new() };
    stream::unfold(Some(follower), |follower| async {
        let mut follower = follower?;
        match follower.next().await {
            Ok(entry) => Some((Ok(entry), Some(follower))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

impl Follower {
    async fn next(&mut self) -> Result<FeedEntry, CatalogError> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(entry);
            }
            let tip = self.tip.borrow_and_update().clone()?;
            if tip != self.after {
                self.fill()?;
            } else if self.tip.changed().await.is_err() {
                return Err(unavailable("it was closed"));
            }
        }
    }

    fn fill(&mut self) -> Result<(), CatalogError> {
        let disk = self.disk.upgrade().ok_or_else(|| unavailable("it was closed"))?;
        let reader = disk.database.begin_read().map_err(storage)?;
        let LogPage { meta, entries, complete } = read_log(&reader, self.after.revision, PAGE_BYTES)?;
        if meta.incarnation != self.after.incarnation || meta.floor > self.after.revision {
            return Err(unavailable(
                "the feed was compacted or begun anew beneath its follower: ask for it again",
            ));
        }
        self.ready.extend(entries);
        let reached = self.ready.back().map_or(self.after, |last| last.position);
        self.after = reached;
        if complete && reached != meta.position() {
            // Nothing of the last revisions is fed: their position is all there is to tell.
            self.after = meta.position();
            self.ready.push_back(FeedEntry { position: meta.position(), changes: Vec::new() });
        }
        Ok(())
    }
}
