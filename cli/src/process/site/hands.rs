//! What a keeper asks of its site, in one process.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use diptych_core::ids::Epoch;
use diptych_core::lease::LossDecision;
use diptych_core::records::Position;
use diptych_gateway::HeldWrites;
use diptych_site::keeper::SiteHands;
use diptych_site::peer::exposure::Progress;
use tokio::sync::{Notify, watch};

use super::GatewayCell;
use super::peer::LossGate;
use crate::process::authority::KeeperAuthority;

/// The parts come in one by one: the keeper runs before them.
#[derive(Default)]
pub(super) struct Hands {
    parts: OnceLock<Parts>,
    held: Mutex<Option<HeldWrites>>,
    /// Wakes the loop that keeps the public name.
    pub(super) name: Arc<Notify>,
    /// Decides with two sites.
    pub(super) loss: OnceLock<LossGate>,
}

struct Parts {
    authority: Arc<KeeperAuthority>,
    gateway: GatewayCell,
    progress: Option<watch::Receiver<Progress>>,
}

impl Hands {
    pub(super) fn begin(
        &self,
        authority: Arc<KeeperAuthority>,
        gateway: GatewayCell,
        progress: Option<watch::Receiver<Progress>>,
    ) {
        let _ = self.parts.set(Parts { authority, gateway, progress });
    }

    fn release(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[async_trait]
impl SiteHands for Hands {
    async fn fence_peer(&self, epoch: Epoch) {
        tracing::info!(%epoch, "won");
        self.release();
        self.name.notify_one();
    }

    async fn loss_gate(&self) -> LossDecision {
        match self.loss.get() {
            Some(gate) => gate.decide().await,
            None => LossDecision::Allowed,
        }
    }

    async fn drain(&self, _epoch: Epoch) {
        let gateway = self.parts.get().and_then(|parts| parts.gateway.get());
        if let Some(gateway) = gateway {
            let held = gateway.context().hold_writes().await;
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        }
    }

    async fn undrain(&self, _epoch: Epoch) {
        self.release();
    }

    async fn peer_has(&self, position: Position) {
        let Some(mut progress) = self.parts.get().and_then(|parts| parts.progress.clone()) else { return };
        let reached = progress.wait_for(|progress| progress.confirms(position)).await.is_ok();
        if !reached {
            std::future::pending::<()>().await;
        }
    }

    async fn stop_gateways(&self, epoch: Epoch) {
        if let Some(parts) = self.parts.get() {
            parts.authority.stop(epoch);
        }
        // What was held back is now routed to the site that takes over.
        self.release();
    }
}
