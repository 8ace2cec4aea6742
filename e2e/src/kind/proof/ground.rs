//! What every proof stands on: two clusters, the way to them, and what is shown when one fails.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use diptych::client::endpoints::S3Endpoint;
use diptych::client::s3::{Refused, S3Client};
use diptych_site::status::SiteStatus;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::demo::installation::until;
use crate::demo::one_site::PATIENCE;
use crate::demo::reach::{Reach, site_of};
use crate::demo::table::Table;
use crate::kind::cluster::Cluster;
use crate::kind::spec;
use crate::kind::state::State;

/// The bucket of what is put here; others stay as they are.
pub(super) const BUCKET: &str = "proof";
/// A site that is stopped takes a connection and never answers.
const STATUS_LIMIT: Duration = Duration::from_secs(3);
/// Until both sites are well after whatever was done to them.
const HEALS_IN: Duration = Duration::from_mins(6);
/// Exposure of a writer that goes on.
const UNDER_WAY: (u64, u64) = (1 << 20, 2_000);

/// Two clusters.
pub(super) struct Ground<'a> {
    pub(super) clusters: &'a [Cluster; 2],
    pub(super) reach: Reach,
    pub(super) state: &'a State,
    /// Milliseconds since 1970 when the run began: in names and numbers that must be new.
    pub(super) run: u64,
}

impl<'a> Ground<'a> {
    /// The clusters as they were left by whatever ran before, with failover by itself and acknowledged in one site.
    pub(super) async fn prepare(
        table: &mut Table,
        state: &'a State,
        clusters: &'a [Cluster; 2],
    ) -> Result<Self> {
        let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
        let ground = Self { clusters, reach: Reach::new(&state.folder), state, run };
        for cluster in clusters {
            let declared = json!({"acknowledge": "OneSite", "failover": {"mode": "Automatic"}});
            spec::declare(cluster, &declared).await?;
        }
        ground.well(table).await?;
        ground.s3_by(&ground.reach.endpoints()?.s3, PATIENCE)?.create_bucket().await?;
        Ok(ground)
    }

    /// How a site is, if it answers soon.
    pub(super) async fn status(&self, site: &str) -> Result<SiteStatus> {
        let asked = tokio::time::timeout(STATUS_LIMIT, self.reach.status(site)).await;
        asked.with_context(|| format!("{site} does not answer in {STATUS_LIMIT:?}"))?
    }

    /// The active site and the passive one.
    pub(super) async fn sites(&self) -> Result<(&'a Cluster, &'a Cluster)> {
        let [one, other] = self.clusters;
        let roles = tokio::join!(self.status(one.site), self.status(other.site));
        let roles = (roles.0?.role, roles.1?.role);
        match (roles.0.as_str(), roles.1.as_str()) {
            ("active", "passive") => Ok((one, other)),
            ("passive", "active") => Ok((other, one)),
            _ => anyhow::bail!("{} is {}, {} is {}", one.site, roles.0, other.site, roles.1),
        }
    }

    /// A bucket by some endpoint.
    pub(super) fn bucket_by(
        &self,
        endpoint: &S3Endpoint,
        bucket: &str,
        patience: Duration,
    ) -> Result<Arc<S3Client>> {
        let http = diptych::client::http_client(&self.reach.data_dir)?;
        Ok(Arc::new(S3Client::new(http, endpoint, bucket, patience)?))
    }

    /// Bucket [`BUCKET`] by some endpoint.
    pub(super) fn s3_by(&self, endpoint: &S3Endpoint, patience: Duration) -> Result<Arc<S3Client>> {
        self.bucket_by(endpoint, BUCKET, patience)
    }

    /// The same by a site's own gateways, whoever is active.
    pub(super) fn s3_of(&self, site: &str, patience: Duration) -> Result<Arc<S3Client>> {
        let endpoints = self.reach.endpoints()?;
        let endpoint = site_of(&endpoints, site)?.s3.clone();
        self.s3_by(&S3Endpoint { endpoint, ..endpoints.s3.clone() }, patience)
    }

    /// The same by the public name.
    pub(super) fn s3(&self) -> Result<Arc<S3Client>> {
        self.s3_by(&self.reach.endpoints()?.s3, PATIENCE)
    }

    /// Waits until the gateways of both sites give these bytes, each by itself; their SHA-256.
    pub(super) async fn read_in_both(&self, key: &str, bytes: &Bytes) -> Result<String> {
        let wanted = sha256(bytes);
        for cluster in self.clusters {
            let s3 = self.s3_of(cluster.site, Duration::ZERO)?;
            until(&format!("{} reads {key}", cluster.site), Duration::from_mins(1), || async {
                let found = sha256(&s3.get(key).await?.bytes().await?);
                ensure!(found == wanted, "SHA-256 {found}, {wanted} was stored");
                Ok(Ok(()))
            })
            .await?;
        }
        Ok(format!("SHA-256 {}… by both sites' gateways", &wanted[..12]))
    }

