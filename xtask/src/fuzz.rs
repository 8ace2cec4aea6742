//! `cargo xtask fuzz`: libFuzzer drives the properties of `fuzz/`, and the store is held against its model, each for some
//! minutes. What was found to be interesting is kept in the cache folder, and is where the next run begins.

mod libfuzzer;
mod model;

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

use crate::tally::Tally;

#[derive(clap::Args)]
pub struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// How many targets run side by side.
    #[arg(long, default_value_t = 1)]
    at_once: usize,
    /// Targets to run; all where none is named.
    targets: Vec<String>,
}

/// What came of a target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// It ran to the end of its time, and nothing was found.
    passed: bool,
    executions: u64,
    executions_a_second: u64,
    /// Edges of the program that some input took; of what has no counters, None.
    coverage: Option<u64>,
    /// Inputs that are kept, and their bytes.
    corpus: Option<(usize, u64)>,
    /// Inputs for which something does not hold.
    findings: Vec<PathBuf>,
    /// All that it said.
    log: PathBuf,
}

pub fn run(options: &Options) -> Result<Tally> {
    let known: Vec<String> = libfuzzer::targets()?.into_iter().chain([model::TARGET.to_owned()]).collect();
    if let Some(unknown) = options.targets.iter().find(|target| !known.contains(target)) {
        bail!("there is no target {unknown}: {} are there", known.join(", "));
    }
    ensure!(options.at_once > 0, "--at-once is 0: one target at least must run");
    let chosen = if options.targets.is_empty() { &known } else { &options.targets };
    if chosen.iter().any(|target| target != model::TARGET) {
        libfuzzer::build()?;
    }
    let (mut tally, mut outcomes) = (Tally::default(), Vec::new());
    for side_by_side in chosen.chunks(options.at_once) {
        println!("{}: {} minutes", side_by_side.join(", "), options.minutes);
        let ended: Vec<Result<Outcome>> = std::thread::scope(|scope| {
            let running: Vec<_> =
                side_by_side.iter().map(|target| scope.spawn(|| run_one(target, options.minutes))).collect();
            running.into_iter().map(|thread| thread.join().expect("no target panics")).collect()
        });
        outcomes.extend(side_by_side.iter().zip(ended));
    }
    println!(
        "{:<16} {:>14} {:>10} {:>9} {:>18} {:>9}",
        "target", "executions", "a second", "coverage", "corpus", "findings"
    );
    for (target, ended) in outcomes {
        tally.add(ended.as_ref().is_ok_and(|outcome| outcome.passed));
        match ended {
            Ok(outcome) => show(target, &outcome),
            Err(error) => println!("{target:<16} {error:#}"),
        }
    }
    Ok(tally)
}

fn run_one(target: &str, minutes: u64) -> Result<Outcome> {
    if target == model::TARGET { model::run(minutes) } else { libfuzzer::run(target, minutes) }
}

fn show(target: &str, outcome: &Outcome) {
    let coverage = outcome.coverage.map_or_else(|| "-".to_owned(), |edges| edges.to_string());
    let corpus = outcome
        .corpus
        .map_or_else(|| "-".to_owned(), |(inputs, bytes)| format!("{inputs} ({} KiB)", bytes.div_ceil(1024)));
    let Outcome { executions, executions_a_second, findings, .. } = outcome;
    println!(
        "{target:<16} {executions:>14} {executions_a_second:>10} {coverage:>9} {corpus:>18} {:>9}",
        findings.len()
    );
    for finding in findings {
        println!("  found: {}", finding.display());
    }
    if !outcome.passed {
        println!("  FAILED, see {}", outcome.log.display());
    }
}
