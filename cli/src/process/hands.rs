//! What a keeper asks of its site, wherever the gateways are.

use std::sync::Arc;

use async_trait::async_trait;
use diptych_core::ids::Epoch;
use diptych_core::lease::LossDecision;
use diptych_core::records::Position;
use diptych_site::keeper::SiteHands;
use diptych_site::peer::exposure::Progress;
use diptych_site::peer::loss::LossGate;
use tokio::sync::{Notify, watch};

/// The gateways that take the site's writes.
#[async_trait]
pub(super) trait Writers: Send + Sync + 'static {
    /// Holds writes back; returns when none is under way.
    async fn hold(&self);

    /// Lets them go on.
    fn release(&self);

    /// Returns when nothing is acknowledged any more under `epoch` or a lower one.
    async fn stop(&self, epoch: Epoch);
}

/// The parts come in later: the keeper is made before them, and goes on when others take their place.
#[derive(Default)]
pub(super) struct Hands {
    parts: watch::Sender<Option<Arc<Parts>>>,
    /// Wakes the loop that keeps the public name.
    pub(super) name: Arc<Notify>,
}

/// What the hands work with.
pub(super) struct Parts {
    /// The gateways.
    pub(super) writers: Arc<dyn Writers>,
    /// How far the other site is.
    pub(super) progress: Option<watch::Receiver<Progress>>,
    /// Decides with two sites.
    pub(super) loss: Option<LossGate>,
}

impl Hands {
    /// From now on these are the parts.
    pub(super) fn begin(&self, parts: Parts) {
        self.parts.send_replace(Some(Arc::new(parts)));
    }

    fn parts(&self) -> Option<Arc<Parts>> {
        self.parts.borrow().clone()
    }

    fn release(&self) {
        if let Some(parts) = self.parts() {
            parts.writers.release();
        }
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
        match self.parts().as_ref().and_then(|parts| parts.loss.as_ref()) {
            Some(gate) => gate.decide().await,
            None => LossDecision::Allowed,
        }
    }

    async fn drain(&self, _epoch: Epoch) {
        if let Some(parts) = self.parts() {
            parts.writers.hold().await;
        }
    }

    async fn undrain(&self, _epoch: Epoch) {
        self.release();
    }

    async fn peer_has(&self, position: Position) {
        let mut parts = self.parts.subscribe();
        loop {
            let progress = parts.borrow_and_update().as_ref().and_then(|parts| parts.progress.clone());
            let Some(mut progress) = progress else { return };
            if progress.wait_for(|progress| progress.confirms(position)).await.is_ok() {
                return;
            }
            // Who saw it has ended; the next one sees it too.
            if parts.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn stop_gateways(&self, epoch: Epoch) {
        if let Some(parts) = self.parts() {
            parts.writers.stop(epoch).await;
        }
        // What was held back is now routed to the site that takes over.
        self.release();
    }
}
