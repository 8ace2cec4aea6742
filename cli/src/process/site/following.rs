//! What the keeper's process runs of the other site: the feed, crossing, exposure, the public name.

use std::sync::Arc;

use diptych_core::lease::{BootTime, LossDecision, Millis};
use diptych_site::context::{SiteContext, now_ms};
use diptych_site::keeper::{KeeperHandle, boot_time};
use diptych_site::name::{self, PublicName};
use diptych_site::peer::exposure::{ExposureWatch, Progress};
use diptych_site::peer::follow::{Followed, Follower};
use diptych_site::peer::{PeerClient, cross};
use tokio::sync::{Notify, watch};

use crate::process::record::CloudflareName;

/// The loops, before they run.
pub(in crate::process) struct Following {
    follower: Follower,
    exposure: ExposureWatch,
    name: Option<Arc<CloudflareName>>,
    context: Arc<SiteContext>,
    keeper: KeeperHandle,
    max_loss_age_ms: u64,
    wanted: Arc<Notify>,
    crossed: Arc<Notify>,
}

impl Following {
    /// Of the site behind `peer`; its feed is heard from the first poll of `run` on.
    pub(in crate::process) fn new(
        from: &diptych_core::ids::SiteName,
        peer: PeerClient,
        name: Option<Arc<CloudflareName>>,
        context: &Arc<SiteContext>,
        keeper: &KeeperHandle,
        max_loss_age_ms: u64,
    ) -> Self {
        let (wanted, crossed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let follower = Follower::new(
            Arc::clone(context),
            from.clone(),
            peer,
            keeper.clone(),
            Arc::clone(&crossed),
            Arc::clone(&wanted),
        );
        Self {
            follower,
            exposure: ExposureWatch::new(Arc::clone(&context.catalog), from.clone()),
            name,
            context: Arc::clone(context),
            keeper: keeper.clone(),
            max_loss_age_ms,
            wanted,
            crossed,
        }
    }

    /// What the other site's feed said last.
    pub(in crate::process) fn followed(&self) -> watch::Receiver<Followed> {
        self.follower.followed()
    }

    /// How far the other site is.
    pub(in crate::process) fn progress(&self) -> watch::Receiver<Progress> {
        self.exposure.progress()
    }

    /// Decides whether a promotion would lose too much.
    pub(in crate::process) fn loss_gate(&self) -> LossGate {
        let (context, followed) = (Arc::clone(&self.context), self.followed());
        LossGate { context, followed, max_age_ms: self.max_loss_age_ms }
    }

    /// Runs until one of them ends. `now` wakes the one that keeps the name.
    pub(in crate::process) async fn run(self, now: Arc<Notify>) {
        tokio::select! {
            () = self.follower.run() => {}
            () = self.exposure.run() => {}
            () = cross::run(Arc::clone(&self.context), self.wanted, self.crossed) => {}
            () = keep_name(self.name, self.keeper, now, &self.context.name_trouble) => {}
        }
    }
}

/// Keeps the public name, where there is one.
async fn keep_name(
    name: Option<Arc<CloudflareName>>,
    keeper: KeeperHandle,
    now: Arc<Notify>,
    trouble: &watch::Sender<Option<String>>,
) {
    match name {
        Some(name) => name::run(name as Arc<dyn PublicName>, keeper, now, trouble).await,
        None => std::future::pending().await,
    }
}

/// `maxLossOnPromotion`: what this site was told of and lacks, by age; and what it can't have been told of, while the other
/// site went on by the witness. The silence of a site that has stopped is not counted: it wrote nothing then.
pub(in crate::process) struct LossGate {
    context: Arc<SiteContext>,
    followed: watch::Receiver<Followed>,
    max_age_ms: u64,
}

impl LossGate {
    pub(in crate::process) async fn decide(&self) -> LossDecision {
        let followed = *self.followed.borrow();
        let heard_ms = now_ms().saturating_sub(followed.heard.elapsed().as_millis() as u64);
        let oldest =
            diptych_site::peer::oldest_wanted_ms(self.context.catalog.as_ref(), &self.context.site).await;
        let known = followed.position.is_some();
        let age = match oldest {
            Ok(oldest) => oldest.map_or(0, |since| heard_ms.saturating_sub(since)),
            Err(error) => {
                tracing::warn!(%error, "what would be lost is not known");
                return LossDecision::Denied;
            }
        };
        let age = age.max(self.went_on_unheard(&followed).0);
        // A term that was not followed counts as unbounded.
        if known && age <= self.max_age_ms {
            return LossDecision::Allowed;
        }
        tracing::warn!(
            known,
            age_ms = age,
            "a promotion would lose more than is allowed: a person must say so"
        );
        LossDecision::Denied
    }

    /// From the last of the feed to the last renewal at the witness that was seen.
    fn went_on_unheard(&self, followed: &Followed) -> Millis {
        let heard = BootTime(boot_time().0.saturating_sub(followed.heard.elapsed().as_millis() as u64));
        self.context.lease.borrow().peer_renewed.map_or(Millis(0), |renewed| heard.until(renewed))
    }
}
