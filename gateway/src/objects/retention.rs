//! Retention: a version that nobody deletes or replaces until a time that is said with it (docs/adr/0021). It stands in the version's own
//! record, so the compare on that record which every change of it makes is the check, whichever gateway changes it.

use diptych_catalog::View;
use diptych_core::keys;
use diptych_core::records::{Head, Kept};
use diptych_core::retention::RetainUntil;
use serde::Deserialize;

use super::{Objects, Target};
use crate::authority::may_write;
use crate::clock::instant;
use crate::context::Context;
use crate::error::{GatewayError, Result};

/// What the keeper says of its clock, in its status.
#[derive(Deserialize)]
struct KeeperClock {
    seen_ms: u64,
}

/// Milliseconds since 1970 by the clock of this site's keeper, a few seconds ago. Where it has said nothing no time has passed.
fn keeper_ms(context: &Context, view: &dyn View) -> Result<u64> {
    let raw = view.get(&keys::site_status(context.site()))?;
    let said = raw.and_then(|raw| serde_json::from_slice::<KeeperClock>(&raw).ok());
    Ok(said.map_or(0, |clock| clock.seen_ms))
}

/// Refuses what would take away a version whose retention runs.
///
/// FENCING: `head` is the record that the commit compares, read from `view`: a retention that is lengthened meanwhile changes it, and the
/// change is planned anew.
pub(crate) fn check(context: &Context, view: &dyn View, key: &str, head: &Head) -> Result<()> {
    let Some(until) = head.retained_until else { return Ok(()) };
    // The keeper's clock is asked for only where this one says that the time is over: mostly on another machine, it has to agree.
    let runs = until.runs([context.clock().now_ms()]) || until.runs([keeper_ms(context, view)?]);
    if runs {
        return Err(GatewayError::Retained { key: key.to_owned(), until: instant(until.0) });
    }
    Ok(())
}

/// Refuses a new head of this kind over a version whose retention runs and that readers would not find below it.
pub(crate) fn check_replaced(
    context: &Context,
    view: &dyn View,
    key: &str,
    head: &Head,
    by: Kept,
) -> Result<()> {
    if head.retained_until.is_none() || head.clone().replaced_by(by).is_kept() {
        return Ok(());
    }
    check(context, view, key, head)
}

/// Refuses a time that is over already: it would promise nothing.
pub(super) fn check_ahead(context: &Context, until: Option<RetainUntil>) -> Result<()> {
    match until {
        Some(until) if !until.runs([context.clock().now_ms()]) => Err(GatewayError::InvalidArgument(
            format!("{} is over: an object is retained until a time that is still to come", instant(until.0)),
        )),
        Some(_) | None => Ok(()),
    }
}

impl Objects {
    /// Has a version retained until then, or for longer than it is; the same time again changes nothing. The version's id.
    pub async fn retain(
        &self,
        namespace: &str,
        target: Target<'_>,
        until: RetainUntil,
    ) -> Result<Option<String>> {
        let lease = may_write(self.context.authority())?;
        self.amend(&lease, namespace, target, |head| {
            if head.retained_until == Some(until) {
                return Ok(head.clone());
            }
            check_ahead(&self.context, Some(until))?;
            match head.retained_until {
                Some(longer) if longer > until => Err(GatewayError::AccessDenied(format!(
                    "{:?} is retained until {}: a retention may be lengthened, and never shortened",
                    target.key,
                    instant(longer.0)
                ))),
                Some(_) | None => Ok(Head { retained_until: Some(until), ..head.clone() }),
            }
        })
        .await
    }
}
