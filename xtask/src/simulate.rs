//! `cargo xtask simulate`: the seeded simulations, each over many seeds. A seed that fails is named, with the variable that replays it.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::run::{cargo, must};
use crate::tally::Tally;
use crate::tools;

#[derive(clap::Args)]
pub struct Options {
    /// Seeds of the lease's simulation; of those that take longer there are fewer.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first of them: another one each night tries other sequences.
    #[arg(long, default_value_t = 0)]
    first: u64,
}

/// A test that takes its seeds from variables.
struct Simulation {
    name: &'static str,
    test: &'static str,
    /// `<variable>_SEED` and `<variable>_CASES`.
    variable: &'static str,
    /// It tries one seed where the lease's simulation tries so many.
    one_of: u64,
}

const SIMULATIONS: [Simulation; 3] = [
    Simulation {
        name: "lease",
        test: "lease::tests::faults::whatever_goes_wrong_one_site_at_a_time_serves_and_a_majority_brings_one_back",
        variable: "DIPTYCH_LEASE",
        one_of: 1,
    },
    Simulation {
        name: "terms",
        test: "rejoin::simulation::through_any_terms_both_sites_come_to_the_same_and_no_version_or_ring_key_vanishes",
        variable: "DIPTYCH_TERMS",
        one_of: 50,
    },
    Simulation {
        name: "store",
        test: "tests::model::what_is_answered_survives_every_sequence_of_steps",
        variable: "DIPTYCH_STORE",
        one_of: 5,
    },
];

/// The same selection as the tests', so that nothing is built twice.
const TESTS: [&str; 4] = ["test", "--quiet", "--workspace", "--lib"];

pub fn run(options: &Options) -> Result<Tally> {
    tools::for_building()?;
    must(cargo(&TESTS)?.arg("--no-run"))?;
    let mut tally = Tally::default();
    println!("| simulation | seeds | seconds | |\n|---|---|---|---|");
    for simulation in &SIMULATIONS {
        let cases = (options.seeds / simulation.one_of).max(1);
        let begun = Instant::now();
        let said = simulation.run(options.first, cases)?;
        tally.add(said.is_none());
        let seeds = format!("{} to {}", options.first, options.first + cases - 1);
        let verdict = if said.is_none() { "all hold" } else { "FAILED" };
        println!("| {} | {seeds} | {:.0} | {verdict} |", simulation.name, begun.elapsed().as_secs_f64());
        if let Some(said) = said {
            println!("{said}");
        }
    }
    Ok(tally)
}

impl Simulation {
    /// What the test said, where it failed or was not found.
    fn run(&self, first: u64, cases: u64) -> Result<Option<String>> {
        let ended = cargo(&TESTS)?
            .args(["--", "--exact", self.test])
            .env(format!("{}_SEED", self.variable), first.to_string())
            .env(format!("{}_CASES", self.variable), cases.to_string())
            .output()
            .with_context(|| format!("the simulation {} can't be started", self.name))?;
        let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        let passed: usize = said.lines().filter_map(Tally::of_libtest_line).map(|tally| tally.passed).sum();
        Ok((!ended.status.success() || passed != 1).then_some(said))
    }
}
