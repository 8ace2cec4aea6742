//! The task that owns the state machine.

use std::sync::Arc;
use std::time::Duration;

use diptych_catalog::Catalog;
use diptych_core::ids::{Epoch, KeeperNumber};
use diptych_core::lease::{
    BootTime, CallId, Config, Effect, Event, Lease, Message, Persisted, Role, SiteRecord, SwapResult, Token,
    WitnessRead, WitnessRecord,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::handle::{KeeperHandle, KeeperState};
use super::witness::Witness;
use super::{PeerLink, SiteHands, boot_time, record};
use crate::drill::CutSwitch;
use crate::error::SiteError;

/// Longest time for a call of the catalog, so that an answer is always given.
const CATALOG_LIMIT: Duration = Duration::from_secs(2);

/// What a keeper is made of.
pub struct KeeperParts {
    /// The site's catalog.
    pub catalog: Arc<dyn Catalog>,
    /// Of the lease.
    pub config: Arc<Config>,
    /// As elected.
    pub number: KeeperNumber,
    /// To the other site's keeper; None with one site.
    pub peer: Option<Arc<dyn PeerLink>>,
    /// The third voter; None with one site.
    pub witness: Option<Arc<dyn Witness>>,
    /// Gateways and other loops.
    pub hands: Arc<dyn SiteHands>,
    /// Whether a drill has cut the site off.
    pub cut: CutSwitch,
}

/// A keeper that was elected.
pub struct Keeper {
    parts: Arc<KeeperParts>,
    lease: Lease,
    events: mpsc::UnboundedSender<Event>,
    inbox: mpsc::UnboundedReceiver<Event>,
    state: watch::Sender<KeeperState>,
    waiting: Option<diptych_core::lease::Waiting>,
    /// When the other site was promised last.
    promised: Option<BootTime>,
    wakes_at: BootTime,
    calls: JoinSet<()>,
    to_peer: Option<mpsc::UnboundedSender<diptych_core::lease::Message>>,
}

impl Keeper {
    /// Begins after the election was confirmed: it reads the site's record and holds nothing.
    pub async fn begin(parts: KeeperParts) -> Result<(Self, KeeperHandle), SiteError> {
        let site = parts.catalog.site().clone();
        let view = parts.catalog.view().await?;
        let mut found = record::read(view.as_ref(), &site)?;
        drop(view);
        found.keeper = parts.number;
        let now = boot_time();
        let lease = Lease::new(Arc::clone(&parts.config), found, now);
        let (events, inbox) = mpsc::unbounded_channel();
        let status = lease.status(now);
        let state = watch::Sender::new(KeeperState {
            role: status.role,
            epoch: status.epoch,
            keeper: parts.number,
            ..KeeperState::at_start()
        });
        let handle = KeeperHandle::new(events.clone(), state.subscribe());
        let parts = Arc::new(parts);
        let mut calls = JoinSet::new();
        let to_peer = parts.peer.clone().map(|peer| {
            let (sender, mut messages) = mpsc::unbounded_channel();
            calls.spawn(async move {
                // None waits for another: any may be late, and the answer that a handover waits for should not be.
                let mut sending = JoinSet::new();
                while let Some(message) = messages.recv().await {
                    while sending.try_join_next().is_some() {}
                    let peer = Arc::clone(&peer);
                    sending.spawn(async move { peer.send(message).await });
                }
            });
            sender
        });
        let keeper = Self {
            parts,
            lease,
            events,
            inbox,
            state,
            waiting: None,
            promised: None,
            wakes_at: BootTime::NEVER,
            calls,
            to_peer,
        };
        Ok((keeper, handle))
    }

    /// Runs until another keeper speaks for the site.
    pub async fn run(mut self) {
        if self.step(Event::Tick) {
            return;
        }
        let mut cut = self.parts.cut.watch();
        loop {
            let event = tokio::select! {
                biased;
                // What is lent ends with the cut's begin, and goes on with its end.
                Ok(()) = cut.changed() => Event::Tick,
                event = self.inbox.recv() => event.unwrap_or(Event::Tick),
                () = sleep_until(self.wakes_at) => {
                    self.wakes_at = BootTime::NEVER;
                    Event::Tick
                }
                Some(_) = self.calls.join_next(), if !self.calls.is_empty() => continue,
            };
            if self.step(event) {
                return;
            }
        }
    }

    /// One step and the beginning of its effects; true: resigned.
    fn step(&mut self, event: Event) -> bool {
        // A site that is cut off hears nothing; to the state machine it is as if the line were broken.
        let lost = matches!(event, Event::FromPeer(_)) && self.parts.cut.is_cut();
        let event = if lost { Event::Tick } else { event };
        let effects = self.lease.step(boot_time(), event);
        let mut resigned = false;
        for effect in effects {
            resigned |= matches!(effect, Effect::Resign);
            self.begin_effect(effect);
        }
        self.publish();
        resigned
    }

    fn publish(&mut self) {
        let status = self.lease.status(boot_time());
        // A site that is cut off lends nothing, whatever time is left.
        let cut = self.parts.cut.is_cut() && status.serves.is_some();
        let state = KeeperState {
            role: if cut { Role::Lapsed } else { status.role },
            epoch: status.epoch,
            keeper: self.parts.number,
            serves: status.serves.filter(|_| !cut),
            peer_connected: status.peer_connected,
            witness_reachable: status.witness_reachable,
            peer_renewed: status.peer_renewed,
            peer_promised: self.promised,
            witness_aged: status.witness_aged,
            no_promotion: status.no_promotion,
            waiting: self.waiting,
        };
        self.state.send_if_modified(|known| {
            let news = *known != state;
            *known = state;
            news
        });
    }

    fn begin_effect(&mut self, effect: Effect) {
        match effect {
            Effect::SendPeer(message) => {
                if matches!(message, Message::Ack { .. }) {
                    self.promised = Some(boot_time());
                }
                if let Some(sender) = self.to_peer.as_ref().filter(|_| !self.parts.cut.is_cut()) {
                    let _ = sender.send(message);
                }
            }
            Effect::ReadRecord { call } => self.read_record(call),
            Effect::Persist { call, new, expect } => self.persist(call, new, expect),
            Effect::ReadWitness { call } => self.read_witness(call),
            Effect::SwapWitness { call, token, record, with_name } => {
                self.swap_witness(call, token, record, with_name);
            }
            Effect::Serve { epoch, until, .. } => tracing::debug!(%epoch, until = until.0, "serves"),
            Effect::Stop => tracing::warn!(site = %self.parts.config.own, "this site serves nothing now"),
            Effect::FencePeer { epoch } => self.hand(move |hands| async move {
                hands.fence_peer(epoch).await;
                None
            }),
            Effect::AskLossGate => {
                self.hand(|hands| async move { Some(Event::LossGate(hands.loss_gate().await)) });
            }
            Effect::Drain { epoch } => self.hand(move |hands| async move {
                hands.drain(epoch).await;
                Some(Event::Drained)
            }),
            Effect::Undrain { epoch } => self.hand(move |hands| async move {
                hands.undrain(epoch).await;
                None
            }),
            Effect::AwaitPeer { position } => self.hand(move |hands| async move {
                hands.peer_has(position).await;
                Some(Event::PeerConfirmed { position })
            }),
            Effect::StopGateways { epoch } => self.stop_gateways(epoch),
            Effect::WakeAt(at) => self.wakes_at = at,
            Effect::Report(waiting) => {
                tracing::info!(site = %self.parts.config.own, waiting = waiting.map_or("nothing", diptych_core::lease::Waiting::reason), "lease");
                self.waiting = waiting;
            }
            Effect::Resign => {
                tracing::warn!(site = %self.parts.config.own, "another keeper speaks for the site");
            }
        }
    }

    fn stop_gateways(&mut self, epoch: Epoch) {
        self.hand(move |hands| async move {
            hands.stop_gateways(epoch).await;
            Some(Event::GatewaysStopped { epoch })
        });
    }

    /// Lets a hand do something, and tells what came of it.
    fn hand<F>(&mut self, work: impl FnOnce(Arc<dyn SiteHands>) -> F)
    where
        F: Future<Output = Option<Event>> + Send + 'static,
    {
        let work = work(Arc::clone(&self.parts.hands));
        self.tell_later(work);
    }

    fn tell_later(&mut self, work: impl Future<Output = Option<Event>> + Send + 'static) {
        let events = self.events.clone();
        self.calls.spawn(async move {
            if let Some(event) = work.await {
                let _ = events.send(event);
            }
        });
    }

    fn read_record(&mut self, call: CallId) {
        let catalog = Arc::clone(&self.parts.catalog);
        self.tell_later(async move {
            let read = async {
                let view = catalog.view().await?;
                record::read(view.as_ref(), catalog.site())
            };
            let record = match tokio::time::timeout(CATALOG_LIMIT, read).await {
                Ok(Ok(record)) => Some(record),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the site's record could not be read");
                    None
                }
                Err(_) => None,
            };
            Some(Event::RecordRead { call, record })
        });
    }

    fn persist(&mut self, call: CallId, new: SiteRecord, expect: SiteRecord) {
        let catalog = Arc::clone(&self.parts.catalog);
        self.tell_later(async move {
            let stored =
                tokio::time::timeout(CATALOG_LIMIT, record::persist(catalog.as_ref(), &new, &expect)).await;
            let outcome = match stored {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the site's record could not be stored");
                    Persisted::Unknown
                }
                Err(_) => Persisted::Unknown,
            };
            Some(Event::Persisted { call, outcome })
        });
    }

    fn read_witness(&mut self, call: CallId) {
        let Some(witness) = self.parts.witness.clone() else { return };
        let (limit, cut) = (call_limit(&self.parts.config), self.parts.cut.is_cut());
        self.tell_later(async move {
            let read = async { if cut { WitnessRead::Failed } else { witness.read().await } };
            let result = tokio::time::timeout(limit, read).await.unwrap_or(WitnessRead::Failed);
            Some(Event::WitnessRead { call, result })
        });
    }

    fn swap_witness(&mut self, call: CallId, token: Option<Token>, record: WitnessRecord, with_name: bool) {
        let Some(witness) = self.parts.witness.clone() else { return };
        let (limit, cut) = (call_limit(&self.parts.config), self.parts.cut.is_cut());
        self.tell_later(async move {
            // Withheld, it may as well have been lost on its way: nothing is known of it.
            let swap = async {
                if cut { SwapResult::Unknown } else { witness.swap(token, record, with_name).await }
            };
            let result = tokio::time::timeout(limit, swap).await.unwrap_or(SwapResult::Unknown);
            Some(Event::SwapAnswered { call, result })
        });
    }
}

fn call_limit(config: &Config) -> Duration {
    Duration::from_millis(config.timers.witness_call.0)
}

async fn sleep_until(at: BootTime) {
    if at == BootTime::NEVER {
        return std::future::pending().await;
    }
    let left = boot_time().until(at);
    tokio::time::sleep(Duration::from_millis(left.0)).await;
}
