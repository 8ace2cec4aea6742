use proptest::prelude::*;

use super::*;

const WINDOW: Millis = Millis(60_000);
const LOOK: Millis = Millis(1_000);

/// West is active; east, the preferred site, is back and lacks nothing.
fn well() -> Sight {
    Sight {
        active: true,
        preferred: false,
        peer_connected: true,
        witness_reachable: true,
        drill: false,
        exposed: Some(Millis(0)),
        unmerged: 0,
        peer: Some(PeerHealth { follows: true, degraded: 0, name_trouble: false }),
        unreached: false,
    }
}

fn peer(change: impl FnOnce(&mut PeerHealth)) -> Sight {
    let mut sight = well();
    change(sight.peer.as_mut().expect("it says how it is"));
    sight
}

/// Looks each second; when the lease was first handed over.
fn run(failback: &mut Failback, from: BootTime, looks: u64, sight: &Sight) -> Option<BootTime> {
    let mut now = from;
    for _ in 0..looks {
        if failback.look(now, sight) == Outlook::HandOver {
            return Some(now);
        }
        now = now + LOOK;
    }
    None
}

#[test]
fn the_lease_is_given_back_after_a_whole_window_of_health_and_not_a_look_earlier() {
    let mut failback = Failback::new(Some(WINDOW));
    let begun = BootTime(5_000);
    assert_eq!(failback.look(begun, &well()), Outlook::Waits(Waiting::Settling { until: begun + WINDOW }));
    assert_eq!(run(&mut failback, begun, 1_000, &well()), Some(begun + WINDOW));
    // It did not come about: the next try is a window later.
    let again = begun + WINDOW + LOOK;
    assert_eq!(run(&mut failback, again, 1_000, &well()), Some(again + WINDOW));
}

#[test]
fn with_manual_a_person_is_waited_for_however_long_all_is_well() {
    let mut failback = Failback::new(None);
    assert_eq!(run(&mut failback, BootTime(0), 10_000, &well()), None);
    assert_eq!(failback.look(BootTime(1), &well()), Outlook::Waits(Waiting::Person));
}

#[test]
fn the_preferred_site_and_a_site_that_is_not_active_have_nothing_to_give_back() {
    for sight in [Sight { preferred: true, ..well() }, Sight { active: false, ..well() }] {
        let mut failback = Failback::new(Some(Millis(0)));
        assert_eq!(failback.look(BootTime(1), &sight), Outlook::Nothing);
    }
}

#[test]
fn whatever_is_not_well_is_named_and_begins_the_window_anew() {
    let cases = [
        (Sight { peer_connected: false, ..well() }, Waiting::PeerSilent),
        (Sight { peer: None, ..well() }, Waiting::PeerSilent),
        (peer(|peer| peer.follows = false), Waiting::PeerFenced),
        (Sight { exposed: Some(Millis(5_000)), ..well() }, Waiting::Exposed),
        (Sight { exposed: None, ..well() }, Waiting::Exposed),
        (Sight { unmerged: 1, ..well() }, Waiting::Unmerged),
        (peer(|peer| peer.degraded = 1), Waiting::Repair),
        (peer(|peer| peer.name_trouble = true), Waiting::PublicName),
        (Sight { unreached: true, ..well() }, Waiting::Unreached),
        (Sight { witness_reachable: false, ..well() }, Waiting::WitnessSilent),
        (Sight { drill: true, ..well() }, Waiting::Drill),
    ];
    for (sight, waiting) in cases {
        let mut failback = Failback::new(Some(WINDOW));
        assert_eq!(run(&mut failback, BootTime(0), 60, &well()), None, "the window is not over");
        let trouble = BootTime(60_000);
        assert_eq!(failback.look(trouble, &sight), Outlook::Waits(waiting), "{sight:?}");
        let again = trouble + LOOK;
        assert_eq!(run(&mut failback, again, 1_000, &well()), Some(again + WINDOW), "{waiting:?}");
    }
}

#[test]
fn a_site_that_is_written_to_all_the_time_is_handed_over_in_a_moment_with_little_under_way() {
    let busy = Sight { exposed: Some(Millis(1_500)), ..well() };
    let mut failback = Failback::new(Some(WINDOW));
    assert_eq!(run(&mut failback, BootTime(0), 120, &busy), None);
    let now = BootTime(120_000);
    assert_eq!(failback.look(now, &busy), Outlook::Waits(Waiting::CatchingUp));
    let calm = Sight { exposed: Some(Millis(300)), ..well() };
    assert_eq!(failback.look(now + LOOK, &calm), Outlook::HandOver, "the window stands");
}

#[test]
fn time_in_which_nobody_looked_does_not_count() {
    let mut failback = Failback::new(Some(WINDOW));
    failback.look(BootTime(0), &well());
    let late = BootTime(0) + WINDOW + WINDOW;
    assert_eq!(failback.look(late, &well()), Outlook::Waits(Waiting::Settling { until: late + WINDOW }));
}

proptest! {
    #[test]
    fn a_handover_is_always_behind_a_window_in_which_every_look_was_good(
        looks in prop::collection::vec((0_u64..15_000, any::<bool>()), 1..200),
    ) {
        let mut failback = Failback::new(Some(WINDOW));
        let mut now = BootTime(1);
        let mut seen: Vec<(BootTime, bool)> = Vec::new();
        for (pause, good) in looks {
            now = now + Millis(pause);
            let sight = if good { well() } else { Sight { drill: true, ..well() } };
            let outlook = failback.look(now, &sight);
            seen.push((now, good));
            if outlook == Outlook::HandOver {
                let window: Vec<_> = seen.iter().rev().take_while(|(at, _)| *at + WINDOW > now).collect();
                prop_assert!(window.iter().all(|(_, good)| *good), "{seen:?}");
                let gaps = window.windows(2).all(|pair| pair[1].0.until(pair[0].0) <= LONGEST_GAP);
                prop_assert!(gaps, "nobody looked for a while: {seen:?}");
            }
        }
    }
}
