//! The other side of a drill: what the site that is active does when the passive one asks. It is asked by the keeper of the
//! other site only, over the peer link.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, CatalogError, Change, Write};
use diptych_core::drill::Exposed;
use diptych_core::ids::Epoch;
use diptych_core::keys;
use diptych_core::lease::{BootTime, Command, Millis};
use diptych_wire::peer::{DrillAnswer, DrillOrder, DrillStanding};
use http::StatusCode;

use super::cut::CutSwitch;
use super::desk::DrillDesk;
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::keeper::{KeeperHandle, boot_time};
use crate::status::last_written;

/// Path at which a gateway hands an order on to its keeper.
pub const OBEY: &str = "/keeper/v1/drill";

/// Takes the orders that come through a door.
#[async_trait]
pub trait DrillOrders: Send + Sync + 'static {
    /// The answer to a [`DrillOrder`], as it came.
    async fn order(&self, order: Bytes) -> Response;
}

/// A site that was cut off is not cut off again before it has been back for so long, whoever asks.
const COOL_DOWN: Millis = Millis(60_000);

/// A keeper that obeys.
#[derive(Clone)]
pub struct Obey {
    context: Arc<SiteContext>,
    keeper: KeeperHandle,
    desk: Option<Arc<DrillDesk>>,
    rests_until: Arc<Mutex<BootTime>>,
}

impl Obey {
    /// The keeper of a site; `desk`: where its own drills are asked for.
    pub fn new(context: Arc<SiteContext>, keeper: KeeperHandle, desk: Option<Arc<DrillDesk>>) -> Self {
        Self { context, keeper, desk, rests_until: Arc::default() }
    }

    /// For gateways in other processes.
    pub fn router(self) -> Router {
        Router::new().route(OBEY, post(handed_on)).with_state(self)
    }

    async fn obey(&self, order: DrillOrder) -> DrillAnswer {
        let cut = &self.context.cut;
        match order {
            DrillOrder::Look => match self.standing().await {
                Ok(standing) => DrillAnswer::Standing(standing),
                Err(error) => DrillAnswer::Refused(error.to_string()),
            },
            DrillOrder::CutOff { length } => self.unless_drilling(|| self.cut_off(cut, length)),
            DrillOrder::Restore => {
                tracing::info!(site = %self.context.site, "the other site ends the cut");
                cut.restore();
                let mut rests_until = self.rests_until();
                *rests_until = (*rests_until).min(boot_time() + COOL_DOWN);
                DrillAnswer::Done
            }
            DrillOrder::HandOver => self.unless_drilling(|| {
                self.keeper.command(Command::Handover);
                DrillAnswer::Done
            }),
            DrillOrder::CancelHandOver => {
                self.keeper.command(Command::CancelHandover);
                DrillAnswer::Done
            }
            DrillOrder::TryStaleWrite { epoch } => {
                match try_stale_write(self.context.catalog.as_ref(), epoch).await {
                    Ok(refused) => DrillAnswer::StaleWrite { refused },
                    Err(error) => DrillAnswer::Refused(error.to_string()),
                }
            }
        }
    }

    fn rests_until(&self) -> MutexGuard<'_, BootTime> {
        self.rests_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Two drills at once would each measure the other, and leave the role where nobody wanted it.
    fn unless_drilling(&self, obey: impl FnOnce() -> DrillAnswer) -> DrillAnswer {
        match self.own_drill() {
            Some(id) => DrillAnswer::Refused(format!("this site runs drill {id} itself: wait for its end")),
            None => obey(),
        }
    }

    /// The drill that this very site runs.
    fn own_drill(&self) -> Option<String> {
        self.desk.as_ref()?.under_way()
    }

    fn cut_off(&self, cut: &CutSwitch, length: Millis) -> DrillAnswer {
        if self.keeper.state().loan(boot_time()).is_none() {
            return DrillAnswer::Refused("this site is not active: there is nothing to cut off".to_owned());
        }
        let (now, mut rests_until) = (boot_time(), self.rests_until());
        if now < *rests_until {
            let left = now.until(*rests_until);
            return DrillAnswer::Refused(format!(
                "this site was cut off a short while ago: ask again in {left}"
            ));
        }
        tracing::warn!(site = %self.context.site, %length, "a drill cuts this site off; it comes back by itself");
        *rests_until = cut.cut(length) + COOL_DOWN;
        DrillAnswer::Done
    }

