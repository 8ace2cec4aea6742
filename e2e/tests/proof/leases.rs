//! What the proofs on clusters call two holders at a time.

use std::time::{Duration, Instant};

use diptych_e2e::kind::proof::leases::{Held, one_holder_at_a_time};

/// Milliseconds after `begin` of question and answer.
fn held(begin: Instant, site: &'static str, epoch: u64, asked: u64, answered: u64) -> Held {
    let at = |milliseconds| begin + Duration::from_millis(milliseconds);
    Held { site, epoch, asked: at(asked), answered: at(answered) }
}

#[test]
fn a_lease_that_changes_hands_has_one_holder_at_a_time() {
    let now = Instant::now();
    // East's last answer came late, but it was asked before west had the newer term.
    let said = [held(now, "east", 1, 0, 10), held(now, "east", 1, 50, 900), held(now, "west", 2, 500, 510)];
    let seen = one_holder_at_a_time(&said).expect("one at a time");
    assert!(seen.ends_with("epoch 1 east, epoch 2 west"), "{seen}");
}

#[test]
fn a_site_that_is_asked_after_another_has_the_newer_term_must_not_say_that_it_holds_the_lease() {
    let now = Instant::now();
    let said = [
        held(now, "east", 1, 0, 10),
        held(now, "west", 2, 500, 510),
        held(now, "west", 3, 550, 560),
        held(now, "east", 1, 511, 512),
    ];
    let error = one_holder_at_a_time(&said).expect_err("two holders").to_string();
    assert!(error.contains("east still held epoch 1") && error.contains("west had epoch 2"), "{error}");
}

#[test]
fn two_sites_never_hold_the_lease_under_one_epoch() {
    let now = Instant::now();
    let said = [held(now, "east", 4, 0, 10), held(now, "west", 4, 5_000, 5_010)];
    let error = one_holder_at_a_time(&said).expect_err("two holders").to_string();
    assert!(error.contains("under epoch 4"), "{error}");
    assert!(one_holder_at_a_time(&[]).is_err(), "nobody was seen to hold it");
}
