//! One drill under way: `core::drill` says what is to be done, and it is done here.

use std::time::Duration;

use diptych_core::drill::{Drill, Effect, Event, Exposed, PeerSight, ReadBack, Report, Sight, StaleWrites};
use diptych_core::ids::Epoch;
use diptych_core::lease::{Command, Role, Waiting};
use diptych_wire::peer::{DrillAnswer, DrillOrder, DrillStanding};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::desk::{DeskOrder, DrillParts};
use super::facts::facts;
use super::obey::try_stale_write;
use super::prober::Prober;
use super::rest::Rest;
use super::{isolated, log};
use crate::error::SiteError;
use crate::keeper::boot_time;
use crate::status::last_written;

/// Between two looks at both sites; a change of the own lease is looked at at once.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// An order that is not answered by then was not heard, as far as anybody knows.
const ORDER_LIMIT: Duration = Duration::from_secs(3);

/// A drill and what it needs.
pub(super) struct Run<'a> {
    parts: &'a DrillParts,
    events: mpsc::UnboundedSender<Event>,
    peer: watch::Receiver<Option<DrillStanding>>,
    prober: Option<Prober>,
    probing: Option<AbortHandle>,
    /// A voter was asked for the second vote.
    asked: bool,
    calls: JoinSet<()>,
}

/// Runs a drill to its end. What `orders` brings are events of people; those for another drill are dropped.
pub(super) async fn run(
    parts: &DrillParts,
    mut drill: Drill,
    orders: &mut mpsc::UnboundedReceiver<DeskOrder>,
    reports: &watch::Sender<Option<Report>>,
) {
    let (events, mut happened) = mpsc::unbounded_channel();
    let (standing, peer) = watch::channel(None);
    let mut run =
        Run { parts, events, peer, prober: None, probing: None, asked: false, calls: JoinSet::new() };
    run.calls.spawn(watch_peer(parts.clone(), standing));
    if drill.report().spec.mode.switches() {
        // The first look is to be at both sites.
        let _ = tokio::time::timeout(ORDER_LIMIT, run.peer.clone().wait_for(Option::is_some)).await;
    }
    let mut lease = parts.context.lease.clone();
    let mut name = parts.context.name.subscribe();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    while !drill.report().is_over() {
        let event = tokio::select! {
            Some(order) = orders.recv() => (order.drill == drill.report().id).then_some(order.event),
            Some(event) = happened.recv() => Some(event),
            Ok(()) = lease.changed() => run.look().await,
            Ok(()) = name.changed() => run.look().await,
            _ = looks.tick() => run.look().await,
        };
        let Some(event) = event else { continue };
        for effect in drill.step(boot_time(), event) {
            tracing::info!(drill = drill.report().id, ?effect, "drill");
            run.begin(&drill.report().id, effect).await;
        }
        reports.send_if_modified(|known| {
            let news = known.as_ref() != Some(drill.report());
            if news {
                *known = Some(drill.report().clone());
            }
            news
        });
    }
    run.end().await;
}

