//! Compaction of shared extents: what lives in mostly dead ones is copied into a new one, and they die.
//!
//! ```text
//! half dead ──read, live blobs copied──► rows durable ──► x/ compacting, every blob of it marked dead
//!     ──confirmed by the other site (which makes it by its recipe), journaled──► versions switched one by one, marks with them
//!     ──► x/ live; the old extents are dead, and go by the collector
//! ```
//! All that is under way stands in the catalog: a keeper that begins, or a site that takes over, goes on with what it finds.
//! One round at a time, behind all repair, within the budget for LAN.

mod choose;
mod copy;
mod names;
pub(crate) mod recipe;
mod switch;

use std::time::{Duration, Instant};

use diptych_catalog::View;
use diptych_core::ids::Epoch;
use diptych_core::records::Position;
use diptych_core::repair::TokenBucket;

use crate::collector::{collecting, confirmed_by_peer, covers, dead_bytes};
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::extents::Pen;
use crate::journal::is_journaled;
use crate::status::CompactionStatus;
use switch::{Filling, Outcome};

/// New extents of one round.
const AT_ONCE: usize = 4;

/// New extents as they were seen, and where.
#[derive(Debug)]
struct Seen {
    position: Position,
    filling: Vec<Filling>,
}

/// Compacts the extents of one site while it is active.
#[derive(Debug)]
pub struct Compaction {
    waiting: Option<Seen>,
    begun: Instant,
    budget: TokenBucket,
    status: CompactionStatus,
}

impl Compaction {
    /// Of a keeper that begins.
    pub fn new(context: &SiteContext) -> Self {
        let budget = TokenBucket::new(context.options.repair_lan, Duration::ZERO);
        Self { waiting: None, begun: Instant::now(), budget, status: CompactionStatus::default() }
    }

    /// What is known of it.
    pub fn status(&self) -> CompactionStatus {
        self.status.clone()
    }

    /// One pass; to be called every few seconds. `may_begin`: nothing that is more urgent waits.
    ///
    /// FENCING: as the collector, it remembers the position that it looked at, and acts on what it saw only when the other site has
    /// confirmed that position and the journal holds all up to it (`Filling::switch` says why).
    pub async fn pass(&mut self, context: &SiteContext, may_begin: bool) -> Result<(), SiteError> {
        let view = context.catalog.view().await?;
        self.status.dead_bytes = dead_bytes(view.as_ref())?.values().sum();
        let Some(epoch) = collecting(context, view.as_ref())? else {
            self.waiting = None;
            self.status.extents = 0;
            return Ok(());
        };
        let confirmed = confirmed_by_peer(context, view.as_ref())?;
        let is_known =
            |seen: &mut Seen| covers(confirmed, seen.position) && is_journaled(context, seen.position);
        if let Some(seen) = self.waiting.take_if(is_known) {
            self.switch(context, epoch, view.as_ref(), seen).await?;
        }
        drop(view);
        if self.waiting.is_none() {
            self.look(context, epoch, may_begin).await?;
        }
        Ok(())
    }

    async fn switch(
        &mut self,
        context: &SiteContext,
        epoch: Epoch,
        view: &dyn View,
        seen: Seen,
    ) -> Result<(), SiteError> {
        for filling in seen.filling {
            match filling.switch(context, epoch, view).await? {
                Outcome::Done(versions) => self.status.versions += versions,
                Outcome::Waits => {}
            }
        }
        Ok(())
    }

    /// Finds what is under way, or begins a round where nothing is.
    async fn look(&mut self, context: &SiteContext, epoch: Epoch, may_begin: bool) -> Result<(), SiteError> {
        let mut view = context.catalog.view().await?;
        let mut filling = switch::look(view.as_ref())?;
        if filling.is_empty() && may_begin && self.begin(context, epoch, view.as_ref()).await? {
            view = context.catalog.view().await?;
            filling = switch::look(view.as_ref())?;
        }
        self.status.extents = filling.len() as u64;
        if !filling.is_empty() {
            self.waiting = Some(Seen { position: view.position(), filling });
        }
        Ok(())
    }

    /// Whether anything was begun.
    async fn begin(
        &mut self,
        context: &SiteContext,
        epoch: Epoch,
        view: &dyn View,
    ) -> Result<bool, SiteError> {
        let is_ready = |at: Duration| at <= self.begun.elapsed();
        if !self.budget.ready_at(self.begun.elapsed()).is_some_and(is_ready) {
            return Ok(false);
        }
        let rounds = choose::choose(view, context, AT_ONCE)?;
        if rounds.is_empty() {
            return Ok(false);
        }
        let pen = Pen::find(context, view)?;
        for sources in rounds {
            let bytes = copy::copy(context, epoch, &pen, sources).await?;
            self.budget.take(self.begun.elapsed(), bytes);
            self.status.bytes += bytes;
        }
        Ok(true)
    }
}
