//! Where drills are asked for: one at a time, kept in the catalog, ended by whoever says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diptych_catalog::Catalog;
use diptych_core::drill::{Drill, DrillSpec, Event, InvalidDrill, Phase, Report, Verdict};
use diptych_wire::peer::DrillOrder;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use super::log::{self, DrillLog};
use super::rest::RestEndpoint;
use super::run::{order, run};
use crate::context::{SiteContext, now_ms};
use crate::keeper::{KeeperHandle, boot_time};
use crate::peer::PeerClient;

/// Longest name.
const LONGEST_ID: usize = 63;
/// Until the catalog is asked again that did not do as asked.
const AGAIN: Duration = Duration::from_secs(1);

/// What drills work with.
#[derive(Clone)]
pub struct DrillParts {
    /// The site that runs them.
    pub context: Arc<SiteContext>,
    /// Its keeper.
    pub keeper: KeeperHandle,
    /// The other site's door.
    pub peer: PeerClient,
    /// REST by the public name.
    pub public: RestEndpoint,
    /// REST of this site's own gateways.
    pub own: RestEndpoint,
    /// Bearer token of both.
    pub token: String,
}

/// Why a drill was not begun.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// It can't be carried out.
    #[error(transparent)]
    Invalid(#[from] InvalidDrill),
    /// Its name.
    #[error("{0:?} is no name of a drill: 1 to 63 of a to z, 0 to 9 and -")]
    Name(String),
    /// One at a time.
    #[error("drill {0} is under way: wait for its end, or abort it")]
    UnderWay(String),
    /// Its keeper has not read yet what was run before: the same drill may be among that.
    #[error("the keeper has just begun: ask again")]
    Beginning,
    /// Its keeper is about to end.
    #[error("the keeper is about to end: ask again")]
    Ending,
}

/// Takes wishes, and says how they fare. Cheap to share.
pub struct DrillDesk {
    site: diptych_core::ids::SiteName,
    open: AtomicBool,
    report: watch::Sender<Option<Report>>,
    wishes: mpsc::Sender<Drill>,
    orders: mpsc::UnboundedSender<DeskOrder>,
}

/// What a person wants of one drill.
pub(super) struct DeskOrder {
    /// Its name: an order that comes too late is for no other one.
    pub(super) drill: String,
    /// What is to happen.
    pub(super) event: Event,
}

/// The other end of a desk: what carries the drills out.
pub struct DrillWork {
    desk: Arc<DrillDesk>,
    wishes: mpsc::Receiver<Drill>,
    orders: mpsc::UnboundedReceiver<DeskOrder>,
}

impl DrillDesk {
    /// Of a site's keeper. Nothing is begun before the work runs.
    pub fn open(site: diptych_core::ids::SiteName) -> DrillWork {
        let (wish, wishes) = mpsc::channel(1);
        let (order, orders) = mpsc::unbounded_channel();
        let (report, open) = (watch::Sender::new(None), AtomicBool::new(false));
        let desk = Self { site, open, report, wishes: wish, orders: order };
        DrillWork { desk: Arc::new(desk), wishes, orders }
    }

    /// From now on drills are taken. `last`: the newest that this site has run.
    pub(super) fn take_wishes(&self, last: Option<Report>) {
        self.report.send_replace(last);
        self.open.store(true, Ordering::Release);
    }

    /// Begins a drill. One of the same name as the newest is that one: to ask twice begins nothing twice.
    ///
    /// # Errors
    /// It can't be carried out, or another one is under way.
    pub fn begin(&self, id: &str, spec: DrillSpec) -> Result<Report, Refused> {
        spec.check()?;
        let fine = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
        if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(fine) {
            return Err(Refused::Name(id.to_owned()));
        }
        if !self.open.load(Ordering::Acquire) {
            return Err(Refused::Beginning);
        }
        let drill = Drill::new(id.to_owned(), spec, self.site.clone(), boot_time(), now_ms());
        let mut outcome = Ok(drill.report().clone());
        self.report.send_if_modified(|known| match known {
            Some(known) if known.id == id => {
                outcome = Ok(known.clone());
                false
            }
            Some(known) if !known.is_over() => {
                outcome = Err(Refused::UnderWay(known.id.clone()));
                false
            }
            _ if self.wishes.try_send(drill.clone()).is_ok() => {
                *known = Some(drill.report().clone());
                true
            }
            _ => {
                outcome = Err(Refused::Ending);
                false
            }
        });
        outcome
    }

