//! The store against its reference model, for as long as the targets run: a test of `store` that is told how long.

use std::fs::{self, File};
use std::time::Instant;

use anyhow::Result;

use super::Outcome;
use crate::run::{cache, cargo, must};
use crate::tools;

/// Its name among the targets.
pub(super) const TARGET: &str = "store_model";

const TEST: &str = "tests::model::what_is_answered_survives_every_sequence_of_steps";

pub(super) fn run(minutes: u64) -> Result<Outcome> {
    tools::for_building()?;
    let folder = cache()?.join("fuzz").join(TARGET);
    fs::create_dir_all(&folder)?;
    let log = folder.join("log");
    let build = ["test", "--quiet", "--workspace", "--lib"];
    // What is counted is the model's time, not the compiler's.
    must(cargo(&build)?.arg("--no-run"))?;
    let mut test = cargo(&build)?;
    test.args(["--", "--exact", TEST, "--nocapture"]);
    let said = File::create(&log)?;
    let started = Instant::now();
    let ended = test
        .env("DIPTYCH_STORE_MINUTES", minutes.to_string())
        .stdout(said.try_clone()?)
        .stderr(said)
        .status()?;
    let executions = sequences(&fs::read_to_string(&log)?).unwrap_or_default();
    let passed = ended.success() && executions > 0;
    let findings = if passed { Vec::new() } else { vec![log.clone()] };
    let executions_a_second = executions / started.elapsed().as_secs().max(1);
    Ok(Outcome { passed, executions, executions_a_second, findings, log, ..Outcome::default() })
}

/// From the line `model: N sequences …`.
fn sequences(log: &str) -> Option<u64> {
    let said = log.lines().find_map(|line| line.trim().strip_prefix("model: "))?;
    said.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_model_counts() {
        assert_eq!(sequences("running 1 test\nmodel: 812 sequences, first seed 7\n.\n"), Some(812));
        assert_eq!(sequences("running 0 tests\n"), None);
    }
}
