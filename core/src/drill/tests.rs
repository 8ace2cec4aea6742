use super::*;
use crate::edge::EdgeVerdict;
use crate::ids::{Epoch, SiteName};
use crate::lease::{BootTime, Millis};

const BEGIN: u64 = 1_000_000;
const MEASURE: Effect = Effect::ReadBack { phase: Phase::Measuring };
const VERIFY: Effect = Effect::ReadBack { phase: Phase::Verifying };

fn well() -> Facts {
    Facts {
        standing: Standing::Passive,
        automatic: true,
        lease: Millis(3_000),
        max_loss_age: Millis(10_000),
        peer_connected: true,
        witness_reachable: true,
        witness_ages: Millis(0),
        repairs: 0,
        exposed: Some(Exposed::default()),
        name_trouble: None,
        edge: EdgeVerdict::Reached,
        since_last_drill: None,
        other_drill: None,
    }
}

/// Both sites before a drill: the other one is active in epoch 4.
fn before() -> Sight {
    Sight {
        facts: well(),
        epoch: Epoch(4),
        stands: false,
        won: false,
        serves: None,
        name_here: Some(false),
        peer: Some(PeerSight { serves: true, cut_off: false }),
    }
}

/// This site serves in epoch 5, and the other one follows.
fn taken_over() -> Sight {
    Sight {
        facts: Facts { standing: Standing::Active, ..well() },
        epoch: Epoch(5),
        stands: true,
        won: true,
        serves: Some(Epoch(5)),
        name_here: Some(true),
        peer: Some(PeerSight { serves: false, cut_off: false }),
    }
}

/// A drill, its clock, and what it has asked for.
struct Stage {
    drill: Drill,
    now: u64,
    asked: Vec<Effect>,
}

impl Stage {
    fn new(spec: DrillSpec) -> Self {
        let west: SiteName = "west".parse().expect("a name");
        let drill = Drill::new("d1".to_owned(), spec, west, BootTime(BEGIN), 1_700_000_000_000);
        Self { drill, now: BEGIN, asked: Vec::new() }
    }

    fn after(&mut self, milliseconds: u64, event: Event) -> Vec<Effect> {
        self.now += milliseconds;
        let effects = self.drill.step(BootTime(self.now), event);
        self.asked.extend(effects.clone());
        effects
    }

    fn sees(&mut self, milliseconds: u64, sight: &Sight) -> Vec<Effect> {
        self.after(milliseconds, Event::Seen(Box::new(sight.clone())))
    }

    fn writes(&mut self, milliseconds: u64) -> Vec<Effect> {
        let answered = BootTime(self.now + milliseconds);
        self.after(milliseconds, Event::Probed(Probe { answered }))
    }

    fn read_back(&mut self, acknowledged: u64, missing: u64, age_ms: u64) -> Vec<Effect> {
        let phase = self.report().phase;
        self.after(1, Event::Read { phase, read: Ok(ReadBack { acknowledged, missing, age_ms }) })
    }

    /// Up to the moment at which the switch is asked for.
    fn until_switch(&mut self) -> Vec<Effect> {
        assert_eq!(self.sees(0, &before()), [Effect::StartProber]);
        for _ in 0..10 {
            assert_eq!(self.writes(100), []);
        }
        self.sees(0, &before())
    }

    /// From the return of the other site to the end, with everything as it should be.
    fn until_end(&mut self) {
        assert_eq!(self.sees(100, &taken_over()), [Effect::TryStaleWrites { epoch: Epoch(4) }]);
        self.after(10, Event::TriedStaleWrites(StaleWrites { tried: 2, refused: 2 }));
        assert_eq!(self.sees(100, &taken_over()), [Effect::GiveBack]);
        self.sees(400, &before());
        assert_eq!(self.writes(100), [Effect::StopProber, VERIFY]);
        self.read_back(200, 0, 0);
    }

    fn report(&self) -> &Report {
        self.drill.report()
    }

    fn verdict(&self) -> (Option<Verdict>, &str) {
        (self.report().verdict, self.report().reason.as_str())
    }
}

#[test]
fn readiness_looks_and_touches_nothing() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Readiness));
    assert_eq!(stage.sees(5, &before()), []);
    assert_eq!(stage.verdict().0, Some(Verdict::Passed), "{:?}", stage.report());
    let prediction = stage.report().prediction.clone().expect("one is made");
    assert_eq!(
        prediction.recovery_time,
        Some(Millis(5_030)),
        "promise of 3.03 s and 2 s until the first write"
    );
    assert_eq!(stage.asked, []);
}

