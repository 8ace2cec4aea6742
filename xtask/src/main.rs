//! `cargo xtask`: what a developer and CI run. Each command ends with a line `N passed, N failed`.

mod bench;
mod check;
mod core_rule;
mod demo;
mod fuzz;
mod generated;
mod kind;
mod run;
mod simulate;
mod tally;
mod test;
mod tools;

use anyhow::Result;
use clap::{Parser, Subcommand};
use run::Words;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, test, check and show Diptych")]
struct Menu {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Stores real files, breaks things, and verifies every byte by SHA-256.
    Demo(Words),
    /// Runs every test of the workspace.
    Test(test::Options),
    /// Formatting, lints, licences, generated files, the chart, the rule on what `core` may depend on.
    Check,
    /// Fuzzes the formats and holds the store against its model, each for some minutes.
    Fuzz(fuzz::Options),
    /// Lease, terms and store through thousands of seeds each.
    Simulate(simulate::Options),
    /// Writes the files that are made from others: crds/, the chart's copies, docs/reference/, manifests/.
    Gen(generated::Options),
    /// Measures Diptych beside another object store under one client, as ratios: reads and writes, or with `--heal` how fast lost rows
    /// come back. With `--stages` or `--store` the byte path's stages, or a device, by itself.
    Bench(bench::Options),
    /// Bad input, commands, drills, features and faults on two kind clusters, which it makes where they are not up.
    E2e(Words),
    /// Kills the active site of two again and again, and times until a write succeeds.
    Takeover(Words),
    /// Kills processes at random under load, and reads back all that was acknowledged.
    Kills(Words),
    /// Records what clients of registers see while sites die, and has Porcupine look for an order in which it could have been.
    History(Words),
    /// Two kind clusters with the product in them: up, demo, e2e, down.
    #[command(subcommand)]
    Kind(kind::Step),
}

fn main() -> Result<()> {
    let tally = match Menu::parse().command {
        Command::Demo(words) => demo::run("diptych-demo", &words)?,
        Command::Takeover(words) => demo::run("diptych-takeover", &words)?,
        Command::Kills(words) => demo::run("diptych-kills", &words)?,
        Command::History(words) => {
            tools::history_checker()?;
            demo::run("diptych-history", &words)?
        }
        Command::Test(options) => test::run(&options)?,
        Command::Check => check::run()?,
        Command::Fuzz(options) => fuzz::run(&options)?,
        Command::Simulate(options) => simulate::run(&options)?,
        Command::Gen(options) => generated::run(&options)?,
        Command::Bench(options) => bench::run(&options)?,
        Command::E2e(words) => kind::run(&kind::Step::E2e(words))?,
        Command::Kind(step) => kind::run(&step)?,
    };
    println!("{tally}");
    std::process::exit(i32::from(tally.failed > 0));
}
