//! Forgets the own feed, in either role: what nobody needs any more is compacted, so that the catalog does not grow for ever.
//!
//! ```text
//! compacted │ what the peer or the journal lacks │ young: snapshots and mirrors under way │ now
//!           └──────────── goes after hold, or when room is short: then they begin with a snapshot, a checkpoint
//! ```
//! FENCING (nothing vanishes): what this site committed in a term that the newer one never saw is found in this feed when it returns
//! (`rejoin`). So a site that is not active, and has not rejoined the newest term that it knows, forgets nothing at all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use diptych_catalog::{Room, View};
use diptych_core::journal::Progress;
use diptych_core::keys;
use diptych_core::records::{Position, Record};

use crate::context::{LoopOptions, SiteContext, now_ms};
use crate::error::SiteError;
use crate::keeper::record;
use crate::peer::cursor_of;
use crate::rejoin::rejoined;
use crate::status::FeedStatus;

/// Room is short from this part of it on.
const SHORT: (u64, u64) = (3, 4);

/// What one site's keeper forgets.
#[derive(Debug, Default)]
pub struct Forgetting {
    /// Where the feed was when, oldest first: entries have no times.
    seen: VecDeque<(Instant, Position)>,
    /// All below it is forgotten; None: this keeper has not compacted yet.
    kept_from: Option<Position>,
    forgotten_ms: u64,
}

/// What of the feed is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needed {
    /// Nothing: nobody follows.
    Nothing,
    /// What comes after it: the other site has not confirmed it, or no journal holds it.
    After(Position),
    /// All of it: what this site committed has to be handed over first.
    ToReturn,
}

impl Forgetting {
    /// One pass; to be called about once a minute. Says how the feed is.
    pub async fn pass(&mut self, context: &SiteContext) -> Result<FeedStatus, SiteError> {
        let room = context.catalog.room().await?;
        let view = context.catalog.view().await?;
        let now = view.position();
        let needed = needed(context, view.as_ref())?;
        drop(view);
        self.note(now, &context.options);
        let short = is_short(room);
        let kept_from = self.kept_from.map_or(0, |kept_from| kept_from.revision);
        if let Some(keep) = self.keep(needed, short, &context.options)
            && keep.revision >= kept_from + context.options.forget_at_once
        {
            context.catalog.compact_feed(keep).await?;
            tracing::info!(site = %context.site, revision = keep.revision, short, "the feed up to it is forgotten");
            (self.kept_from, self.forgotten_ms) = (Some(keep), now_ms());
        }
        Ok(FeedStatus {
            entries: now.revision - self.kept_from.map_or(0, |kept_from| kept_from.revision),
            bytes: room.used,
            limit: room.limit,
            forgotten_ms: self.forgotten_ms,
            trouble: short.then(|| trouble(room, needed)),
        })
    }

    /// Remembers where the feed is now, and no more of it than is asked for.
    fn note(&mut self, now: Position, options: &LoopOptions) {
        if self.seen.back().is_some_and(|(_, before)| before.incarnation != now.incarnation) {
            *self = Self::default();
        }
        self.seen.push_back((Instant::now(), now));
        let longest = options.orphan_hold.max(options.young_feed);
        while self.seen.get(1).is_some_and(|(when, _)| when.elapsed() >= longest) {
            self.seen.pop_front();
        }
    }

    /// Where the feed was so long ago, or before that; None: that is not known.
    fn ago(&self, age: Duration) -> Option<Position> {
        let older = self.seen.iter().take_while(|(when, _)| when.elapsed() >= age);
        older.last().map(|(_, position)| *position)
    }

    /// The position below which nothing is needed; None: nothing goes.
    ///
    /// FENCING (nothing vanishes): a return has no time limit. Whoever else is passed over begins anew, and loses nothing.
    fn keep(&self, needed: Needed, short: bool, options: &LoopOptions) -> Option<Position> {
        let young = self.ago(options.young_feed)?;
        match needed {
            Needed::Nothing => Some(young),
            Needed::After(_) if short => Some(young),
            Needed::After(position) => Some(self.ago(options.orphan_hold).max(Some(position))?.min(young)),
            Needed::ToReturn => None,
        }
    }
}

fn is_short(room: Room) -> bool {
    let (part, whole) = SHORT;
    room.limit.is_some_and(|limit| room.used / part >= limit / whole)
}

fn trouble(room: Room, needed: Needed) -> String {
    let advice = match needed {
        Needed::ToReturn => {
            "its feed is kept until what this site committed is handed over: let it reach the other site"
        }
        Needed::Nothing | Needed::After(_) => {
            "what can be forgotten goes: if it stays so full, delete files, or keep some in another StorageCluster"
        }
    };
    let limit = room.limit.unwrap_or_default();
    format!("the catalog has {} bytes and refuses every write at {limit}; {advice}", room.used)
}

fn needed(context: &SiteContext, view: &dyn View) -> Result<Needed, SiteError> {
    let now = view.position();
    let own = |position: Position| Some(position).filter(|known| known.incarnation == now.incarnation);
    let mut least = None;
    if let Some(peer) = &context.peer {
        if !has_nothing_unseen(context, view)? {
            return Ok(Needed::ToReturn);
        }
        // FENCING (BothSites): what is applied and not confirmed is exposed, and a gateway that starts looks for it here.
        let cursor = cursor_of(view, peer)?;
        let confirmed = own(cursor.applied).min(own(cursor.confirmed));
        least = Some(confirmed.unwrap_or(Position { revision: 0, ..now }));
    }
    if let Some(raw) = view.get(&keys::journal())? {
        // Of another incarnation it is the other site's.
        least = least.into_iter().chain(own(Progress::decode(&raw)?.upto)).min();
    }
    Ok(least.map_or(Needed::Nothing, Needed::After))
}

/// Whether no term of the other site can lack what this one has committed: this one is active, or has rejoined the newest.
fn has_nothing_unseen(context: &SiteContext, view: &dyn View) -> Result<bool, SiteError> {
    if context.active_epoch().is_some() {
        return Ok(true);
    }
    let vote = record::read(view, &context.site)?.vote;
    let newest = vote.map(|vote| vote.epoch).unwrap_or_default();
    Ok(rejoined(view, &context.site)? >= newest)
}
