//! What clients of registers see through a planned switch and a takeover, checked by Porcupine; and the checker itself, which must see what
//! is planted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use diptych_e2e::demo::installation::Installation;
use diptych_e2e::demo::reach::BUCKET;
use diptych_e2e::history::{Fault, Ground, Round, check, registers};
use diptych_e2e::program::{in_folder, run};
use serde_json::{Value, json};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_mins(1);
/// Porcupine is compiled for it.
const TESTED: Duration = Duration::from_mins(5);
const FAULTS: [Fault; 2] = [Fault::Switch, Fault::Kill];

/// One round on an installation of its own; its history.
async fn round(folder: &Path, acknowledge: &str) -> Result<PathBuf> {
    let words = ["--sites", "2", "--acknowledge", acknowledge, "--node-dead-after", "3"];
    let installation = Installation::start(&folder.join("data"), &words).await?;
    installation.s3(PATIENCE)?.create_bucket().await?;
    let ground = Ground {
        reach: &installation,
        faults: &installation,
        network: None,
        s3: installation.s3(Duration::ZERO)?,
        bucket: BUCKET,
        acknowledge,
    };
    let history = folder.join("history.jsonl");
    let round = Round { history: history.clone(), registers: registers("history", 4), clients: 6, seed: 1 };
    println!("{acknowledge}: {}", round.play(&ground, &FAULTS).await?);
    installation.stop().await?;
    Ok(history)
}

#[tokio::test]
async fn with_one_site_whatever_a_takeover_lost_is_named_or_comes_back() -> Result<()> {
    in_folder("history", async |folder| round(folder, "OneSite").await.map(drop)).await
}

#[tokio::test]
async fn with_both_sites_every_register_is_linearizable_and_what_is_planted_is_found() -> Result<()> {
    in_folder("history", async |folder| {
        let history = round(folder, "BothSites").await?;
        let text = std::fs::read_to_string(&history)?;
        let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        // The last line is the last look at a register.
        let last = lines.last().context("no line")?;
        let (register, found, now) =
            (&last["register"], &last["read"], last["return"].as_u64().context("no time")?);
        let older = |line: &&Value| line["does"] == "put" && line["outcome"] == "ok" && line["register"] == *register;
        let older = lines.iter().filter(older).map(|line| &line["writes"]).find(|value| *value != found);
        let later = |does: &str, after: u64, fields: Value| {
            let mut line = json!({"kind": "operation", "register": register, "client": 1_000_000, "does": does,
                "outcome": "ok", "call": now + after, "return": now + after + 1});
            line.as_object_mut().into_iter().for_each(|line| line.extend(fields.as_object().cloned().unwrap_or_default()));
            line
        };
        let stale = [later("get", 10, json!({"read": older.context("nothing was put")?}))];
        let lost =
            [later("put", 10, json!({"writes": 1_000_000_000})), later("get", 20, json!({"read": found}))];
        for (name, planted) in [("stale", &stale[..]), ("lost", &lost[..])] {
            let file = folder.join(format!("{name}.jsonl"));
            let planted: Vec<String> = planted.iter().map(Value::to_string).collect();
            std::fs::write(&file, format!("{text}{}", planted.join("\n")))?;
            is_found(&file).await?;
        }
        Ok(())
    })
    .await
}

/// The checker refuses the history, and shows why.
async fn is_found(history: &Path) -> Result<()> {
    let Err(error) = check(history).await else { bail!("{}: nothing was found", history.display()) };
    let said = format!("{error:#}");
    let page = said.split_once("see ").and_then(|(_, page)| page.lines().next()).context(said.clone())?;
    ensure!(said.contains("NOT LINEARIZABLE") && Path::new(page).is_file(), "{said}");
    Ok(())
}

#[tokio::test]
async fn the_checker_tells_right_from_wrong() -> Result<()> {
    let mut tests = Command::new("go");
    tests.args(["test", "./..."]).current_dir("history-checker");
    run(&mut tests, TESTED).await.map(drop)
}
