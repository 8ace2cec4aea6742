//! Planned switches that the active site begins by itself: back to the preferred one (`core::failback`), and away from where
//! the edge does not reach (`core::edge`). Looks at both sites, and asks the own keeper.

use std::sync::Arc;
use std::time::Duration;

use diptych_core::edge::{self, EdgeRule, EdgeVerdict};
use diptych_core::failback::{self, Failback, PeerHealth};
use diptych_core::lease::{Command, Millis};

use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::keeper::{KeeperHandle, boot_time};
use crate::peer::PeerClient;
use crate::status::{Exposure, FailbackStatus, SiteStatus, last_written};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks for ever, whichever site is active.
pub async fn run(context: Arc<SiteContext>, peer: PeerClient, keeper: KeeperHandle) {
    let mut back = Failback::new(context.policy.stability_window_ms.map(Millis));
    let mut away = EdgeRule::new(Millis(context.policy.edge_grace_ms));
    loop {
        match look(&context, &peer).await {
            Ok(seen) => {
                let now = boot_time();
                let (back, away) = (back.look(now, &seen.of_failback()), away.look(now, seen.of_edge()));
                if back == failback::Outlook::HandOver {
                    tracing::info!(site = %context.site, to = %context.preferred, "the preferred site gets the lease back");
                    keeper.command(Command::Handover);
                } else if away == edge::Outlook::HandOver {
                    tracing::warn!(site = %context.site, "this site can't be reached from outside: it hands the lease over");
                    keeper.command(Command::Handover);
                }
                context.failback.send_replace(back_said(back));
                say_away(&context, away);
            }
            Err(error) => tracing::warn!(site = %context.site, %error, "this site can't be looked at now"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Both sites at one look.
struct Seen {
    active: bool,
    preferred: bool,
    peer_connected: bool,
    witness_reachable: bool,
    here: EdgeVerdict,
    there: EdgeVerdict,
    /// As this site's keeper wrote it last; None: it is not active, so nothing follows.
    own: Option<SiteStatus>,
    /// What the other site says of itself; None: it was not asked, or does not answer.
    peer: Option<SiteStatus>,
}

async fn look(context: &SiteContext, peer: &PeerClient) -> Result<Seen, SiteError> {
    let lease = *context.lease.borrow();
    let (active, preferred) = (context.standing.borrow().active, context.site == context.preferred);
    let (here, there) = match &*context.edge.borrow() {
        Some(edge) => (edge.here.verdict, edge.there.verdict),
        None => (EdgeVerdict::Unknown, EdgeVerdict::Unknown),
    };
    let (mut own, mut other) = (None, None);
    if active && (!preferred || here == EdgeVerdict::Unreached) {
        own = last_written(context.catalog.as_ref()).await?;
        other = match peer.status().await {
            Ok(status) => Some(status),
            Err(error) => {
                tracing::debug!(site = %context.site, %error, "the other site does not say how it is");
                None
            }
        };
    }
    Ok(Seen {
        active,
        preferred,
        peer_connected: lease.peer_connected,
        witness_reachable: lease.witness_reachable,
        here,
        there,
        own,
        peer: other,
    })
}

impl Seen {
    fn drill(&self) -> bool {
        let last = self.own.as_ref().and_then(|own| own.last_drill.as_ref());
        last.is_some_and(|drill| drill.verdict.is_none())
    }

    fn of_failback(&self) -> failback::Sight {
        let own = self.own.as_ref();
        failback::Sight {
            active: self.active,
            preferred: self.preferred,
            peer_connected: self.peer_connected,
            witness_reachable: self.witness_reachable,
            drill: self.drill(),
            exposed: own.and_then(|own| own.exposure.as_ref()).and_then(age),
            unmerged: own.map_or(0, |own| own.health.wanted),
            peer: self.peer.as_ref().map(health),
            unreached: self.there == EdgeVerdict::Unreached,
        }
    }

    fn of_edge(&self) -> edge::Sight {
        edge::Sight {
            active: self.active,
            here: self.here,
            there: self.there,
            peer_ready: self.peer_connected && self.peer.as_ref().is_some_and(|peer| health(peer).follows),
            drill: self.drill(),
        }
    }
}

/// For how long something has lain in this site only. None where extents are missing there and no commit says since when, as
/// while the other site is given a snapshot.
fn age(exposure: &Exposure) -> Option<Millis> {
    let known = exposure.commits > 0 || exposure.extents == 0;
    known.then_some(Millis(exposure.age_ms))
}

fn health(status: &SiteStatus) -> PeerHealth {
    let health = &status.health;
    PeerHealth {
        follows: status.role == "passive",
        degraded: health.degraded + health.unreadable_here + status.repair.queue(),
        name_trouble: status.name_trouble.is_some(),
    }
}

fn back_said(outlook: failback::Outlook) -> Option<FailbackStatus> {
    let waiting = match outlook {
        failback::Outlook::Nothing | failback::Outlook::HandOver => return None,
        failback::Outlook::Waits(waiting) => waiting,
    };
    let due_ms = match waiting {
        failback::Waiting::Settling { until } => now_ms() + boot_time().until(until).0,
        _ => 0,
    };
    Some(FailbackStatus {
        waiting: waiting.reason().to_owned(),
        waiting_for: waiting.sentence().to_owned(),
        due_ms,
    })
}

fn say_away(context: &SiteContext, outlook: edge::Outlook) {
    let waiting = match outlook {
        edge::Outlook::Nothing | edge::Outlook::HandOver => None,
        edge::Outlook::Waits(waiting) => Some(waiting.sentence().to_owned()),
    };
    context.edge.send_if_modified(|edge| match edge {
        Some(edge) if edge.waiting != waiting => {
            edge.waiting = waiting;
            true
        }
        _ => false,
    });
}
