//! Both the processes and the catalog are gone; devices and cluster key give everything back, and nothing that was deleted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use diptych::client::endpoints::S3Endpoint;
use diptych::client::s3::S3Client;
use diptych_catalog::{Batch, Catalog, Change, RedbCatalog, RedbOptions, Write};
use diptych_core::access::seal_secret;
use diptych_core::ids::Epoch;
use diptych_core::journal::is_recorded;
use diptych_core::keyring::{ClusterKey, Keyring};
use diptych_core::keys::{self, Key, KeyRange};
use diptych_core::records::{Gate, Record};
use diptych_e2e::demo::installation::{Installation, signal, until};
use diptych_e2e::demo::memory;
use diptych_e2e::demo::reach::program;
use diptych_e2e::program::{in_folder, outcome, output, python};
use diptych_site::resurrect::Report;
use diptych_site::status::JournalStatus;
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::process::Command;

const SITE: &[&str] = &["--sites", "1"];
const PATIENCE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_mins(30);
/// Puts and gets on their way at once.
const AT_ONCE: usize = 16;
/// Versions of the test that compares catalogs key by key; the long run asks for more.
const VERSIONS: &str = "DIPTYCH_RESURRECT_VERSIONS";

/// Beginning of the keys of that test.
const MANY: &str = "many/";

/// What S3 tells, by a client that nobody here wrote.
async fn s3_state(s3: &S3Endpoint, what: &str) -> Result<String> {
    let mut script = Command::new(python("boto3")?);
    script.env("AWS_ACCESS_KEY_ID", &s3.access_key).env("AWS_SECRET_ACCESS_KEY", &s3.secret_key);
    script.env_remove("AWS_CA_BUNDLE");
    output(script.args(["tests/proof/s3_state.py", &s3.endpoint, what])).await
}

fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Waits until the journal has all, and nothing new comes for longer than a pass of the collector takes.
async fn quiet(installation: &Installation) -> Result<()> {
    let mut known: Option<(JournalStatus, u64)> = None;
    let asked = now_ms();
    loop {
        let seen = until("the journal has all", Duration::from_mins(5), || async {
            let status = installation.status("east").await?;
            let journal = &status.journal;
            let all = status.seen_ms > asked + 1_000
                && journal.waiting_since_ms == 0
                && journal.trouble.is_none()
                && journal.checkpoint_keys > 0;
            Ok(if all { Ok((journal.clone(), status.seen_ms)) } else { Err(format!("{journal:?}")) })
        })
        .await?;
        match &known {
            Some((journal, since)) if *journal == seen.0 => {
                if seen.1 > since + 12_000 {
                    return Ok(());
                }
            }
            _ => known = Some(seen),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Folders of all devices.
fn devices(installation: &Installation) -> Result<Vec<PathBuf>> {
    let endpoints = installation.endpoints()?;
    let agents = endpoints.sites.values().flat_map(|site| &site.agents);
    Ok(agents.flat_map(|agent| agent.devices.clone()).collect())
}

fn resurrect(data: &Path, devices: &[PathBuf], key: &Path) -> Result<Command> {
    let mut command = Command::new(program()?);
    command.arg("resurrect").arg("--devices").args(devices).arg("--cluster-key").arg(key);
    command.arg("--into").arg(data.join("east")).arg("--json");
    Ok(command)
}

/// Every process dies at once, and the catalog is moved away; where to.
async fn lose_the_catalog(installation: Installation, data: &Path) -> Result<PathBuf> {
    installation.kill().await?;
    let (catalog, away) = (data.join("east").join("catalog.redb"), data.join("away.redb"));
    let _ = std::fs::remove_file(&away);
    std::fs::rename(&catalog, &away)?;
    Ok(away)
}

#[tokio::test]
async fn a_lost_catalog_is_made_anew_and_s3_tells_the_same_as_before() -> Result<()> {
    in_folder("resurrect", async |folder| {
        let data = folder.join("data");
        let mut installation = Installation::start(&data, SITE).await?;
        let (s3, devices) = (installation.endpoints()?.s3, devices(&installation)?);
        let key = data.join("cluster.key");
        s3_state(&s3, "fill").await?;
        let before = s3_state(&s3, "dump").await?;
        ensure!(before.contains("small/007") && !before.contains("deleted/"), "{before}");

        let (fine, said) = outcome(&mut resurrect(&data, &devices, &key)?, LIMIT).await?;
        ensure!(!fine && said.contains("is there already"), "{said}");
        // Twice: what was made anew journals itself, and can be made anew.
        for round in 1..=2 {
            quiet(&installation).await?;
            lose_the_catalog(installation, &data).await?;
            let wrong = folder.join("wrong.key");
            std::fs::write(&wrong, "ab".repeat(32))?;
            let (fine, said) = outcome(&mut resurrect(&data, &devices, &wrong)?, LIMIT).await?;
            ensure!(!fine && said.contains("is not the one that wrapped this keyring"), "{said}");
            ensure!(!data.join("east").join("catalog.redb").exists(), "something was made");

            let report: Report =
                serde_json::from_str(&output(&mut resurrect(&data, &devices, &key)?).await?)?;
            println!("round {round}: {report:?}");
            ensure!(
                report.gaps.is_empty() && report.troubles.is_empty() && report.lacking == 0,
                "{report:?}"
            );
            ensure!(report.found.iter().all(|found| found.left.is_some()), "{report:?}");
            installation = Installation::start(&data, SITE).await?;
            let after = s3_state(&s3, "dump").await?;
            ensure!(before == after, "before: {before}\nafter: {after}");
            s3_state(&s3, "gone").await?;
        }
        let client = installation.s3(PATIENCE)?;
        client.put("afterwards", Bytes::from_static(b"it goes on")).await?;
        ensure!(client.get("afterwards").await?.bytes().await? == "it goes on", "it reads");
        installation.stop().await
    })
    .await
}

#[tokio::test]
async fn devices_in_use_and_a_missing_part_of_the_history_are_refused() -> Result<()> {
    in_folder("resurrect-refused", async |folder| {
        let data = folder.join("data");
        let installation = Installation::start(&data, SITE).await?;
        let (devices, key) = (devices(&installation)?, data.join("cluster.key"));
        let client = installation.s3(PATIENCE)?;
        client.create_bucket().await?;
        client.put("kept", Bytes::from_static(b"kept")).await?;
        quiet(&installation).await?;
        // The site is dead and its agents live.
        signal(installation.endpoints()?.sites["east"].pid, "KILL")?;
        std::fs::rename(data.join("east").join("catalog.redb"), data.join("away.redb"))?;
        let (fine, said) = outcome(&mut resurrect(&data, &devices, &key)?, LIMIT).await?;
        ensure!(!fine && said.contains("is in use: stop the node-agent"), "{said}");
        installation.kill().await?;
        let (fine, said) = outcome(&mut resurrect(&data, &devices[..2], &key)?, LIMIT).await?;
        ensure!(!fine && said.to_lowercase().contains("name more"), "{said}");
        ensure!(!data.join("east").join("catalog.redb").exists(), "something was made");
        output(&mut resurrect(&data, &devices, &key)?).await.map(drop)
    })
    .await
}

/// The most memory that a process took until it ended, in MiB.
async fn peak_of(pid: u32) -> u64 {
    let mut peak = 0;
    while let Ok(now) = memory::peak_mib(pid) {
        peak = peak.max(now);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    peak
}

/// Every key that a resurrection owes, and placements, by a catalog's file.
async fn recorded(path: &Path) -> Result<(BTreeMap<Key, Bytes>, BTreeMap<Key, Bytes>)> {
    let catalog = RedbCatalog::open(path, "east".parse()?, &RedbOptions::default())?;
    let view = catalog.view().await?;
    let mut range = KeyRange { start: Key(Vec::new()), end: Key(vec![0xff; 64]) };
    let (mut owed, mut placed) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let page = view.scan(&range, 1_000)?;
        for (key, value) in page.entries {
            if is_recorded(&key, Some(&value))? {
                owed.insert(key, value);
            } else if key.0.starts_with(b"l/") {
                placed.insert(key, value);
            }
        }
        match page.next {
            Some(next) => range.start = next,
            None => return Ok((owed, placed)),
        }
    }
}

/// Access keys, as an operator enters them: the site is stopped, its gate is as it was.
async fn add_access_keys(data: &Path, count: usize) -> Result<()> {
    let catalog =
        RedbCatalog::open(&data.join("east").join("catalog.redb"), "east".parse()?, &RedbOptions::default())?;
    let view = catalog.view().await?;
    let key = ClusterKey::parse(&std::fs::read_to_string(data.join("cluster.key"))?)?;
    let keyring = Keyring::open(&view.get(&keys::keyring())?.context("no keyring")?, &key)?;
    let gate = view.get(&keys::site_gate(&"east".parse()?))?.context("no gate")?;
    let Gate::Open(epoch) = Gate::decode(&gate)? else { anyhow::bail!("the gate is closed") };
    drop(view);
    for number in 0..count {
        let id = format!("KEY{number:05}");
        let record = seal_secret(&keyring, &id, "secret", &nonce(number), "default", number % 2 == 0)?;
        let put = Write::Put(keys::access_key(&id), Bytes::from(record.encode()));
        catalog.commit(Batch::one(Some(Epoch(epoch.0)), Change::blind(vec![put]))).await?;
    }
    Ok(())
}

fn nonce(number: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&(number as u64).to_le_bytes());
    nonce
}

/// The bytes of a version: up to 4 KiB that only it has.
fn content(key: usize, version: usize) -> Bytes {
    let seed = Sha256::digest(format!("{key} {version}"));
    Bytes::from(seed.repeat(1 + (key * 7 + version) % 128))
}

/// Keys, each with how many versions it gets and whether it is deleted in the end.
fn plan(versions: usize) -> Vec<(usize, usize, bool)> {
    let mut plan = Vec::new();
    let mut left = versions;
    for key in 0.. {
        let count = if key % 4 == 0 { 2 } else { 1 }.min(left);
        if count == 0 {
            return plan;
        }
        left -= count;
        plan.push((key, count, key % 10 == 3));
    }
    plan
}

fn name(key: usize) -> String {
    format!("{MANY}{:02}/{key:06}", key % 100)
}

async fn write(client: &Arc<S3Client>, plan: &[(usize, usize, bool)]) -> Result<()> {
    let written = plan.iter().map(|&(key, versions, deleted)| async move {
        for version in 0..versions {
            client.put(&name(key), content(key, version)).await?;
        }
        if deleted { client.delete(&name(key)).await } else { Ok(()) }
    });
    stream::iter(written).buffer_unordered(AT_ONCE).try_collect().await
}

async fn read(client: &Arc<S3Client>, plan: &[(usize, usize, bool)]) -> Result<()> {
    let listed = client.list(MANY).await?;
    let wanted: BTreeMap<String, u64> = plan
        .iter()
        .filter(|(.., deleted)| !deleted)
        .map(|&(key, versions, _)| (name(key), content(key, versions - 1).len() as u64))
        .collect();
    let found: BTreeMap<String, u64> = listed.into_iter().map(|object| (object.key, object.size)).collect();
    ensure!(found == wanted, "{} are listed, {} were stored", found.len(), wanted.len());
    let reads = plan.iter().filter(|(.., deleted)| !deleted).map(|&(key, versions, _)| async move {
        let bytes = client.get(&name(key)).await?.bytes().await?;
        ensure!(bytes == content(key, versions - 1), "{} has other bytes", name(key));
        Ok(())
    });
    stream::iter(reads).buffer_unordered(AT_ONCE).try_collect().await
}

#[tokio::test]
async fn as_many_versions_as_are_asked_for_come_back_with_a_diff_of_zero() -> Result<()> {
    let versions = std::env::var(VERSIONS).ok().and_then(|count| count.parse().ok()).unwrap_or(1_500);
    in_folder("resurrect-many", async |folder| {
        let data = folder.join("data");
        let installation = Installation::start(&data, SITE).await?;
        let devices = devices(&installation)?;
        let client = installation.s3(PATIENCE)?;
        client.create_bucket().await?;
        let plan = plan(versions);
        let begun = Instant::now();
        write(&client, &plan).await?;
        let wrote = begun.elapsed();
        s3_state(&installation.endpoints()?.s3, "fill").await?;
        installation.stop().await?;
        add_access_keys(&data, 100).await?;
        let installation = Installation::start(&data, SITE).await?;
        quiet(&installation).await?;
        let journal = installation.status("east").await?.journal;
        let away = lose_the_catalog(installation, &data).await?;

        let begun = Instant::now();
        let mut command = resurrect(&data, &devices, &data.join("cluster.key"))?;
        let mut child = command.stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn()?;
        let peak = tokio::spawn(peak_of(child.id().context("it ended at once")?));
        let mut said = String::new();
        let mut out = child.stdout.take().context("no output")?;
        tokio::io::AsyncReadExt::read_to_string(&mut out, &mut said).await?;
        ensure!(child.wait().await?.success(), "{said}");
        let took = begun.elapsed();
        let report: Report = serde_json::from_str(&said)?;

        let made = data.join("east").join("catalog.redb");
        let ((before, placed), (after, placed_anew)) = (recorded(&away).await?, recorded(&made).await?);
        let different = |one: &BTreeMap<Key, Bytes>, other: &BTreeMap<Key, Bytes>| -> Vec<Key> {
            let differs = one.iter().filter(|(key, value)| other.get(*key) != Some(*value));
            let missing = other.keys().filter(|key| !one.contains_key(*key));
            differs.map(|(key, _)| key).chain(missing).cloned().collect()
        };
        let differing = different(&before, &after);
        println!(
            "{versions} versions written in {:.0} s ({:.0} a second); journal: {journal:?}; resurrected in {:.1} s, at most {} MiB; {} keys, \
             {} differ; {} placements, {} differ; {report:?}",
            wrote.as_secs_f64(),
            versions as f64 / wrote.as_secs_f64(),
            took.as_secs_f64(),
            peak.await?,
            before.len(),
            differing.len(),
            placed.len(),
            different(&placed, &placed_anew).len(),
        );
        ensure!(differing.is_empty(), "{:?}", &differing[..differing.len().min(20)]);
        ensure!(report.access_keys == 101 && report.gaps.is_empty() && report.lacking == 0, "{report:?}");

        let installation = Installation::start(&data, SITE).await?;
        let client = installation.s3(PATIENCE)?;
        let listed = client.list("").await?;
        ensure!(listed.iter().all(|object| !object.key.starts_with("deleted/")), "a deleted file has come back");
        read(&client, &plan).await?;
        s3_state(&installation.endpoints()?.s3, "gone").await?;
        installation.stop().await
    })
    .await
}
