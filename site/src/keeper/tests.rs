use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diptych_catalog::Catalog;
use diptych_core::ids::{Epoch, SiteName};
use diptych_core::lease::{Config, Event, LossDecision, Message, Millis, Mode, Role, Timers};
use diptych_core::records::Position;
use tokio::sync::{mpsc, watch};

use super::{Keeper, KeeperHandle, KeeperParts, KeeperState, PeerLink, SiteHands, election};
use crate::drill::CutSwitch;
use crate::testing::west;

const LIMIT: Duration = Duration::from_secs(20);

struct NoHands;

#[async_trait]
impl SiteHands for NoHands {
    async fn fence_peer(&self, _: Epoch) {}

    async fn loss_gate(&self) -> LossDecision {
        LossDecision::Allowed
    }

    async fn drain(&self, _: Epoch) {}

    async fn undrain(&self, _: Epoch) {}

    async fn peer_has(&self, _: Position) {}

    async fn stop_gateways(&self, _: Epoch) {}
}

/// The other site's door, as far as messages go.
struct Heard(mpsc::UnboundedSender<Message>);

#[async_trait]
impl PeerLink for Heard {
    async fn send(&self, message: Message) {
        let _ = self.0.send(message);
    }
}

async fn keeper(
    catalog: &Arc<dyn Catalog>,
    peer: Option<(SiteName, Arc<dyn PeerLink>)>,
    cut: &CutSwitch,
) -> KeeperHandle {
    let number = election::elect(catalog.as_ref(), "a test", Duration::ZERO).await.expect("nobody else");
    let config = Config {
        own: catalog.site().clone(),
        peer: peer.as_ref().map(|(site, _)| site.clone()),
        preferred: catalog.site().clone(),
        mode: Mode::Automatic,
        timers: Timers::for_lease(Millis(600)),
        seed: 1,
    };
    let parts = KeeperParts {
        catalog: Arc::clone(catalog),
        config: Arc::new(config),
        number,
        peer: peer.map(|(_, link)| link),
        witness: None,
        hands: Arc::new(NoHands),
        cut: cut.clone(),
    };
    let (keeper, handle) = Keeper::begin(parts).await.expect("it begins");
    tokio::spawn(keeper.run());
    handle.tell(Event::DevicesEmpty(true));
    handle
}

/// What a keeper publishes, once it is so.
async fn until(
    state: &mut watch::Receiver<KeeperState>,
    is_so: impl FnMut(&KeeperState) -> bool,
) -> KeeperState {
    let seen = tokio::time::timeout(LIMIT, state.wait_for(is_so)).await;
    *seen.expect("within the limit").expect("the keeper lives")
}

#[tokio::test]
async fn a_keeper_that_is_cut_off_lends_nothing_and_goes_on_when_that_is_over() {
    let (context, _folder) = west();
    let cut = CutSwitch::default();
    let mut state = keeper(&context.catalog, None, &cut).await.watch();
    let serving = until(&mut state, |state| state.serves.is_some()).await.epoch;
    cut.cut(Millis(60_000));
    let stopped = until(&mut state, |state| state.serves.is_none()).await;
    assert_eq!(
        (stopped.role, stopped.epoch),
        (Role::Lapsed, serving),
        "it is fenced in the epoch that it had"
    );
    cut.restore();
    let again = until(&mut state, |state| state.serves.is_some()).await;
    assert_eq!((again.role, again.epoch), (Role::Holder, serving), "no epoch was won or lost by it");
}

#[tokio::test]
async fn a_keeper_that_is_cut_off_says_nothing_to_the_other_site() {
    let (context, _folder) = west();
    let (sender, mut heard) = mpsc::unbounded_channel();
    let cut = CutSwitch::default();
    let east: SiteName = "east".parse().expect("a name");
    let _keeper = keeper(&context.catalog, Some((east, Arc::new(Heard(sender)))), &cut).await;
    heard.recv().await.expect("it says hello");
    cut.cut(Millis(700));
    // One may have been on its way.
    let _ = tokio::time::timeout(Duration::from_millis(50), heard.recv()).await;
    // At a tenth of a second between two hellos, seven of them are withheld.
    let next = tokio::time::timeout(Duration::from_millis(400), heard.recv()).await;
    assert!(next.is_err() || !cut.is_cut(), "{next:?} was said while it was cut off");
    heard.recv().await.expect("it says hello again, by itself");
    assert!(!cut.is_cut());
}
