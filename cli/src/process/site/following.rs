//! What the keeper's process runs of the other site: the feed, crossing, exposure, the public name and its health
//! check, switches that nobody asks for.

use std::sync::Arc;

use diptych_site::context::SiteContext;
use diptych_site::edge;
use diptych_site::keeper::KeeperHandle;
use diptych_site::name::{self, NameSeen, PublicName};
use diptych_site::peer::exposure::{ExposureWatch, Progress};
use diptych_site::peer::follow::{Followed, Follower};
use diptych_site::peer::loss::LossGate;
use diptych_site::peer::reached::Reached;
use diptych_site::peer::{PeerClient, cross, heard};
use diptych_site::switch;
use tokio::sync::{Notify, watch};

use crate::process::checks::CloudflareChecks;
use crate::process::name::CloudflareName;

/// The loops, before they run.
pub(in crate::process) struct Following {
    follower: Follower,
    peer: PeerClient,
    exposure: ExposureWatch,
    name: Option<Arc<CloudflareName>>,
    checks: Option<CloudflareChecks>,
    context: Arc<SiteContext>,
    keeper: KeeperHandle,
    reached: Arc<Reached>,
}

impl Following {
    /// Of the site behind `peer`; its feed is heard from the first poll of `run` on.
    pub(in crate::process) fn new(
        from: &diptych_core::ids::SiteName,
        peer: PeerClient,
        (name, checks): (Option<Arc<CloudflareName>>, Option<CloudflareChecks>),
        context: &Arc<SiteContext>,
        keeper: &KeeperHandle,
    ) -> Self {
        let reached = Arc::new(Reached::new(Arc::clone(context)));
        let exposure = ExposureWatch::new(Arc::clone(&context.catalog), from.clone());
        let follower = Follower::new(
            Arc::clone(context),
            from.clone(),
            peer.clone(),
            keeper.clone(),
            Arc::clone(&reached),
            exposure.heard(),
        );
        let (context, keeper) = (Arc::clone(context), keeper.clone());
        Self { follower, peer, exposure, name, checks, context, keeper, reached }
    }

    /// What the other site's feed said last.
    pub(in crate::process) fn followed(&self) -> watch::Receiver<Followed> {
        self.context.followed.subscribe()
    }

    /// How far the other site is.
    pub(in crate::process) fn progress(&self) -> watch::Receiver<Progress> {
        self.exposure.progress()
    }

    /// Decides whether a promotion would lose too much.
    pub(in crate::process) fn loss_gate(&self) -> LossGate {
        LossGate::new(Arc::clone(&self.context))
    }

    /// Runs until one of them ends. `now` wakes the one that keeps the name.
    pub(in crate::process) async fn run(self, now: Arc<Notify>) {
        tokio::select! {
            () = self.follower.run() => {}
            () = heard::run(&self.context) => {}
            () = self.exposure.run() => {}
            () = cross::run(Arc::clone(&self.context), self.reached) => {}
            () = switch::run(Arc::clone(&self.context), self.peer, self.keeper.clone()) => {}
            () = keep_check(self.checks, Arc::clone(&self.context)) => {}
            () = keep_name(self.name, self.keeper, now, &self.context.name) => {}
        }
    }
}

/// Keeps the public name, where there is one.
async fn keep_name(
    name: Option<Arc<CloudflareName>>,
    keeper: KeeperHandle,
    now: Arc<Notify>,
    seen: &watch::Sender<NameSeen>,
) {
    match name {
        Some(name) => name::run(name as Arc<dyn PublicName>, keeper, now, seen).await,
        None => std::future::pending().await,
    }
}

/// Keeps this site's health check, or sees that there is none.
async fn keep_check(checks: Option<CloudflareChecks>, context: Arc<SiteContext>) {
    match checks {
        Some(checks) => {
            let wanted = checks.wanted();
            edge::run(Arc::new(checks), context, wanted).await;
        }
        None => std::future::pending().await,
    }
}
