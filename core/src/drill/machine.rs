//! The state machine of one drill: what happened goes in, what is to be done comes out.

use super::event::{Effect, Event, Sight};
use super::facts::{Standing, checks, predict};
use super::report::{Phase, ReadBack, Rehearsed, Report, Samples, Step, Verdict};
use super::spec::{DrillMode, DrillSpec};
use crate::ids::{Epoch, SiteName};
use crate::lease::{BootTime, Millis};

/// Good writes in a row before anything is done.
const BASELINE: u32 = 10;
/// They must have come by then.
const BASELINE_LIMIT: Millis = Millis(20_000);
/// A switch that is not coming about is asked for again: one that would hold writes up for too long is given up by itself.
const ASK_AGAIN: Millis = Millis(5_000);
/// The way back must have come about by then.
const RETURN_LIMIT: Millis = Millis(60_000);
/// Reading back, or reading samples, takes no longer.
const ANSWER_LIMIT: Millis = Millis(12 * 60_000);
/// The site that was cut off is told to come back so long after it should have done so by itself.
const RESTORE_AFTER: Millis = Millis(5_000);

/// One drill.
#[derive(Debug, Clone)]
pub struct Drill {
    pub(super) report: Report,
    pub(super) began: BootTime,
    pub(super) entered: BootTime,
    /// When the switch was asked for, or the active site cut off.
    pub(super) switched: Option<BootTime>,
    pub(super) epoch_before: Epoch,
    pub(super) good: u32,
    pub(super) last_good: Option<BootTime>,
    pub(super) asked_again: BootTime,
    pub(super) stale_asked: bool,
    pub(super) peer_served_again: bool,
    pub(super) aborted: Option<String>,
    pub(super) problems: Vec<String>,
}

impl Drill {
    /// A drill that begins at `now`, `wall_ms` after 1970. `Seen` comes next.
    pub fn new(id: String, spec: DrillSpec, run_by: SiteName, now: BootTime, wall_ms: u64) -> Self {
        let report = Report::begun(id, spec, run_by, wall_ms);
        Self {
            report,
            began: now,
            entered: now,
            switched: None,
            epoch_before: Epoch(0),
            good: 0,
            last_good: None,
            asked_again: now,
            stale_asked: false,
            peer_served_again: false,
            aborted: None,
            problems: Vec::new(),
        }
    }

    /// What it has to say so far.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// One event, at a moment of this machine's clock. What comes out is to be begun before the next step.
    pub fn step(&mut self, now: BootTime, event: Event) -> Vec<Effect> {
        if self.report.is_over() {
            return Vec::new();
        }
        match event {
            Event::Seen(sight) => self.on_seen(now, &sight),
            Event::Probed(probe) => self.on_probed(now, probe),
            Event::Obeyed(answer) => self.on_obeyed(now, answer),
            Event::Sampled(samples) => self.on_sampled(now, samples),
            Event::Rehearsed(rehearsed) => self.on_rehearsed(now, rehearsed),
            Event::Read { phase, read } if phase == self.report.phase => self.on_read(now, read),
            Event::Read { .. } => Vec::new(),
            Event::TriedStaleWrites(tried) => {
                let taken = tried.tried - tried.refused;
                let taken =
                    (taken > 0).then(|| format!("{taken} of {} stale writes were taken", tried.tried));
                self.problems.extend(taken);
                self.report.stale_writes = tried;
                Vec::new()
            }
            Event::Abort(reason) => self.on_abort(now, reason),
        }
    }

    fn on_seen(&mut self, now: BootTime, sight: &Sight) -> Vec<Effect> {
        if self.switched.is_some() {
            self.mark(now, sight);
        }
        let mut effects = self.restore_again(now, sight);
        effects.extend(match self.report.phase {
            Phase::Checking => self.check(now, sight),
            Phase::Baseline => self.wait_for_baseline(now, sight),
            Phase::Switching => self.watch_switch(now, sight),
            Phase::Settling => self.settle(now, sight),
            Phase::GoingBack => self.watch_return(now, sight),
            Phase::Sampling | Phase::Rehearsing | Phase::Measuring | Phase::Verifying => {
                self.wait_for_answer(now)
            }
            Phase::Ended => Vec::new(),
        });
        effects
    }

    fn check(&mut self, now: BootTime, sight: &Sight) -> Vec<Effect> {
        let spec = &self.report.spec;
        let (mode, objects) = (spec.mode, spec.samples);
        let failed = self.look_at_guards(sight);
        let prediction = predict(&sight.facts);
        let obstacle = prediction.obstacle.clone();
        self.report.prediction = Some(prediction);
        match mode {
            DrillMode::Readiness => {
                self.problems.extend((!failed.is_empty()).then_some(failed).or(obstacle));
                self.conclude(now);
                Vec::new()
            }
            _ if !failed.is_empty() => {
                self.end(now, Verdict::Refused, format!("nothing was done: {failed}"));
                Vec::new()
            }
            DrillMode::Isolated => self.enter(now, Phase::Sampling, vec![Effect::Sample { objects }]),
            DrillMode::Switchover | DrillMode::Outage => {
                self.epoch_before = sight.epoch;
                self.enter(now, Phase::Baseline, vec![Effect::StartProber])
            }
        }
    }

