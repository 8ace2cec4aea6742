//! Two sites that share nothing but cables, and the cables are cut.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use diptych_e2e::demo::installation::{Installation, until};
use diptych_e2e::demo::reach::site_of;
use diptych_e2e::demo::writer::{self, Writer};
use diptych_e2e::network::Network;
use diptych_e2e::program::{in_folder, outcome};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_mins(1);
const PROMOTE: [&str; 3] = ["api", "v1", "promote"];
const SITES: [&str; 2] = ["east", "west"];

/// Asks a site for `/lease` from within its own namespace: it answers however cut off it is. The epoch, if it may write.
async fn may_write(network: &Network, site: &str, rest: &str) -> Result<Option<u64>> {
    let mut curl = network.command(site, "curl");
    let (_, said) = outcome(curl.args(["-s", "-m", "2", &format!("{rest}/lease")]), PATIENCE).await?;
    let Ok(lease) = serde_json::from_str::<serde_json::Value>(&said) else { return Ok(None) };
    Ok(if lease["expires_in_ms"].is_null() { None } else { lease["epoch"].as_u64() })
}

/// Looks at both sites all the while.
struct Watch {
    network: Arc<Network>,
    task: JoinHandle<Result<()>>,
    holders: Arc<Mutex<BTreeMap<u64, &'static str>>>,
    looks: Arc<std::sync::atomic::AtomicU64>,
}

