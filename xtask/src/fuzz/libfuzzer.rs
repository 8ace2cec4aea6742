//! The targets that libFuzzer drives: built by cargo-fuzz, each run as a program of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Outcome;
use crate::run::{cache, must, root};
use crate::tools;

/// The platform is named, so that cargo keeps the counters out of build scripts.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// An input that takes longer is a finding.
const SECONDS_FOR_AN_INPUT: u32 = 10;
/// What writes files writes them here where it can: nothing of them has to last.
const MEMORY: &str = "/dev/shm";

fn package() -> PathBuf {
    root().join("fuzz").join("targets")
}

fn target_folder() -> Result<PathBuf> {
    Ok(cache()?.join("fuzz").join("target"))
}

/// Names of the targets, in order.
pub(super) fn targets() -> Result<Vec<String>> {
    let folder = package().join("src").join("bin");
    let entries = fs::read_dir(&folder).with_context(|| format!("{} can't be listed", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Builds all targets with coverage counters. No sanitizer: the crates that are driven forbid unsafe code, and without one
/// the stable toolchain will do.
pub(super) fn build() -> Result<()> {
    tools::debian("g++", "g++")?;
    let mut build = Command::new(tools::cargo_fuzz()?);
    build.args(["build", "--sanitizer", "none", "--target", PLATFORM, "--fuzz-dir"]).arg(package());
    must(build.arg("--target-dir").arg(target_folder()?).current_dir(package()))
}

/// Runs a target for so many minutes, from the inputs that are kept in the repository, in the cache folder, and those for
/// which it did not hold before.
pub(super) fn run(target: &str, minutes: u64) -> Result<Outcome> {
    let folder = cache()?.join("fuzz").join(target);
    let (corpus, findings, log) = (folder.join("corpus"), folder.join("findings"), folder.join("log"));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&findings)?;
    let mut fuzzer = Command::new(target_folder()?.join(PLATFORM).join("release").join(target));
    fuzzer.arg(&corpus).arg(root().join("fuzz").join("seeds").join(target)).arg(&findings);
    fuzzer.arg(format!("-max_total_time={}", minutes * 60)).arg(format!("-timeout={SECONDS_FOR_AN_INPUT}"));
    fuzzer.arg("-print_final_stats=1").arg(format!("-artifact_prefix={}/", findings.display()));
    if Path::new(MEMORY).is_dir() {
        fuzzer.env("TMPDIR", MEMORY);
    }
    let ended = fuzzer.stdout(Stdio::null()).stderr(File::create(&log)?).status();
    let ended = ended.with_context(|| format!("{target} can't be started"))?;
    let mut outcome = read(&String::from_utf8_lossy(&fs::read(&log)?));
    outcome.passed = ended.success() && outcome.findings.is_empty() && outcome.executions > 0;
    outcome.corpus = Some(size(&corpus)?);
    outcome.log = log;
    Ok(outcome)
}

/// Files in a folder, and their bytes.
fn size(folder: &Path) -> Result<(usize, u64)> {
    let sizes: Vec<u64> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).collect::<Result<_>>()?;
    Ok((sizes.len(), sizes.iter().sum()))
}

/// What libFuzzer's log says.
fn read(log: &str) -> Outcome {
    let number = |after: &str| {
        let (_, rest) = log.rsplit_once(after)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let written = |line: &str| line.split_once("Test unit written to ").map(|(_, path)| path.trim().into());
    Outcome {
        executions: number("stat::number_of_executed_units:").unwrap_or_default(),
        executions_a_second: number("stat::average_exec_per_sec:").unwrap_or_default(),
        coverage: number(" cov: "),
        findings: log.lines().filter_map(written).collect(),
        ..Outcome::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_status_counts() {
        let log = "#2\tINITED cov: 90 ft: 91 corp: 1/1b exec/s: 0 rss: 38Mb\n\
                   #8192\tpulse  cov: 512 ft: 730 corp: 80/3021b lim: 4096 exec/s: 4096 rss: 40Mb\n\
                   Done 9000 runs in 3 second(s)\n\
                   stat::number_of_executed_units: 9000\n\
                   stat::average_exec_per_sec:     3000\n";
        let expected = Outcome {
            executions: 9000,
            executions_a_second: 3000,
            coverage: Some(512),
            ..Outcome::default()
        };
        assert_eq!(read(log), expected);
    }

    #[test]
    fn each_input_that_was_written_is_a_finding() {
        let log = "==7== ERROR: libFuzzer: deadly signal\n\
                   artifact_prefix='/f/'; Test unit written to /f/crash-adc83b19e793491b1c6ea0fd8b46cd9f32e592fc\n";
        let expected = [PathBuf::from("/f/crash-adc83b19e793491b1c6ea0fd8b46cd9f32e592fc")];
        assert_eq!(read(log).findings, expected);
    }
}
