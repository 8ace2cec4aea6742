//! `cargo xtask check`: what must be clean before a change lands.

use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, must, root, silent};
use crate::tally::Tally;
use crate::{core_rule, generated, tools};

type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 6] = [
    ("formatting", formatting),
    ("lints", lints),
    ("what core depends on", core_rule::check),
    ("licences, bans and sources", deny),
    ("drift of generated files", generated::check),
    ("chart", chart),
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
    must(&mut cargo(&["fmt", "--all", "--check"])?)?;
    // A workspace of its own.
    must(&mut cargo(&["fmt", "--check", "--manifest-path", "fuzz/targets/Cargo.toml"])?)
}

fn lints() -> Result<()> {
    must(&mut cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])?)
}

/// The advisory database is fetched from the network, so it is not part of this.
fn deny() -> Result<()> {
    let mut command = Command::new(tools::cargo_deny()?);
    must(command.current_dir(root()).args(["--log-level", "error", "check", "bans", "licenses", "sources"]))
}

/// Every set of values that the project ships must pass the schema and render.
fn chart() -> Result<()> {
    let helm = tools::helm()?;
    for values in ["values-single.yaml", "values-east.yaml", "values-west.yaml"] {
        let values = root().join("kind-config").join(values);
        for words in [["lint", "--strict", "--quiet"].as_slice(), &["template", "diptych"]] {
            let mut command = Command::new(&helm);
            command.args(words).arg(root().join("charts").join("diptych")).arg("--values").arg(&values);
            command.args(["--kube-version", tools::KUBERNETES]);
            silent(&mut command)?;
        }
    }
    Ok(())
}
