//! What the passive site could do with nothing but its own rows: its objects read, its catalog made anew.

use super::event::Effect;
use super::machine::Drill;
use super::report::{Phase, Rehearsed, Samples};
use crate::lease::BootTime;

impl Drill {
    pub(super) fn on_sampled(&mut self, now: BootTime, samples: Result<Samples, String>) -> Vec<Effect> {
        if self.report.phase != Phase::Sampling {
            return Vec::new();
        }
        match samples {
            Ok(samples) if samples.objects == 0 => {
                let exposed = samples.exposed;
                self.problems.push(format!("no object could be read; {exposed} are still on their way here"));
            }
            Ok(samples) => {
                if let Some(first) = samples.failed.first() {
                    let count = samples.failed.len();
                    self.problems
                        .push(format!("{count} objects do not read from this site's rows alone: {first}"));
                }
                self.report.samples = Some(samples);
            }
            Err(reason) => self.problems.push(format!("no object could be read: {reason}")),
        }
        let keys = self.report.spec.samples;
        self.enter(now, Phase::Rehearsing, vec![Effect::Rehearse { keys }])
    }

    pub(super) fn on_rehearsed(
        &mut self,
        now: BootTime,
        rehearsed: Result<Rehearsed, String>,
    ) -> Vec<Effect> {
        if self.report.phase != Phase::Rehearsing {
            return Vec::new();
        }
        match rehearsed {
            Ok(rehearsed) => {
                let Rehearsed { keys, gaps, .. } = rehearsed;
                if gaps > 0 {
                    self.problems.push(format!("a resurrection would lack {gaps} stretches of the journal"));
                }
                if let Some(first) = rehearsed.different.first() {
                    let count = rehearsed.different.len();
                    self.problems.push(format!(
                        "a resurrection would not give {count} of {keys} keys of the catalog as they are: {first}"
                    ));
                }
                self.report.rehearsed = Some(rehearsed);
            }
            Err(reason) => self.problems.push(format!("a resurrection would give no catalog: {reason}")),
        }
        self.conclude(now);
        Vec::new()
    }
}
