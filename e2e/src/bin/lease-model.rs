//! Searches the worlds of the lease model: `lease-model check WORLD... [--limit SECONDS]` shows that the properties hold,
//! `lease-model mutate [--only NAME]` takes out one guard at a time and shows the shortest trace to what falls; `--markdown FILE`
//! writes the table of docs/evidence/model.md.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use diptych_e2e::model::{Mutation, Outcome, check, named};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
    /// Seconds for each search.
    #[arg(long, global = true, default_value_t = 120)]
    limit: u64,
    /// Threads of the checker.
    #[arg(long, global = true, default_value_t = 2)]
    threads: usize,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Search worlds with all guards in place.
    Check {
        /// Names of worlds.
        #[arg(required = true)]
        worlds: Vec<String>,
    },
    /// Take out a guard at a time.
    Mutate {
        /// Only guards whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
        /// Write the table of guards and of what falls without each.
        #[arg(long, value_name = "FILE")]
        markdown: Option<PathBuf>,
    },
}

const HEADING: &str = "# What falls without each guard

`core::lease::step`, the code that runs in production, with one guard taken out at a time, searched breadth first, so that a trace is
as short as can be: `cargo run -p diptych-e2e --bin lease-model -- mutate --markdown docs/evidence/model.md`. Worlds and properties are in
`e2e/src/model`. With every guard in place no property falls (`e2e/tests/lease_model.rs`).

| guard | world | what falls | steps | states | seconds |
|---|---|---|---|---|---|
";

#[expect(clippy::print_stdout, reason = "a command whose result is what it prints")]
fn show(title: &str, outcome: &Outcome) {
    let end = if outcome.exhausted { "exhausted" } else { "cut off" };
    println!("{title}: {} states, depth {}, {:.1?}, {end}", outcome.states, outcome.depth, outcome.took);
    for (property, steps) in &outcome.violations {
        println!("  falls after {} steps: {property}\n    {}", steps.len(), steps.join("\n    "));
    }
    for unseen in &outcome.never_seen {
        println!("  never seen: {unseen}");
    }
}

/// One guard's line of the table.
fn row(guard: &str, world: &str, outcome: &Outcome) -> String {
    let (property, steps) =
        outcome.violations.first().map_or(("nothing", 0), |(property, steps)| (*property, steps.len()));
    let seconds = outcome.took.as_secs_f64();
    format!("| {guard} | {world} | {property} | {steps} | {} | {seconds:.1} |", outcome.states)
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let limit = Duration::from_secs(arguments.limit);
    let mut fine = true;
    match arguments.task {
        Task::Check { worlds } => {
            for world in worlds {
                let bounds = named(&world).ok_or_else(|| anyhow::anyhow!("there is no world {world:?}"))?;
                let outcome = check(bounds, limit, arguments.threads);
                fine &= outcome.violations.is_empty();
                show(&world, &outcome);
            }
        }
        Task::Mutate { only, markdown } => {
            let mut table = String::from(HEADING);
            for mutation in Mutation::ALL.iter().filter(|mutation| format!("{mutation:?}").contains(&only)) {
                let world = mutation.shows_in();
                let bounds = named(world).ok_or_else(|| anyhow::anyhow!("there is no world {world:?}"))?;
                let outcome = check(bounds.without(*mutation), limit, arguments.threads);
                fine &= !outcome.violations.is_empty();
                writeln!(table, "{}", row(&format!("{mutation:?}"), world, &outcome))?;
                let first = Outcome {
                    violations: outcome.violations.into_iter().take(1).collect(),
                    never_seen: vec![],
                    ..outcome
                };
                show(&format!("{mutation:?} in {world}"), &first);
            }
            if let Some(file) = markdown {
                std::fs::write(&file, table).with_context(|| file.display().to_string())?;
            }
        }
    }
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