    async fn standing(&self) -> Result<DrillStanding, SiteError> {
        let status = last_written(self.context.catalog.as_ref()).await?;
        let state = self.keeper.state();
        let exposed = status.as_ref().and_then(|status| status.exposure.as_ref());
        Ok(DrillStanding {
            serves: state.loan(boot_time()).map(|loan| loan.epoch),
            cut_off: self.context.cut.is_cut(),
            exposed: exposed.map(|exposed| Exposed { bytes: exposed.bytes, age: Millis(exposed.age_ms) }),
            repairs: status.map_or(0, |status| status.repair.queue()),
            drill: self.own_drill(),
        })
    }
}

/// Tries to commit under an epoch that is over; true: it was refused. What it would write means nothing to anybody.
pub(super) async fn try_stale_write(catalog: &dyn Catalog, epoch: Epoch) -> Result<bool, SiteError> {
    let scratch = Write::Put(keys::site_stale_write(catalog.site()), Bytes::from_static(b"stale"));
    match catalog.commit(Batch::one(Some(epoch), Change::blind(vec![scratch]))).await {
        Ok(_) => Ok(false),
        Err(CatalogError::GateClosed { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[async_trait]
impl DrillOrders for Obey {
    async fn order(&self, order: Bytes) -> Response {
        let order = match postcard::from_bytes(&order) {
            Ok(order) => order,
            Err(error) => {
                return (StatusCode::BAD_REQUEST, format!("the order can't be read: {error}"))
                    .into_response();
            }
        };
        match postcard::to_stdvec(&self.obey(order).await) {
            Ok(answer) => answer.into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

async fn handed_on(State(obey): State<Obey>, order: Bytes) -> Response {
    obey.order(order).await
}

#[cfg(test)]
mod tests {
    use diptych_core::drill::{DrillMode, DrillSpec};
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::drill::DrillWork;
    use crate::keeper::KeeperState;
    use crate::testing::west;

    const CUT: DrillOrder = DrillOrder::CutOff { length: Millis(30_000) };

    /// An active site; what carries its own drills out.
    fn active() -> (Obey, DrillWork, tempfile::TempDir) {
        let (context, folder) = west();
        let serves = Some((Epoch(1), BootTime::NEVER));
        let state = watch::Sender::new(KeeperState { serves, ..KeeperState::at_start() });
        let keeper = KeeperHandle::new(mpsc::unbounded_channel().0, state.subscribe());
        let work = DrillDesk::open(context.site.clone());
        (Obey::new(Arc::new(context), keeper, Some(work.desk())), work, folder)
    }

    fn refusal(answer: DrillAnswer) -> String {
        match answer {
            DrillAnswer::Refused(reason) => reason,
            other => panic!("it was not refused: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_site_that_was_cut_off_is_not_cut_off_again_at_once() {
        let (obey, _, _folder) = active();
        assert_eq!(obey.obey(CUT).await, DrillAnswer::Done);
        assert!(obey.context.cut.is_cut());
        assert_eq!(obey.obey(DrillOrder::Restore).await, DrillAnswer::Done);
        let reason = refusal(obey.obey(CUT).await);
        assert!(reason.contains("a short while ago"), "{reason}");
        assert!(!obey.context.cut.is_cut());
        let left = boot_time().until(*obey.rests_until());
        assert!(left <= COOL_DOWN, "it counts from the end of the cut: {left}");
    }

    #[tokio::test]
    async fn a_site_that_runs_a_drill_takes_no_part_in_another_one() {
        let (obey, work, _folder) = active();
        work.desk().take_wishes(None);
        work.desk().begin("d1", DrillSpec::of(DrillMode::Outage)).expect("it begins");
        for order in [CUT, DrillOrder::HandOver] {
            assert!(refusal(obey.obey(order).await).contains("drill d1"), "{order:?}");
        }
        assert!(!obey.context.cut.is_cut());
        let DrillAnswer::Standing(standing) = obey.obey(DrillOrder::Look).await else {
            panic!("no standing")
        };
        assert_eq!(standing.drill.as_deref(), Some("d1"));
    }
}
