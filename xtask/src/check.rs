//! `cargo xtask check`: what must be clean before a change lands.

use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, must, root};
use crate::tally::Tally;
use crate::{core_rule, tools};

type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 4] = [
    ("formatting", formatting),
    ("lints", lints),
    ("what core depends on", core_rule::check),
    ("licences, bans and sources", deny),
];

pub fn run() -> Result<Tally> {
    tools::for_building()?;
    let mut tally = Tally::default();
    for (name, step) in STEPS {
        let result = step();
        tally.add(result.is_ok());
        match result {
            Ok(()) => println!("ok      {name}"),
            Err(error) => println!("FAILED  {name}: {error:#}"),
        }
    }
    Ok(tally)
}

fn formatting() -> Result<()> {
    must(&mut cargo(&["fmt", "--all", "--check"])?)
}

fn lints() -> Result<()> {
    must(&mut cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])?)
}

/// The advisory database is fetched from the network, so it is not part of this.
fn deny() -> Result<()> {
    let mut command = Command::new(tools::cargo_deny()?);
    must(command.current_dir(root()).args(["--log-level", "error", "check", "bans", "licenses", "sources"]))
}
