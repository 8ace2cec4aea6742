//! An answer is sent only after the system said that what it promises is on the devices: strace sees it from outside.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use diptych::command::inspect::Inspection;
use diptych_e2e::demo::installation::{Installation, signal, until};
use diptych_e2e::demo::reach::program;
use diptych_e2e::program::{in_folder, run};
use tokio::process::{Child, Command};

use crate::trace::{Trace, port_of};

/// strace on every process of an installation, in one file: what it saw first stands first.
struct Strace {
    child: Child,
    file: std::path::PathBuf,
}

impl Strace {
    async fn attach(installation: &Installation, folder: &Path) -> Result<Self> {
        let (file, said) = (folder.join("trace"), folder.join("strace.err"));
        let pids = installation.pids()?;
        let mut command = Command::new("strace");
        // The calls that store, and those that speak with a client; paths and addresses instead of numbers.
        command.args([
            "-f",
            "-yy",
            "-s",
            "64",
            "-e",
            "trace=fsync,fdatasync,read,recvfrom,write,writev,sendto",
        ]);
        command.arg("-o").arg(&file);
        for (_, pid) in &pids {
            command.args(["-p", &pid.to_string()]);
        }
        let child = command.stderr(std::fs::File::create(&said)?).kill_on_drop(true).spawn();
        let child = child.context("strace can't be started: `cargo xtask test` installs it")?;
        until("strace sees every process", Duration::from_secs(30), || async {
            let said = std::fs::read_to_string(&said)?;
            let all = pids.iter().all(|(_, pid)| said.contains(&format!("Process {pid} attached")));
            Ok(if all { Ok(()) } else { Err(said) })
        })
        .await?;
        Ok(Self { child, file })
    }

    async fn end(mut self) -> Result<Trace> {
        signal(self.child.id().context("strace ended by itself")?, "INT")?;
        self.child.wait().await?;
        Trace::parse(&std::fs::read_to_string(&self.file)?)
    }
}

/// Writes of each kind: small ones that share an extent, one of several stripes, one in parts, a delete.
async fn write(installation: &Installation, folder: &Path) -> Result<Vec<String>> {
    let s3 = installation.s3(Duration::ZERO)?;
    let mut keys = Vec::new();
    for (name, size) in [("empty", 0_usize), ("small", 1_000), ("middle", 200_000), ("large", 3 << 20)] {
        for number in 0..3 {
            let key = format!("{name}-{number}");
            s3.put(&key, Bytes::from(vec![number as u8 + 1; size])).await?;
            keys.push(key);
        }
    }
    let parts = folder.join("parts.bin");
    std::fs::write(&parts, vec![7; 20 << 20])?;
    s3.put_file("parts", &parts).await?;
    keys.push("parts".to_owned());
    s3.delete("small-0").await?;
    Ok(keys)
}

#[tokio::test]
async fn nothing_is_acknowledged_before_the_devices_and_the_catalog_are_synced() -> Result<()> {
    in_folder("durability", async |folder| {
        let installation = Installation::start(&folder.join("data"), &["--sites", "1"]).await?;
        installation.s3(Duration::ZERO)?.create_bucket().await?;
        let strace = Strace::attach(&installation, folder).await?;
        let keys = write(&installation, folder).await?;
        let trace = strace.end().await?;
        let port = port_of(&installation.endpoints()?.s3.endpoint)?;
        let catalog = installation.data_dir.join("east").join("catalog.redb");

        for key in keys.iter().filter(|key| *key != "parts") {
            let [exchange] = trace.exchanges(port, &format!("PUT /files/{key}?"))?[..] else {
                bail!("{key} was put more than once");
            };
            let mut stored = exchange.asked;
            if key != "small-0" && !key.starts_with("empty") {
                let inspection = installation.output(&["inspect", key, "--json"]).await?;
                let inspection: Inspection = serde_json::from_slice(&inspection.stdout)?;
                let rows: Vec<_> = inspection.extents.iter().flat_map(|extent| &extent.rows).collect();
                ensure!(rows.len() >= 6, "{key} has {} rows", rows.len());
                for row in rows {
                    let segment = row.segment.as_ref().context("a row without a file")?;
                    let synced = trace.synced(segment, exchange.asked, exchange.answered);
                    let synced = synced.with_context(|| {
                        format!("{key} was acknowledged before {} was synced", segment.display())
                    })?;
                    stored = stored.max(synced);
                }
            }
            trace.synced(&catalog, stored, exchange.answered).with_context(|| {
                format!("{key} was acknowledged before the catalog was synced after its rows")
            })?;
        }
        // A part is on the devices when it is answered; the completion and the delete are the catalog's alone.
        for request in ["POST /files/parts?", "PUT /files/parts?", "DELETE /files/small-0?"] {
            for exchange in trace.exchanges(port, request)? {
                trace
                    .synced(&catalog, exchange.asked, exchange.answered)
                    .with_context(|| format!("{request} was acknowledged before the catalog was synced"))?;
            }
        }
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn no_option_and_no_configuration_turns_syncing_off() -> Result<()> {
    let suspicious = |text: &str| {
        let text = text.to_lowercase();
        ["sync", "flush", "unsafe", "volatile", "barrier"].iter().find(|word| text.contains(**word)).copied()
    };
    in_folder("switches", async |folder| {
        let installation = Installation::start(&folder.join("data"), &["--sites", "1"]).await?;
        let help = async |words: &[&str]| {
            let mut command = Command::new(program()?);
            run(command.args(words).arg("--help"), Duration::from_secs(10)).await
        };
        let all = help(&[]).await?;
        let listed = all.split("Commands:").nth(1).context("no commands")?.split("Options:").next();
        let listed = listed.unwrap_or_default().lines().filter_map(|line| line.split_whitespace().next());
        let mut commands: Vec<Vec<&str>> = listed.map(|name| vec![name]).collect();
        ensure!(commands.len() > 8 && commands.contains(&vec!["node-agent"]), "{commands:?}");
        commands.push(vec!["dev", "revive"]);
        for words in commands.iter().filter(|words| words[0] != "help") {
            let help = help(words).await?;
            ensure!(suspicious(&help).is_none(), "{words:?} --help speaks of {:?}", suspicious(&help));
        }
        for entry in std::fs::read_dir(installation.data_dir.join("config"))? {
            let path = entry?.path();
            let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
            ensure!(
                names(&value).iter().all(|name| suspicious(name).is_none()),
                "{}: {value}",
                path.display()
            );
        }
        installation.stop().await
    })
    .await
}

/// Every name in a document.
fn names(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(map) => {
            map.iter().flat_map(|(name, value)| std::iter::once(name.clone()).chain(names(value))).collect()
        }
        serde_json::Value::Array(list) => list.iter().flat_map(names).collect(),
        _ => Vec::new(),
    }
}