    /// Waits until the gateways of both sites answer 404.
    pub(super) async fn gone_in_both(&self, key: &str) -> Result<()> {
        for cluster in self.clusters {
            let s3 = self.s3_of(cluster.site, Duration::ZERO)?;
            until(&format!("{} has no {key} any more", cluster.site), Duration::from_mins(1), || async {
                Ok(refusal(s3.get(key).await, 404, "NoSuchKey").map(drop))
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until one site is active and the other follows, and nothing is left to be put right.
    pub(super) async fn until_well(&self) -> Result<String> {
        until("both sites are well", HEALS_IN, || async {
            let (active, passive) = self.sites().await?;
            let (here, there) = (self.status(active.site).await?, self.status(passive.site).await?);
            Ok(match trouble(&here, &there) {
                None => Ok(format!("{} is active, epoch {}", active.site, here.epoch)),
                Some(trouble) => Err(trouble),
            })
        })
        .await
    }

    /// The same, as a step of its own.
    pub(super) async fn well(&self, table: &mut Table) -> Result<()> {
        table.step("both sites are well", async { Ok(((), self.until_well().await?)) }).await
    }

    /// Shows what was seen where a proof has failed; the table has counted it.
    pub(super) async fn told(&self, outcome: Result<()>) {
        let Err(error) = outcome else { return };
        println!("FAILED: {error:#}");
        for cluster in self.clusters {
            println!("--- {}: {:?}", cluster.site, self.status(cluster.site).await);
            for words in [
                &["get", spec::OBJECT, "-o", "yaml"][..],
                &["get", "storagenodes,accesskeys,failoverdrills,pods", "-o", "wide"],
                &["get", "events", "--sort-by=.lastTimestamp"],
                &["logs", "-l", "app.kubernetes.io/component=operator", "--prefix", "--tail=60"],
                &["logs", "-l", "app.kubernetes.io/component=gateway", "--prefix", "--tail=20"],
            ] {
                show(cluster, words).await;
            }
        }
    }
}

/// Lines of it, the newest; what can't be asked for says so.
async fn show(cluster: &Cluster, words: &[&str]) {
    const LINES: usize = 220;
    println!("--- {}: kubectl {}", cluster.site, words.join(" "));
    let asked = [words, &["--request-timeout=10s"]].concat();
    match cluster.kubectl(&asked).await {
        Ok(said) => {
            let lines: Vec<&str> = said.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
        }
        Err(error) => println!("{error:#}"),
    }
}

/// What is not as it shall be between two faults.
fn trouble(active: &SiteStatus, passive: &SiteStatus) -> Option<String> {
    if active.epoch != passive.epoch {
        return Some(format!("epochs {} and {}", active.epoch, passive.epoch));
    }
    for status in [active, passive] {
        let site = &status.site;
        let silent = |state: &str| matches!(state, "silent" | "waiting");
        if let Some(node) = status.nodes.iter().find(|node| silent(&node.state)) {
            return Some(format!("{} of {site} is {}", node.name, node.state));
        }
        let (lease, queue) = (&status.lease, status.repair.queue());
        if !lease.peer_connected || !lease.witness_reachable || status.name_trouble.is_some() || queue > 0 {
            return Some(format!("{site}: {lease:?}, {:?}, {queue} to repair", status.name_trouble));
        }
    }
    let (bytes, age_ms) = UNDER_WAY;
    let exposed = active.exposure.as_ref().is_none_or(|now| now.bytes >= bytes || now.age_ms >= age_ms);
    (exposed || passive.health.wanted >= 8)
        .then(|| format!("{:?}, {} wanted", active.exposure, passive.health.wanted))
}

/// The body of an answer that refuses with this status and word, or what came instead.
pub(super) fn refusal<T>(outcome: Result<T>, status: u16, word: &str) -> Result<String, String> {
    let Err(error) = outcome else {
        return Err(format!("it was done, {status} {word} was expected"));
    };
    match error.downcast_ref::<Refused>() {
        Some(refused) if refused.status.as_u16() == status && refused.body.contains(word) => {
            Ok(refused.body.clone())
        }
        _ => Err(format!("{error:#}")),
    }
}

/// Bytes that nothing compresses.
pub(super) fn random(length: usize) -> Result<Bytes> {
    use std::io::Read;
    let mut bytes = vec![0; length];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.into())
}

/// In hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// What was changed is put back, whatever came of the look at it.
pub(super) async fn then_put_back<T>(
    look: impl Future<Output = Result<T>>,
    put_back: impl Future<Output = Result<()>>,
) -> Result<T> {
    let (seen, back) = (look.await, put_back.await);
    match (seen, back) {
        (seen, Ok(())) => seen,
        (Ok(_), Err(error)) => Err(error.context("it could not be put back")),
        (Err(seen), Err(error)) => Err(seen.context(format!("it could not be put back either: {error:#}"))),
    }
}
