//! Sessions of REST in the catalog: collected, and merged when a site returns.

use diptych_core::ids::FamilyId;
use diptych_core::keys::{self, Key};
use diptych_core::records::{Record, TokenFamily};
use diptych_site::absorb::absorb;
use diptych_site::collector::Collector;
use diptych_site::context::now_ms;
use diptych_wire::peer::UnseenTerm;

use crate::harness::{EPOCH, East, at_once, west};

fn family(refresh: u8, ends_ms: u64, revoked: bool) -> TokenFamily {
    TokenFamily { refresh_hash: [refresh; 32], ends_ms, revoked, user_hash: None }
}

fn key(number: u8) -> Key {
    keys::token_family(FamilyId([number; 16]))
}

async fn found(east: &East, number: u8) -> Option<TokenFamily> {
    east.get(&key(number)).await.map(|raw| TokenFamily::decode(&raw).expect("it reads"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_collected_when_it_has_run_out_and_not_when_it_was_ended() {
    let east = East::start(None, at_once()).await;
    let later = now_ms() + 3_600_000;
    let records = [
        family(1, now_ms(), false),
        family(2, now_ms(), true),
        family(3, later, false),
        family(4, later, true),
    ];
    let records = (1..).zip(records).map(|(number, record)| (key(number), record.encode())).collect();
    east.put(records).await;
    let done = Collector::default().pass(&east.context).await.expect("a pass");
    assert_eq!(done.sessions, 2);
    assert_eq!((found(&east, 1).await, found(&east, 2).await), (None, None));
    // Its end has to be known for as long as its tokens would be good.
    assert_eq!(found(&east, 3).await, Some(family(3, later, false)));
    assert_eq!(found(&east, 4).await, Some(family(4, later, true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_ended_or_begun_in_an_unseen_term_is_ended_or_there() {
    let east = East::start(Some(west()), at_once()).await;
    let here = [family(1, 9, false), family(2, 9, true), family(3, 9, false)];
    let here = (1..).zip(here).map(|(number, record)| (key(number), record.encode())).collect();
    east.put(here).await;
    // The first was ended, the second refreshed, the third refreshed, the fourth begun.
    let unseen = [family(1, 9, true), family(8, 9, false), family(8, 9, false), family(4, 9, false)];
    let versions = (1..).zip(unseen).map(|(number, record)| (key(number), record.encode())).collect();
    let term = UnseenTerm { site: west(), epoch: EPOCH, versions };
    for taken in [2, 0] {
        let absorbed = absorb(east.context.catalog.as_ref(), EPOCH, &east.context.cluster_keys, &term)
            .await
            .expect("it is taken in");
        assert_eq!(absorbed, taken);
        assert_eq!(found(&east, 1).await, Some(family(1, 9, true)));
        assert_eq!(found(&east, 2).await, Some(family(2, 9, true)));
        assert_eq!(found(&east, 3).await, Some(family(3, 9, false)));
        assert_eq!(found(&east, 4).await, Some(family(4, 9, false)));
    }
}