#[test]
fn each_guard_that_does_not_hold_refuses_a_drill_before_anything_is_done() {
    let exposed = |bytes, age| Some(Exposed { bytes, age: Millis(age) });
    let broken: [(&str, Facts); 11] = [
        ("Role", Facts { standing: Standing::Active, ..well() }),
        ("Peer", Facts { peer_connected: false, ..well() }),
        ("Witness", Facts { witness_reachable: false, ..well() }),
        ("Repair", Facts { repairs: 1, ..well() }),
        ("Exposure", Facts { exposed: exposed(65 << 20, 0), ..well() }),
        ("Exposure", Facts { exposed: exposed(1, 5_001), ..well() }),
        ("OtherDrill", Facts { other_drill: Some("d0".to_owned()), ..well() }),
        ("Outage", Facts { lease: Millis(30_000), ..well() }),
        ("Edge", Facts { edge: EdgeVerdict::Unreached, ..well() }),
        ("PublicName", Facts { name_trouble: Some("403".to_owned()), ..well() }),
        ("CoolDown", Facts { since_last_drill: Some(Millis(599_999)), ..well() }),
    ];
    for (name, facts) in broken {
        let mut stage = Stage::new(DrillSpec::of(DrillMode::Outage));
        assert_eq!(stage.sees(0, &Sight { facts, ..before() }), [], "{name}");
        assert_eq!(stage.verdict().0, Some(Verdict::Refused), "{name}");
        let failed: Vec<_> = stage.report().checks.iter().filter(|check| !check.passed).collect();
        assert!(failed.len() == 1 && failed[0].name == name, "{name}: {failed:?}");
    }
}

#[test]
fn an_outage_is_measured_at_the_client_and_the_role_goes_back() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Outage));
    assert_eq!(stage.until_switch(), [Effect::CutOff { length: Millis(30_000) }]);
    stage.after(20, Event::Obeyed(Ok(())));
    let silent = Sight { facts: Facts { peer_connected: false, ..well() }, ..before() };
    stage.sees(980, &silent);
    stage.sees(2_000, &Sight { stands: true, ..silent.clone() });
    stage.sees(100, &Sight { stands: true, won: true, ..silent });
    let cut = PeerSight { serves: false, cut_off: true };
    let gone = Sight { peer: Some(cut), ..taken_over() };
    stage.sees(50, &Sight { name_here: Some(false), ..gone.clone() });
    stage.sees(600, &gone);
    assert_eq!(stage.writes(1_000), [MEASURE]);
    let times = stage.report().times;
    let seen = [
        times.detected_ms,
        times.waited_ms,
        times.acquired_ms,
        times.promoted_ms,
        times.flipped_ms,
        times.first_good_ms,
    ];
    assert_eq!(seen, [1_000, 3_000, 3_100, 3_150, 3_750, 4_750].map(Some));
    assert_eq!(stage.report().recovery_time_ms, Some(4_750));
    // Two records were not yet there: they come back with the site that has them.
    stage.read_back(10, 2, 150);
    assert_eq!(stage.sees(100, &gone), [], "it is still cut off");
    stage.until_end();
    assert_eq!(stage.verdict(), (Some(Verdict::Passed), "all is as it should be"));
    let report = stage.report();
    assert_eq!((report.recovery_point_ms, report.epochs), (Some(150), Some((Epoch(4), Epoch(5)))));
    assert!(report.steps.iter().all(|step| step.took_ms.is_some()), "{:?}", report.steps);
}

#[test]
fn a_write_that_comes_before_it_is_seen_who_serves_ends_the_outage_all_the_same() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Outage));
    stage.until_switch();
    // One was still acknowledged by the site that is cut off now.
    stage.writes(50);
    assert_eq!(stage.writes(4_000), [], "nobody is seen to serve yet");
    stage.sees(20, &taken_over());
    assert_eq!(stage.writes(80), [MEASURE]);
    let report = stage.report();
    assert_eq!((report.recovery_time_ms, report.times.first_good_ms), (Some(4_000), Some(4_050)));
}

#[test]
fn a_site_that_stays_cut_off_is_told_to_come_back() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Outage));
    stage.until_switch();
    stage.sees(3_000, &taken_over());
    stage.writes(100);
    stage.read_back(10, 0, 0);
    let cut = Sight { peer: Some(PeerSight { serves: false, cut_off: true }), ..taken_over() };
    assert_eq!(stage.sees(30_000, &cut), []);
    assert_eq!(stage.sees(5_000, &cut), [Effect::Restore]);
    assert_eq!(stage.sees(100, &cut), [], "not again at once");
}