    /// Ends the drill that is under way; false: none is.
    pub fn abort(&self, reason: &str) -> bool {
        let event = Event::Abort(reason.to_owned());
        self.under_way().is_some_and(|drill| self.orders.send(DeskOrder { drill, event }).is_ok())
    }

    /// The drill that is under way; None: none is.
    pub fn under_way(&self) -> Option<String> {
        let report = self.report.borrow();
        report.as_ref().filter(|report| !report.is_over()).map(|report| report.id.clone())
    }

    /// The newest drill of this site, as it fares.
    pub fn report(&self) -> watch::Receiver<Option<Report>> {
        self.report.subscribe()
    }

    /// Waits until no drill is under way.
    pub async fn idle(&self) {
        let over = |report: &Option<Report>| report.as_ref().is_none_or(Report::is_over);
        // The sender is the desk's own.
        let _ = self.report().wait_for(over).await;
    }
}

impl DrillWork {
    /// Where people ask.
    pub fn desk(&self) -> Arc<DrillDesk> {
        Arc::clone(&self.desk)
    }

    /// Carries out what is asked for, for ever.
    pub async fn run(self, parts: DrillParts) {
        let Self { desk, mut wishes, mut orders } = self;
        let catalog = Arc::clone(&parts.context.catalog);
        let (kept, written) = recover(&parts, &desk).await;
        let carry_out = async {
            while let Some(drill) = wishes.recv().await {
                run(&parts, drill, &mut orders, &desk.report).await;
            }
        };
        tokio::select! {
            () = carry_out => {}
            () = keep(catalog.as_ref(), (kept, written), desk.report()) => {}
        }
    }
}

/// How far a drill is, as far as it is written down.
type Stage = (String, Phase);

fn stage(report: &Report) -> Stage {
    (report.id.clone(), report.phase)
}

/// A drill that an earlier keeper left is over: what it had asked of the other site ends there by itself, or now. What is kept
/// from now on, and what of it is written down.
async fn recover(parts: &DrillParts, desk: &DrillDesk) -> (DrillLog, Option<Stage>) {
    let mut kept = read(&parts.context).await;
    let written = kept.last.as_ref().map(stage);
    if let Some(mut report) = kept.last.clone().filter(|report| !report.is_over()) {
        report.verdict = Some(Verdict::Aborted);
        report.phase = Phase::Ended;
        report.ended_ms = now_ms();
        "the keeper that ran it ended; the other site comes back by itself".clone_into(&mut report.reason);
        kept.note(&report);
        if let Err(reason) = order(parts, DrillOrder::Restore).await {
            tracing::info!(reason, "the other site was not told that a drill is over");
        }
    }
    desk.take_wishes(kept.last.clone());
    (kept, written)
}

/// What this site has run; waits until its catalog says it.
async fn read(context: &SiteContext) -> DrillLog {
    loop {
        let read = async {
            let view = context.catalog.view().await?;
            log::log_of(view.as_ref(), &context.site)
        };
        match read.await {
            Ok(log) => return log,
            Err(error) => tracing::warn!(%error, "earlier drills can't be read now"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Writes each phase of a drill down, and tries again what could not be written.
async fn keep(
    catalog: &dyn Catalog,
    (mut kept, mut written): (DrillLog, Option<Stage>),
    mut report: watch::Receiver<Option<Report>>,
) {
    loop {
        let now = report.borrow_and_update().clone();
        if let Some(now) = now
            && written.as_ref() != Some(&stage(&now))
        {
            kept.note(&now);
            if let Err(error) = log::write(catalog, &kept).await {
                tracing::warn!(%error, "a drill could not be written down; tried again");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            written = Some(stage(&now));
        }
        if report.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