    /// Looks at every guard; what those that do not hold have found.
    fn look_at_guards(&mut self, sight: &Sight) -> String {
        self.report.checks = checks(&sight.facts, &self.report.spec);
        let failed = self.report.checks.iter().filter(|check| !check.passed);
        failed.map(|check| check.finding.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// The guards must hold at the very moment at which it gets serious.
    fn wait_for_baseline(&mut self, now: BootTime, sight: &Sight) -> Vec<Effect> {
        self.epoch_before = sight.epoch;
        let failed = self.look_at_guards(sight);
        if self.good >= BASELINE && failed.is_empty() {
            return self.switch(now);
        }
        if self.since_entered(now) < BASELINE_LIMIT {
            return Vec::new();
        }
        if self.good >= BASELINE {
            return self.on_abort(now, format!("nothing was cut off or switched: {failed}"));
        }
        self.problems.push(
            "no writes came through the public name before anything was done: look at its health first"
                .to_owned(),
        );
        self.verify(now)
    }

    /// What was asked of the shell is owed; a drill goes on all the same where it never comes.
    fn wait_for_answer(&mut self, now: BootTime) -> Vec<Effect> {
        if self.since_entered(now) < ANSWER_LIMIT {
            return Vec::new();
        }
        let asked = Err(format!("no answer within {ANSWER_LIMIT}"));
        match self.report.phase {
            Phase::Sampling => self.on_sampled(now, asked.map(|()| Samples::default())),
            Phase::Rehearsing => self.on_rehearsed(now, asked.map(|()| Rehearsed::default())),
            _ => self.on_read(now, asked.map(|()| ReadBack::default())),
        }
    }

    /// Everything is well: now it gets serious.
    fn switch(&mut self, now: BootTime) -> Vec<Effect> {
        self.switched = Some(now);
        self.asked_again = now;
        let effect = match self.report.spec.mode {
            DrillMode::Outage => Effect::CutOff { length: self.report.spec.outage },
            DrillMode::Readiness | DrillMode::Isolated | DrillMode::Switchover => Effect::AskForRole,
        };
        self.enter(now, Phase::Switching, vec![effect])
    }

    fn watch_switch(&mut self, now: BootTime, sight: &Sight) -> Vec<Effect> {
        let quiet = self.last_good.unwrap_or(self.entered).until(now);
        if quiet > self.report.spec.abort.unavailable {
            return self.on_abort(now, format!("no write came through the public name for {quiet}"));
        }
        let late = self.outage_ends().unwrap_or(self.entered) + self.report.spec.abort.unavailable;
        if now > late {
            let waited = self.since_entered(now);
            return self.on_abort(now, format!("the role did not pass within {waited}"));
        }
        let served = sight.serves.is_some() || sight.peer.is_none_or(|peer| !peer.serves);
        self.ask_again(now, !served && self.report.spec.mode == DrillMode::Switchover, Effect::AskForRole)
    }

    /// When the site that was cut off comes back by itself; None: none was.
    pub(super) fn outage_ends(&self) -> Option<BootTime> {
        let cut = self.switched.filter(|_| self.report.spec.mode == DrillMode::Outage);
        cut.map(|at| at + self.report.spec.outage)
    }

    /// A site that should be back is told so until it is seen to be: an order may be lost, or overtaken by the one before it.
    fn restore_again(&mut self, now: BootTime, sight: &Sight) -> Vec<Effect> {
        let Some(end) = self.outage_ends().filter(|_| self.report.phase != Phase::Switching) else {
            return Vec::new();
        };
        let unwanted = self.aborted.is_some() || !self.problems.is_empty() || now >= end + RESTORE_AFTER;
        let cut_off = sight.peer.is_some_and(|peer| peer.cut_off);
        self.ask_again(now, unwanted && cut_off, Effect::Restore)
    }

    fn ask_again(&mut self, now: BootTime, wanted: bool, effect: Effect) -> Vec<Effect> {
        if !wanted || self.asked_again.until(now) < ASK_AGAIN {
            return Vec::new();
        }
        self.asked_again = now;
        vec![effect]
    }

    fn on_obeyed(&mut self, now: BootTime, answer: Result<(), String>) -> Vec<Effect> {
        let cuts_off = self.report.phase == Phase::Switching && self.report.spec.mode == DrillMode::Outage;
        match answer {
            Err(reason) if cuts_off => {
                // It may be cut off or not: it is told to come back.
                self.problems.push(format!("the active site did not say that it is cut off: {reason}"));
                self.asked_again = now;
                self.enter(now, Phase::Settling, vec![Effect::Restore])
            }
            // A switch that does not come about is asked for again.
            Ok(()) | Err(_) => Vec::new(),
        }
    }

    /// One active site, the other one passive, connected and caught up: both as before, or the other way round.
    fn settle(&mut self, now: BootTime, sight: &Sight) -> Vec<Effect> {
        let facts = &sight.facts;
        let one_active =
            sight.peer.is_some_and(|peer| !peer.cut_off && peer.serves != sight.serves.is_some());
        let caught_up = facts.exposed.is_some_and(|exposed| {
            let guards = &self.report.spec.guards;
            exposed.bytes <= guards.exposed_bytes && exposed.age <= guards.exposed_age
        });
        let well = one_active && facts.peer_connected && caught_up && facts.repairs == 0;
        // While one is cut off they can't be well.
        let begin = self.outage_ends().map_or(self.entered, |end| end.max(self.entered));
        let limit = self.report.spec.abort.settle;
        if begin.until(now) > limit {
            self.problems.push(format!("the sites were not both well and caught up after {limit}"));
            let mut effects: Vec<Effect> = self.outage_ends().map(|_| Effect::Restore).into_iter().collect();
            effects.extend(self.verify(now));
            return effects;
        }
        if !well {
            return Vec::new();
        }
        if self.report.epochs.is_some() && self.report.stale_writes.tried == 0 {
            let asked = std::mem::replace(&mut self.stale_asked, true);
            return if asked {
                Vec::new()
            } else {
                vec![Effect::TryStaleWrites { epoch: self.epoch_before }]
            };
        }
        if self.report.spec.go_back && sight.facts.standing == Standing::Active {
            self.asked_again = now;
            return self.enter(now, Phase::GoingBack, vec![Effect::GiveBack]);
        }
        self.verify(now)
    }

    fn watch_return(&mut self, now: BootTime, sight: &Sight) -> Vec<Effect> {
        if self.since_entered(now) > RETURN_LIMIT {
            self.problems.push(format!("the role did not go back within {RETURN_LIMIT}"));
            return self.verify(now);
        }
        self.peer_served_again = sight.serves.is_none() && sight.peer.is_some_and(|peer| peer.serves);
        self.ask_again(now, sight.serves.is_some(), Effect::GiveBack)
    }

    pub(super) fn verify(&mut self, now: BootTime) -> Vec<Effect> {
        let read = Effect::ReadBack { phase: Phase::Verifying };
        self.enter(now, Phase::Verifying, vec![Effect::StopProber, read])
    }

    fn on_abort(&mut self, now: BootTime, reason: String) -> Vec<Effect> {
        if self.aborted.is_some() {
            return Vec::new();
        }
        self.aborted = Some(reason);
        self.asked_again = now;
        let undo = match self.report.spec.mode {
            DrillMode::Outage => Effect::Restore,
            DrillMode::Readiness | DrillMode::Isolated | DrillMode::Switchover => Effect::CancelRole,
        };
        match self.report.phase {
            Phase::Checking | Phase::Sampling | Phase::Rehearsing => {
                self.conclude(now);
                Vec::new()
            }
            Phase::Baseline => self.verify(now),
            Phase::Switching => self.enter(now, Phase::Settling, vec![undo]),
            Phase::Measuring | Phase::Settling => vec![undo],
            Phase::GoingBack | Phase::Verifying | Phase::Ended => Vec::new(),
        }
    }

    pub(super) fn conclude(&mut self, now: BootTime) {
        let problems = self.problems.join("; ");
        let (verdict, reason) = match (self.aborted.take(), problems.is_empty()) {
            (Some(reason), true) => (Verdict::Aborted, reason),
            (Some(reason), false) => (Verdict::Aborted, format!("{reason}; {problems}")),
            (None, true) => (Verdict::Passed, "all is as it should be".to_owned()),
            (None, false) => (Verdict::Failed, problems),
        };
        self.end(now, verdict, reason);
    }

    fn end(&mut self, now: BootTime, verdict: Verdict, reason: String) {
        self.enter(now, Phase::Ended, Vec::new());
        self.report.ended_ms = self.report.began_ms + self.began.until(now).0;
        self.report.verdict = Some(verdict);
        self.report.reason = reason;
    }

    pub(super) fn enter(&mut self, now: BootTime, phase: Phase, effects: Vec<Effect>) -> Vec<Effect> {
        if let Some(step) = self.report.steps.last_mut() {
            step.took_ms = Some(self.entered.until(now).0);
        }
        if phase != Phase::Ended {
            let began_ms = self.began.until(now).0;
            self.report.steps.push(Step { phase, began_ms, took_ms: None });
        }
        self.entered = now;
        self.report.phase = phase;
        phase.waits_for().clone_into(&mut self.report.reason);
        effects
    }

    fn since_entered(&self, now: BootTime) -> Millis {
        self.entered.until(now)
    }
}