#[test]
fn a_switch_that_loses_a_record_has_failed() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Switchover));
    assert_eq!(stage.until_switch(), [Effect::AskForRole]);
    stage.sees(300, &taken_over());
    stage.writes(100);
    stage.read_back(10, 1, 100);
    stage.until_end();
    let (verdict, reason) = stage.verdict();
    assert_eq!(verdict, Some(Verdict::Failed));
    assert!(reason.contains("1 of 10 acknowledged records are missing"), "{reason}");
}

#[test]
fn a_switch_that_does_not_come_about_is_asked_for_again_and_then_given_up() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Switchover));
    stage.until_switch();
    assert_eq!(stage.sees(4_999, &before()), []);
    assert_eq!(stage.sees(1, &before()), [Effect::AskForRole]);
    assert_eq!(stage.sees(55_001, &before()), [Effect::CancelRole]);
    assert_eq!(stage.sees(100, &before()), [Effect::StopProber, VERIFY]);
    stage.read_back(10, 0, 0);
    let (verdict, reason) = stage.verdict();
    assert_eq!(verdict, Some(Verdict::Aborted));
    assert!(reason.contains("no write came through the public name"), "{reason}");
}

#[test]
fn an_abort_restores_first_and_ends_with_one_active_site() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Outage));
    stage.until_switch();
    assert_eq!(stage.after(500, Event::Abort("a person said so".to_owned())), [Effect::Restore]);
    let nobody = Sight { peer: Some(PeerSight { serves: false, cut_off: false }), ..before() };
    assert_eq!(stage.sees(100, &nobody), [], "no site serves");
    let both = Sight { serves: Some(Epoch(4)), ..before() };
    assert_eq!(stage.sees(100, &both), [], "what is seen of both is of different moments");
    assert_eq!(stage.sees(100, &before()), [Effect::StopProber, VERIFY]);
    stage.read_back(10, 0, 0);
    assert_eq!(stage.verdict(), (Some(Verdict::Aborted), "a person said so"));
}

#[test]
fn an_abort_after_the_takeover_gives_the_role_back() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Outage));
    stage.until_switch();
    stage.sees(3_000, &taken_over());
    assert_eq!(stage.after(1, Event::Abort("enough".to_owned())), [Effect::Restore]);
    stage.until_end();
    assert_eq!(stage.verdict(), (Some(Verdict::Aborted), "enough"));
    assert!(stage.asked.contains(&Effect::GiveBack));
}

#[test]
fn a_stale_write_that_is_taken_fails_the_drill() {
    let mut stage = Stage::new(DrillSpec { go_back: false, ..DrillSpec::of(DrillMode::Switchover) });
    stage.until_switch();
    stage.sees(300, &taken_over());
    stage.writes(100);
    stage.read_back(10, 0, 0);
    stage.sees(100, &taken_over());
    stage.after(10, Event::TriedStaleWrites(StaleWrites { tried: 2, refused: 1 }));
    assert_eq!(stage.sees(100, &taken_over()), [Effect::StopProber, VERIFY], "it does not go back");
    stage.read_back(20, 0, 0);
    assert_eq!(stage.verdict(), (Some(Verdict::Failed), "1 of 2 stale writes were taken"));
}

#[test]
fn an_isolated_read_that_finds_nothing_proves_nothing() {
    let ends = |samples: Samples| {
        let mut stage = Stage::new(DrillSpec::of(DrillMode::Isolated));
        assert_eq!(stage.sees(0, &before()), [Effect::Sample { objects: 100 }]);
        let rehearse = stage.after(10, Event::Sampled(Ok(samples)));
        assert_eq!(rehearse, [Effect::Rehearse { keys: 100 }]);
        stage.after(10, Event::Rehearsed(Ok(Rehearsed { keys: 100, same: 100, ..Rehearsed::default() })));
        stage.report().verdict
    };
    assert_eq!(ends(Samples::default()), Some(Verdict::Failed));
    assert_eq!(ends(Samples { objects: 3, ..Samples::default() }), Some(Verdict::Passed));
    let failed = vec!["a/b: tag".to_owned()];
    assert_eq!(ends(Samples { objects: 3, failed, ..Samples::default() }), Some(Verdict::Failed));
}

