//! The one gateway of a site, in the keeper's own process.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use diptych_core::ids::Epoch;
use diptych_gateway::HeldWrites;

use super::GatewayCell;
use crate::process::authority::KeeperAuthority;
use crate::process::hands::Writers;

/// Its gateway, and the time that it is lent.
pub(super) struct OwnGateway {
    authority: Arc<KeeperAuthority>,
    gateway: GatewayCell,
    held: Mutex<Option<HeldWrites>>,
}

impl OwnGateway {
    /// Nothing is held yet.
    pub(super) fn new(authority: Arc<KeeperAuthority>, gateway: GatewayCell) -> Self {
        Self { authority, gateway, held: Mutex::default() }
    }
}

#[async_trait]
impl Writers for OwnGateway {
    async fn hold(&self) {
        if let Some(gateway) = self.gateway.get() {
            let held = gateway.context().hold_writes().await;
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        }
    }

    fn release(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    async fn stop(&self, epoch: Epoch) {
        self.authority.stop(epoch);
    }
}