impl Watch {
    fn start(network: &Arc<Network>, installation: &Installation) -> Result<Self> {
        let endpoints = installation.endpoints()?;
        let rest: Vec<String> =
            SITES.iter().map(|site| Ok(site_of(&endpoints, site)?.rest.clone())).collect::<Result<_>>()?;
        let holders = Arc::new(Mutex::new(BTreeMap::<u64, &'static str>::new()));
        let looks = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let (found, counted, inside) = (Arc::clone(&holders), Arc::clone(&looks), Arc::clone(network));
        let task = tokio::spawn(async move {
            loop {
                for (site, rest) in SITES.into_iter().zip(&rest) {
                    // What was known before the question was asked.
                    let newest =
                        found.lock().unwrap_or_else(PoisonError::into_inner).keys().next_back().copied();
                    let Some(epoch) = may_write(&inside, site, rest).await? else { continue };
                    ensure!(
                        newest.is_none_or(|newest| epoch >= newest),
                        "two writers: {site} may write in epoch {epoch} after the other one could in {newest:?}"
                    );
                    let holder =
                        *found.lock().unwrap_or_else(PoisonError::into_inner).entry(epoch).or_insert(site);
                    ensure!(holder == site, "two writers: {site} and {holder} in epoch {epoch}");
                }
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Ok(Self { network: Arc::clone(network), task, holders, looks })
    }

    /// Waits until a site holds an epoch above `above`; the epoch.
    async fn holds(&self, site: &str, above: u64) -> Result<u64> {
        until(&format!("{site} is active above epoch {above}"), LIMIT, || async {
            if self.task.is_finished() {
                bail!("the watch has ended: there was a second writer");
            }
            let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let newest = holders.iter().find(|(epoch, holder)| **epoch > above && **holder == site);
            Ok(newest.map(|(epoch, _)| *epoch).ok_or(format!("{holders:?}")))
        })
        .await
    }

    async fn end(self) -> Result<u64> {
        self.task.abort();
        match self.task.await {
            Ok(ended) => ended?,
            Err(aborted) => ensure!(aborted.is_cancelled(), "the watch broke: {aborted}"),
        }
        drop(self.network);
        Ok(self.looks.load(std::sync::atomic::Ordering::Relaxed))
    }
}

/// Waits until the other site has all that `active` has, but for what the writer just wrote.
async fn nothing_exposed(installation: &Installation, active: &str, passive: &str) -> Result<()> {
    until("nothing is exposed", LIMIT, || async {
        let (here, there) = (installation.status(active).await?, installation.status(passive).await?);
        let exposure = here.exposure.context("no exposure")?;
        let done = here.role == "active"
            && there.role == "passive"
            && there.epoch == here.epoch
            && exposure.age_ms < 2_000
            && there.health.wanted < 8;
        Ok(if done {
            Ok(())
        } else {
            Err(format!("{exposure:?}, {} lacks {}", passive, there.health.wanted))
        })
    })
    .await
}

/// Puts a file by REST to a site's own address, from within its namespace; the status that it answers.
async fn put_inside(network: &Network, installation: &Installation, site: &str, key: &str) -> Result<String> {
    let endpoints = installation.endpoints()?;
    let url = format!("{}/api/v1/files?bucket=files", site_of(&endpoints, site)?.rest);
    let mut curl = network.command(site, "curl");
    curl.args([
        "-s",
        "-m",
        "20",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-X",
        "POST",
        "--data-binary",
        key,
    ]);
    curl.args(["-H", &format!("Authorization: Bearer {}", endpoints.token), &url]);
    Ok(outcome(&mut curl, PATIENCE).await?.1)
}

/// What was acknowledged is there, by whichever site.
async fn every_record(installation: &Installation, writer: Writer) -> Result<()> {
    let records = writer.stop().await?;
    ensure!(records.len() > 100, "only {} records were acknowledged", records.len());
    let s3 = installation.s3(PATIENCE)?;
    writer::none_missing(installation, &s3, &records).await?;
    println!("{} records acknowledged, none missing", records.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_makes_no_second_writer_and_a_cut_off_site_is_taken_over_and_merged() -> Result<()> {
    in_folder("namespaces", async |folder| cut_and_heal(folder).await).await
}

async fn cut_and_heal(folder: &Path) -> Result<()> {
    let network = Arc::new(Network::make()?);
    let places = network.places();
    let words: Vec<&str> = ["--sites", "2"].into_iter().chain(places.iter().map(String::as_str)).collect();
    let installation = Installation::start(&folder.join("data"), &words).await?;
    installation.s3(PATIENCE)?.create_bucket().await?;
    let watch = Watch::start(&network, &installation)?;
    let first = watch.holds("east", 0).await?;
    // It goes on all the while: each record until it is acknowledged, whoever is active.
    let writer = Writer::start(installation.s3(Duration::ZERO)?);
    nothing_exposed(&installation, "east", "west").await?;

    // What nobody needs is not kept for later: a takeover that comes afterwards asks for itself.
    for site in SITES {
        // One that has not heard the other for a moment hears it, until the other is heard again.
        until(&format!("{site} is not promoted while east serves"), LIMIT, || async {
            let promoted = installation.rest(site)?.post::<serde_json::Value>(&PROMOTE).await;
            let refused = promoted.as_ref().is_err_and(|error| error.to_string().starts_with("409"));
            Ok(if refused { Ok(()) } else { Err(format!("{promoted:?}")) })
        })
        .await?;
    }

    // The link between the sites: east goes on, by the witness, and counts what west lacks.
    network.cut_between()?;
    let exposed = until("the exposure is counted", LIMIT, || async {
        let exposure = installation.status("east").await?.exposure.context("no exposure")?;
        let counted = exposure.commits >= 50 && exposure.age_ms > 12_000;
        Ok(if counted { Ok(exposure) } else { Err(format!("{exposure:?}")) })
    })
    .await?;
    ensure!(installation.status("west").await?.role == "passive", "west is not passive");

    // All of east's cables: its lease runs out, but more is exposed than may be lost, so west waits for a person.
    network.cut_off("east")?;
    until("west waits for a person", LIMIT, || async {
        let status = installation.status("west").await?;
        ensure!(status.role != "active", "west took over although more was exposed than may be lost");
        let waits = status.lease.waiting.as_deref() == Some("Exposure");
        Ok(if waits { Ok(()) } else { Err(format!("{:?}", status.lease)) })
    })
    .await?;
    let asked = Instant::now();
    let accepted = [("accept_loss", "true")];
    let _: serde_json::Value = installation.rest("west")?.post_query(&PROMOTE, &accepted).await?;
    let second = watch.holds("west", first).await?;
    println!(
        "exposed {exposed:?}; west active in epoch {second} {:.1} s after a person said so",
        asked.elapsed().as_secs_f64()
    );
    ensure!(put_inside(&network, &installation, "east", "late").await? == "503", "east still takes writes");

    // The cables are put right: east is passive, hands over what west never saw, and both have all of it.
    network.heal("east")?;
    network.heal("west")?;
    nothing_exposed(&installation, "west", "east").await?;

    // Now nothing is exposed: west is cut off wholly, and east takes over by itself.
    network.cut_off("west")?;
    let cut = Instant::now();
    let third = watch.holds("east", second).await?;
    println!(
        "east active again in epoch {third} {:.1} s after the cut, by itself",
        cut.elapsed().as_secs_f64()
    );
    network.heal("west")?;
    nothing_exposed(&installation, "east", "west").await?;
    every_record(&installation, writer).await?;
    println!("{} looks at both sites, never two writers", watch.end().await?);
    installation.stop().await
}