#[test]
fn a_catalog_that_would_not_be_made_again_as_it_is_fails_an_isolated_drill() {
    let ends = |rehearsed: Result<Rehearsed, String>| {
        let mut stage = Stage::new(DrillSpec::of(DrillMode::Isolated));
        stage.sees(0, &before());
        stage.after(10, Event::Sampled(Ok(Samples { objects: 3, ..Samples::default() })));
        stage.after(10, Event::Rehearsed(rehearsed));
        let (verdict, reason) = stage.verdict();
        (verdict, reason.to_owned())
    };
    let whole = Rehearsed { keys: 3, same: 2, changed: 1, ..Rehearsed::default() };
    assert_eq!(ends(Ok(whole.clone())).0, Some(Verdict::Passed));
    let different = vec!["h/…".to_owned()];
    let broken = [
        (Ok(Rehearsed { different, ..whole.clone() }), "1 of 3 keys"),
        (Ok(Rehearsed { gaps: 2, ..whole }), "2 stretches of the journal"),
        (Err("no keyring".to_owned()), "no keyring"),
    ];
    for (rehearsed, said) in broken {
        let (verdict, reason) = ends(rehearsed);
        assert!(verdict == Some(Verdict::Failed) && reason.contains(said), "{verdict:?}: {reason}");
    }
}

#[test]
fn a_failover_that_would_not_happen_says_why() {
    let said = |facts: &Facts| predict(facts).obstacle.unwrap_or_default();
    assert_eq!(said(&well()), "");
    assert!(said(&Facts { witness_reachable: false, ..well() }).contains("witness"));
    assert!(said(&Facts { automatic: false, ..well() }).contains("Manual"));
    let exposed = Some(Exposed { bytes: 1, age: Millis(10_001) });
    let prediction = predict(&Facts { exposed, ..well() });
    assert!(prediction.obstacle.is_some_and(|said| said.contains("maxLossOnPromotion")));
    assert_eq!((prediction.recovery_time, prediction.recovery_point), (None, Some(Millis(10_001))));
}

#[test]
fn a_failover_soon_after_a_return_waits_for_the_witness() {
    let time = |ages| predict(&Facts { witness_ages: Millis(ages), ..well() }).recovery_time;
    assert_eq!(time(0), Some(Millis(5_030)));
    assert_eq!(time(7_000), Some(Millis(9_000)));
    assert_eq!(time(30_000), Some(Millis(12_100)), "no more than a witness lease is ever waited for");
}

#[test]
fn an_outage_too_short_to_be_taken_over_is_refused() {
    let spec = DrillSpec { outage: Millis(14_999), ..DrillSpec::of(DrillMode::Outage) };
    assert_eq!(spec.check(), Err(InvalidDrill::Outage(Millis(14_999))));
    assert!("Blackout".parse::<DrillMode>().is_err());
}

#[test]
fn a_drill_ends_though_an_answer_that_is_owed_never_comes() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Isolated));
    stage.sees(0, &before());
    stage.sees(12 * 60_000 - 1, &before());
    assert_eq!(stage.report().verdict, None);
    assert_eq!(stage.sees(1, &before()), [Effect::Rehearse { keys: 100 }]);
    stage.after(10, Event::Sampled(Ok(Samples { objects: 3, ..Samples::default() })));
    assert_eq!(stage.report().samples, None, "it came too late");
    stage.sees(12 * 60_000, &before());
    let (verdict, reason) = stage.verdict();
    assert_eq!(verdict, Some(Verdict::Failed));
    assert_eq!(reason.matches("no answer within").count(), 2, "{reason}");
}

#[test]
fn a_recovery_point_that_was_read_after_the_other_site_came_back_is_none() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Outage));
    stage.until_switch();
    stage.sees(3_000, &taken_over());
    stage.writes(100);
    stage.sees(26_999, &taken_over());
    stage.read_back(10, 0, 0);
    assert_eq!((stage.report().recovery_point_ms, stage.report().phase), (None, Phase::Settling));
}

