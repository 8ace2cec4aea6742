//! What a keeper knows of both sites, as `core::drill` asks for it.

use diptych_core::drill::{Exposed, Facts, Prediction, Standing, predict};
use diptych_core::edge::EdgeVerdict;
use diptych_core::lease::Millis;

use crate::context::{SiteContext, now_ms};
use crate::fleet::Stands;
use crate::keeper::boot_time;
use crate::peer::loss;
use crate::status::SiteStatus;

/// What a failover would be like now, by a status that is about to be written; None with one site.
pub fn predicted(context: &SiteContext, status: &SiteStatus) -> Option<Prediction> {
    context.peer.as_ref()?;
    Some(predict(&facts(context, status, 0)))
}

/// What is known in this site alone. `switched_ms`: when the last drill ended that moved the role; 0: none did.
pub(super) fn facts(context: &SiteContext, status: &SiteStatus, switched_ms: u64) -> Facts {
    let lease = *context.lease.borrow();
    let standing = match (context.standing.borrow().active, Stands::from(lease.role)) {
        (true, _) => Standing::Active,
        (false, Stands::Passive) => Standing::Passive,
        (false, Stands::Active | Stands::Fenced) => Standing::Fenced,
    };
    let exposed = if standing == Standing::Active {
        status
            .exposure
            .as_ref()
            .map(|exposure| Exposed { bytes: exposure.bytes, age: Millis(exposure.age_ms) })
    } else {
        // As the gate on loss counts: what this site was told of and lacks, or can't have been told of.
        let age = loss::age(context, status.health.wanted_since_ms);
        age.map(|age| Exposed { bytes: status.health.wanted_bytes, age })
    };
    Facts {
        standing,
        automatic: context.policy.automatic,
        lease: Millis(context.policy.lease_ms),
        max_loss_age: Millis(context.policy.max_loss_age_ms),
        peer_connected: lease.peer_connected,
        witness_reachable: lease.witness_reachable,
        witness_ages: lease.witness_aged.map_or(Millis(0), |aged| boot_time().until(aged)),
        repairs: status.repair.queue(),
        exposed,
        name_trouble: status.name_trouble.clone(),
        other_drill: None,
        edge: status.edge.as_ref().map_or(EdgeVerdict::Unknown, |edge| edge.here.verdict),
        since_last_drill: (switched_ms > 0).then(|| Millis(now_ms().saturating_sub(switched_ms))),
    }
}
