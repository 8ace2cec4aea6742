//! What a drill measures: times by what its keeper sees, recovery time and point by what a client sees.

use super::event::{Effect, Probe, Sight};
use super::machine::Drill;
use super::report::{Phase, ReadBack};
use super::spec::DrillMode;
use crate::lease::{BootTime, Millis};

impl Drill {
    /// Notes what is seen for the first time.
    pub(super) fn mark(&mut self, now: BootTime, sight: &Sight) {
        let at = self.since_switch(now);
        let times = &mut self.report.times;
        let first = |mark: &mut Option<u64>, is_so: bool| {
            if is_so && mark.is_none() {
                *mark = Some(at);
            }
        };
        let serves = sight.serves.filter(|epoch| *epoch > self.epoch_before);
        let outage = self.report.spec.mode == DrillMode::Outage;
        first(&mut times.detected_ms, outage && (!sight.facts.peer_connected || sight.stands));
        first(&mut times.waited_ms, sight.stands || serves.is_some());
        first(&mut times.acquired_ms, sight.won || serves.is_some());
        first(&mut times.promoted_ms, serves.is_some());
        first(&mut times.flipped_ms, serves.is_some() && sight.name_here == Some(true));
        if let Some(epoch) = serves {
            self.report.epochs.get_or_insert((self.epoch_before, epoch));
        }
    }

    pub(super) fn on_probed(&mut self, now: BootTime, probe: Probe) -> Vec<Effect> {
        let before = self.last_good.unwrap_or(probe.answered);
        let gap = before.until(probe.answered);
        self.last_good = Some(before.max(probe.answered));
        self.good += 1;
        match self.report.phase {
            Phase::Switching => self.on_good_write(now, gap, probe),
            Phase::GoingBack => {
                self.report.return_time_ms = self.report.return_time_ms.max(Some(gap.0));
                if self.peer_served_again { self.verify(now) } else { Vec::new() }
            }
            _ => Vec::new(),
        }
    }

    /// The longest time without a good write is the outage, whichever was told first: that write, or that this site serves.
    fn on_good_write(&mut self, now: BootTime, gap: Millis, probe: Probe) -> Vec<Effect> {
        if self.report.recovery_time_ms.is_none_or(|longest| longest < gap.0) {
            self.report.recovery_time_ms = Some(gap.0);
            self.report.times.first_good_ms = Some(self.since_switch(probe.answered));
        }
        if self.report.times.promoted_ms.is_none() {
            return Vec::new();
        }
        let (took, target) =
            (Millis(self.report.recovery_time_ms.unwrap_or_default()), self.report.spec.target);
        if took > target {
            self.problems
                .push(format!("it took {took} to the first good write, and {target} were asked for"));
        }
        self.enter(now, Phase::Measuring, vec![Effect::ReadBack { phase: Phase::Measuring }])
    }

    /// What was read for the phase that the drill is in.
    pub(super) fn on_read(&mut self, now: BootTime, read: Result<ReadBack, String>) -> Vec<Effect> {
        let last = self.report.phase == Phase::Verifying;
        match read {
            Ok(read) => {
                // Once the other site is back, what it alone had is there again: then nothing was measured.
                let back = self.outage_ends().is_some_and(|end| now >= end);
                if !(last || back) {
                    self.report.recovery_point_ms = Some(read.age_ms);
                }
                // What an outage left exposed comes back with the site that has it; a switch loses nothing at any moment.
                if read.missing > 0 && (last || self.report.spec.mode == DrillMode::Switchover) {
                    let ReadBack { acknowledged, missing, .. } = read;
                    self.problems
                        .push(format!("{missing} of {acknowledged} acknowledged records are missing"));
                }
                self.report.records = Some(read);
            }
            Err(reason) => self.problems.push(format!("the records could not be read back: {reason}")),
        }
        match self.report.phase {
            Phase::Measuring => self.enter(now, Phase::Settling, Vec::new()),
            Phase::Verifying => {
                self.conclude(now);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn since_switch(&self, now: BootTime) -> u64 {
        self.switched.map_or(0, |switched| switched.until(now).0)
    }
}