#[test]
fn guards_are_looked_at_again_before_the_active_site_is_cut_off() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Outage));
    stage.sees(0, &before());
    for _ in 0..10 {
        stage.writes(100);
    }
    let alone = Sight { facts: Facts { witness_reachable: false, ..well() }, ..before() };
    assert_eq!(stage.sees(0, &alone), []);
    assert_eq!(stage.sees(19_000, &alone), [Effect::StopProber, VERIFY], "it was waited for long enough");
    stage.read_back(10, 0, 0);
    let (verdict, reason) = stage.verdict();
    assert_eq!(verdict, Some(Verdict::Aborted));
    assert!(reason.contains("the witness does not answer"), "{reason}");
    assert!(!stage.asked.iter().any(|effect| matches!(effect, Effect::CutOff { .. })));

    let mut stage = Stage::new(DrillSpec::of(DrillMode::Outage));
    stage.sees(0, &before());
    for _ in 0..10 {
        stage.writes(100);
    }
    stage.sees(0, &alone);
    assert_eq!(
        stage.sees(500, &before()),
        [Effect::CutOff { length: Millis(30_000) }],
        "it was a moment only"
    );
}

#[test]
fn a_role_that_does_not_pass_while_writes_go_on_ends_the_drill() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Outage));
    stage.until_switch();
    for _ in 0..90 {
        stage.writes(500);
        assert_eq!(stage.sees(500, &before()), []);
    }
    stage.writes(1);
    assert_eq!(stage.sees(0, &before()), [Effect::Restore]);
    assert_eq!(stage.sees(100, &before()), [Effect::StopProber, VERIFY]);
    stage.read_back(190, 0, 0);
    let (verdict, reason) = stage.verdict();
    assert_eq!(verdict, Some(Verdict::Aborted));
    assert!(reason.contains("the role did not pass within 90.001 s"), "{reason}");
}

/// This site has taken over, and the other one is still cut off.
fn other_is_cut_off() -> Sight {
    Sight { peer: Some(PeerSight { serves: false, cut_off: true }), ..taken_over() }
}

#[test]
fn the_time_for_settling_begins_when_an_outage_ends() {
    let settle = AbortLimits::default().settle.0;
    let outage = Millis(settle + 60_000);
    let mut stage = Stage::new(DrillSpec { outage, ..DrillSpec::of(DrillMode::Outage) });
    stage.until_switch();
    stage.sees(3_000, &taken_over());
    stage.writes(1_000);
    stage.read_back(10, 0, 0);
    assert_eq!(
        stage.sees(outage.0 - 4_001, &other_is_cut_off()),
        [],
        "it is cut off for longer than settling may take"
    );
    assert_eq!(stage.sees(settle, &other_is_cut_off()), [Effect::Restore]);
    assert_eq!(
        stage.sees(1, &other_is_cut_off()),
        [Effect::Restore, Effect::StopProber, VERIFY],
        "what was cut off is restored before anything else"
    );
    stage.read_back(10, 0, 0);
    assert!(stage.verdict().1.contains("not both well and caught up"), "{:?}", stage.verdict());
}

#[test]
fn an_order_to_come_back_is_given_until_it_is_seen_to_be_heard() {
    let mut stage = Stage::new(DrillSpec::of(DrillMode::Outage));
    stage.until_switch();
    assert_eq!(stage.after(10, Event::Abort("enough".to_owned())), [Effect::Restore]);
    let cut = Sight { peer: Some(PeerSight { serves: false, cut_off: true }), ..before() };
    assert_eq!(stage.sees(4_999, &cut), []);
    assert_eq!(stage.sees(1, &cut), [Effect::Restore], "the order to be cut off came after the first one");
    assert_eq!(stage.sees(5_000, &cut), [Effect::Restore]);
    assert_eq!(stage.sees(5_000, &before()), [Effect::StopProber, VERIFY]);
}

#[test]
fn what_was_read_for_an_earlier_phase_does_not_end_a_later_one() {
    let mut stage = Stage::new(DrillSpec { go_back: false, ..DrillSpec::of(DrillMode::Switchover) });
    stage.until_switch();
    stage.sees(300, &taken_over());
    assert_eq!(stage.writes(100), [MEASURE]);
    stage.sees(12 * 60_000, &taken_over());
    assert_eq!(stage.sees(100, &taken_over()), [Effect::TryStaleWrites { epoch: Epoch(4) }]);
    stage.after(10, Event::TriedStaleWrites(StaleWrites { tried: 2, refused: 2 }));
    assert_eq!(stage.sees(100, &taken_over()), [Effect::StopProber, VERIFY]);
    let late = ReadBack { acknowledged: 10, missing: 0, age_ms: 0 };
    stage.after(1, Event::Read { phase: Phase::Measuring, read: Ok(late) });
    assert_eq!(stage.report().verdict, None, "the last read is not done");
    stage.read_back(20, 0, 0);
    assert_eq!(stage.verdict().0, Some(Verdict::Failed));
}
