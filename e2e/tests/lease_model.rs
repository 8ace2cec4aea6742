//! The lease, model-checked in worlds small enough for every run; `lease-model` searches the larger ones.

use std::time::Duration;

use diptych_e2e::model::{Mutation, check, named};

const LIMIT: Duration = Duration::from_mins(5);

fn holds_in(name: &str) {
    let outcome = check(named(name).expect("a world of that name"), LIMIT, 2);
    assert!(outcome.violations.is_empty(), "{name}: {:#?}", outcome.violations);
    assert!(outcome.exhausted, "{name}: cut off after {} states", outcome.states);
    assert!(
        outcome.states > 50_000,
        "{name}: only {} states: something keeps the model from moving",
        outcome.states
    );
}

#[test]
fn the_lease_holds_its_properties_in_a_small_world() {
    holds_in("lease-small");
}

#[test]
fn writes_hold_theirs_in_a_small_world() {
    holds_in("data-small");
}

#[test]
fn a_guard_that_is_taken_out_is_missed() {
    for mutation in Mutation::ALL {
        let bounds = named(mutation.shows_in()).expect("a world of that name").without(*mutation);
        let outcome = check(bounds, LIMIT, 2);
        assert!(!outcome.violations.is_empty(), "{mutation:?}: not missed in {} states", outcome.states);
    }
}
