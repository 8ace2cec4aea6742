//! What a person says: for which takeover it counts, and when it ends.

use super::sim::{EAST, SECOND, Sim, WEST};
use crate::ids::Epoch;
use crate::lease::{Command, LossDecision, NoPromotion, Timers, Waiting};

pub(super) const fn promote(accept_loss: bool) -> Command {
    Command::Promote { accept_loss, lasts: Timers::LONGEST_APPROVAL }
}

/// Why the site's keeper would not hear a promotion now.
fn no_promotion(sim: &Sim, site: usize) -> Option<NoPromotion> {
    let now = sim.sites[site].clock.at(sim.now);
    sim.lease(site).expect("a keeper").status(now).no_promotion
}

/// West, alone and without the witness, so that it can't take over, though a person has accepted the loss.
fn approved_in_vain(seed: u64) -> Sim {
    let mut sim = Sim::started(seed);
    sim.loss_gate = LossDecision::Denied;
    sim.kill_site(EAST);
    sim.weather.witness[WEST] = false;
    sim.run(60 * SECOND);
    sim.command(WEST, promote(true));
    sim.run(SECOND);
    let waiting = sim.sites[WEST].waiting;
    assert!(
        matches!(waiting, Some(Waiting::NoVoter | Waiting::WitnessAnswer)),
        "nothing else is waited for: {waiting:?}"
    );
    sim
}

/// The takeover that could be now waits for a person.
fn asks_again(sim: &mut Sim, site: usize) {
    sim.weather.witness[site] = true;
    sim.run(60 * SECOND);
    assert!(!sim.serving(site), "what was said of an earlier takeover counted for this one");
    assert_eq!(sim.sites[site].waiting, Some(Waiting::Exposure));
}

#[test]
fn an_approval_counts_while_the_takeover_that_it_was_given_for_is_held_up() {
    let mut sim = approved_in_vain(21);
    sim.run(300 * SECOND);
    sim.weather.witness[WEST] = true;
    sim.run_until(30 * SECOND, |sim| sim.serving(WEST)).expect("a person said so");
}

#[test]
fn an_approval_ends_by_itself() {
    let mut sim = approved_in_vain(22);
    sim.run(620 * SECOND);
    asks_again(&mut sim, WEST);
}

#[test]
fn an_approval_that_is_taken_back_ends() {
    let mut sim = approved_in_vain(23);
    sim.command(WEST, Command::CancelPromotion);
    asks_again(&mut sim, WEST);
}

#[test]
fn an_approval_ends_when_the_other_site_is_back_and_holds() {
    let mut sim = Sim::started(24);
    sim.loss_gate = LossDecision::Denied;
    // East goes on by the witness, so west can't take over, and does not hear that.
    sim.weather.link = [false; 2];
    sim.run(60 * SECOND);
    assert_eq!(no_promotion(&sim, WEST), None);
    sim.command(WEST, promote(true));
    sim.run(SECOND);
    sim.weather.link = [true; 2];
    sim.run(10 * SECOND);
    assert!(sim.serving(EAST), "the holder goes on");
    sim.kill_site(EAST);
    asks_again(&mut sim, WEST);
}

#[test]
fn a_site_is_not_promoted_in_advance() {
    let mut sim = Sim::started(25);
    assert_eq!(no_promotion(&sim, WEST), Some(NoPromotion::PeerHolds));
    sim.loss_gate = LossDecision::Denied;
    sim.command(WEST, promote(true));
    sim.run(SECOND / 10);
    sim.kill_site(EAST);
    asks_again(&mut sim, WEST);
    assert_eq!(no_promotion(&sim, WEST), None);
}

#[test]
fn what_is_said_to_the_active_site_does_not_count_once_it_is_passive() {
    let mut sim = Sim::started(26);
    assert_eq!(no_promotion(&sim, EAST), Some(NoPromotion::Active));
    sim.command(EAST, promote(true));
    sim.command(EAST, Command::Handover);
    sim.run_until(10 * SECOND, |sim| sim.serving(WEST)).expect("a planned switch");
    sim.run(30 * SECOND);
    sim.loss_gate = LossDecision::Denied;
    sim.kill_site(WEST);
    asks_again(&mut sim, EAST);
}

#[test]
fn without_its_record_and_without_a_peer_a_site_does_nothing_until_a_person_speaks() {
    let mut sim = Sim::started(13);
    sim.kill_site(EAST);
    sim.kill_keeper(WEST);
    sim.sites[WEST].record = None;
    sim.start_keeper(WEST);
    sim.run(120 * SECOND);
    assert!(!sim.serving(WEST));
    assert_eq!(sim.sites[WEST].waiting, Some(Waiting::NoVoteRecord));
    sim.command(WEST, Command::ForceVote { above: Epoch(7) });
    sim.run_until(30 * SECOND, |sim| sim.serving(WEST)).expect("a person said so");
    assert_eq!(sim.serving_epoch(WEST), Some(Epoch(8)));
}

#[test]
fn two_sites_that_both_lost_their_records_wait_for_a_person_who_says_above_which_epoch_they_go_on() {
    let mut sim = Sim::started(27);
    for site in [EAST, WEST] {
        sim.kill_keeper(site);
        sim.sites[site].record = None;
    }
    // The witness knows more than the person does.
    let (_, seen) = sim.witness.current.as_mut().expect("the holder has written");
    seen.epoch = Epoch(9);
    for site in [EAST, WEST] {
        sim.start_keeper(site);
    }
    sim.run(120 * SECOND);
    assert!(!sim.serving(EAST) && !sim.serving(WEST));
    assert_eq!(sim.sites[WEST].waiting, Some(Waiting::NoVoteRecord));
    sim.command(WEST, Command::ForceVote { above: Epoch(7) });
    sim.run_until(60 * SECOND, |sim| sim.serving(WEST) || sim.serving(EAST)).expect("a person said so");
    sim.run(30 * SECOND);
    let epochs = [EAST, WEST].map(|site| sim.serving_epoch(site));
    assert!(matches!(epochs, [Some(Epoch(10..)), None] | [None, Some(Epoch(10..))]), "{epochs:?}");
}

#[test]
fn a_vote_that_the_site_has_is_not_forced() {
    let mut sim = Sim::started(28);
    for site in [EAST, WEST] {
        sim.command(site, Command::ForceVote { above: Epoch(7) });
    }
    sim.run(60 * SECOND);
    assert_eq!((sim.serving_epoch(EAST), sim.serving(WEST)), (Some(Epoch(1)), false));
}
