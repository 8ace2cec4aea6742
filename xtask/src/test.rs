//! `cargo xtask test`: every test of the workspace.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::run::{cargo, programs, show};
use crate::tally::Tally;
use crate::tools;

#[derive(clap::Args)]
pub struct Options {
    /// Words for `cargo test`, for instance `-p diptych-core placement`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub fn run(options: &Options) -> Result<Tally> {
    tools::for_building()?;
    tools::for_tests()?;
    // Tests of the whole run the program itself.
    programs()?;
    let mut words = vec!["test", "--no-fail-fast"];
    if options.words.is_empty() {
        words.push("--workspace");
    }
    words.extend(options.words.iter().map(String::as_str));
    let mut command = cargo(&words)?;
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| show(&command))?;
    let mut tally = Tally::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            tally += Tally::of_libtest_line(&line).unwrap_or_default();
            println!("{line}");
        }
    }
    // A crate that does not compile has no line of its own.
    if !child.wait()?.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}