/// Asks the other site how it stands, again and again.
async fn watch_peer(parts: DrillParts, standing: watch::Sender<Option<DrillStanding>>) {
    loop {
        let seen = match order(&parts, DrillOrder::Look).await {
            Ok(DrillAnswer::Standing(standing)) => Some(standing),
            Ok(_) | Err(_) => None,
        };
        standing.send_replace(seen);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The other site's answer.
pub(super) async fn order(parts: &DrillParts, order: DrillOrder) -> Result<DrillAnswer, String> {
    match tokio::time::timeout(ORDER_LIMIT, parts.peer.drill(order)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(diptych_wire::http::chain(&error)),
        Err(_) => Err(format!("no answer in {ORDER_LIMIT:?}")),
    }
}

impl Run<'_> {
    /// Both sites as they are now; None: the own one can't be read just now.
    async fn look(&mut self) -> Option<Event> {
        match self.sight().await {
            Ok(sight) => Some(Event::Seen(Box::new(sight))),
            Err(error) => {
                tracing::warn!(%error, "a drill can't see its own site now");
                None
            }
        }
    }

    async fn sight(&mut self) -> Result<Sight, SiteError> {
        let context = &self.parts.context;
        let catalog = context.catalog.as_ref();
        let status = last_written(catalog).await?;
        let view = catalog.view().await?;
        let switched_ms = log::logs(view.as_ref(), &context.site, context.peer.as_ref())?.switched_ms;
        drop(view);
        let status = status.ok_or(SiteError::NotYet("the keeper has written no status yet"))?;
        let mut facts = facts(context, &status, switched_ms);
        let peer = self.peer.borrow().clone();
        if let Some(peer) = &peer {
            facts.repairs += peer.repairs;
            facts.other_drill.clone_from(&peer.drill);
            if peer.serves.is_some() {
                facts.exposed = peer.exposed.map(|exposed| at_least(exposed, facts.exposed));
            }
        }
        let state = *context.lease.borrow();
        let stands = !matches!(state.role, Role::NoRecord | Role::Follower | Role::Resigned);
        self.asked |= matches!(state.waiting, Some(Waiting::WitnessAnswer | Waiting::PeerAck));
        // After the answer the catalog is asked to open the gate.
        let won = state.serves.is_some() || self.asked && state.waiting == Some(Waiting::Catalog);
        Ok(Sight {
            facts,
            epoch: state.epoch,
            stands,
            won,
            serves: state.loan(boot_time()).map(|loan| loan.epoch),
            name_here: context.name.borrow().points_here,
            peer: peer.map(|peer| PeerSight { serves: peer.serves.is_some(), cut_off: peer.cut_off }),
        })
    }

    /// Begins what the drill asks for; what is owed comes as an event.
    async fn begin(&mut self, id: &str, effect: Effect) {
        let parts = self.parts.clone();
        match effect {
            // The name may point elsewhere from one record to the next: a connection that is kept would stay where it pointed to.
            Effect::StartProber => match Rest::without_pool(&parts.public, &parts.token).await {
                Ok(rest) => {
                    let prober = Prober::new(rest, id);
                    self.probing = Some(self.calls.spawn(prober.clone().run(self.events.clone())));
                    self.prober = Some(prober);
                }
                Err(reason) => self.tell(Event::Abort(format!("the public name can't be asked: {reason}"))),
            },
            Effect::StopProber => {
                if let Some(probing) = self.probing.take() {
                    probing.abort();
                }
            }
            Effect::CutOff { length } => self.command(DrillOrder::CutOff { length }),
            Effect::Restore => self.forget(DrillOrder::Restore),
            Effect::AskForRole => self.command(DrillOrder::HandOver),
            Effect::CancelRole => self.forget(DrillOrder::CancelHandOver),
            Effect::GiveBack => parts.keeper.command(Command::Handover),
            Effect::Sample { objects } => {
                self.later(async move { Event::Sampled(isolated::sample(&parts, objects).await) });
            }
            Effect::Rehearse { keys } => {
                self.later(async move { Event::Rehearsed(isolated::rehearse(&parts, keys).await) });
            }
            Effect::TryStaleWrites { epoch } => {
                self.later(async move { Event::TriedStaleWrites(stale_writes(&parts, epoch).await) });
            }
            Effect::ReadBack { phase } => match self.prober.clone() {
                Some(prober) => {
                    self.later(async move { Event::Read { phase, read: prober.read_back().await } });
                }
                None => self.tell(Event::Read { phase, read: Ok(ReadBack::default()) }),
            },
        }
    }

    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    fn later(&mut self, work: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        self.calls.spawn(async move {
            let _ = events.send(work.await);
        });
    }

    /// An order whose answer the drill waits for.
    fn command(&mut self, command: DrillOrder) {
        let parts = self.parts.clone();
        self.later(async move {
            Event::Obeyed(match order(&parts, command).await {
                Ok(DrillAnswer::Refused(reason)) | Err(reason) => Err(reason),
                Ok(_) => Ok(()),
            })
        });
    }

    /// An order that is only a help: what it asks for comes about by itself too.
    fn forget(&mut self, command: DrillOrder) {
        let parts = self.parts.clone();
        self.calls.spawn(async move {
            if let Err(reason) = order(&parts, command).await {
                tracing::info!(?command, reason, "the other site did not hear it");
            }
        });
    }

    async fn end(mut self) {
        self.calls.shutdown().await;
        if let Some(prober) = self.prober.take() {
            tokio::spawn(async move { prober.tidy().await });
        }
    }
}

/// What either of two counts says.
fn at_least(one: Exposed, other: Option<Exposed>) -> Exposed {
    let other = other.unwrap_or_default();
    Exposed { bytes: one.bytes.max(other.bytes), age: one.age.max(other.age) }
}

/// Both sites try to write under an epoch that is over.
async fn stale_writes(parts: &DrillParts, epoch: Epoch) -> StaleWrites {
    let here = try_stale_write(parts.context.catalog.as_ref(), epoch).await;
    let there = match order(parts, DrillOrder::TryStaleWrite { epoch }).await {
        Ok(DrillAnswer::StaleWrite { refused }) => Ok(refused),
        Ok(_) => Err("another answer".to_owned()),
        Err(reason) => Err(reason),
    };
    let outcomes = [here.map_err(|error| error.to_string()), there];
    let refused = outcomes.iter().filter(|outcome| **outcome == Ok(true)).count() as u64;
    tracing::info!(%epoch, ?outcomes, "stale writes were tried");
    StaleWrites { tried: outcomes.len() as u64, refused }
}
