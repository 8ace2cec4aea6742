//! Who said that he holds the lease, and when: asked of both sites all the while, as a load balancer asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::demo::reach::{Reach, site_of};

/// Between two questions to a site.
const PACE: Duration = Duration::from_millis(50);
/// A site that is stopped or cut off is asked again after this.
const LIMIT: Duration = Duration::from_secs(1);

/// A site's word that its lease runs: so it was at some moment between question and answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Who said so.
    pub site: &'static str,
    /// Of which term.
    pub epoch: u64,
    /// When it was asked.
    pub asked: Instant,
    /// When the answer was here.
    pub answered: Instant,
}

/// Asks both sites until it is stopped.
pub struct LeaseWatch {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<Held>>>,
}

impl LeaseWatch {
    /// Begins.
    pub fn start(reach: &Reach, sites: [&'static str; 2]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let endpoints = reach.endpoints()?;
        let mut tasks = Vec::new();
        for site in sites {
            let url = format!("{}/lease", site_of(&endpoints, site)?.rest);
            let http = diptych::client::http_client(&reach.data_dir)?;
            let ends = Arc::clone(&stop);
            tasks.push(tokio::spawn(async move {
                let mut said = Vec::new();
                while !ends.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    // A connection of its own each time, so that each of the site's gateways is asked.
                    let question = http.get(&url).header("connection", "close").timeout(LIMIT).send();
                    if let Ok(answer) = question.await
                        && answer.status().is_success()
                        && let Ok(body) = answer.bytes().await
                        && let Ok(body) = serde_json::from_slice::<Value>(&body)
                        && let Some(epoch) = body["epoch"].as_u64()
                    {
                        said.push(Held { site, epoch, asked, answered: Instant::now() });
                    }
                    tokio::time::sleep(PACE).await;
                }
                said
            }));
        }
        Ok(Self { stop, tasks })
    }

    /// Ends it; what was said.
    pub async fn stop(self) -> Result<Vec<Held>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut said = Vec::new();
        for task in self.tasks {
            said.extend(task.await?);
        }
        Ok(said)
    }
}

/// Never two holders at a time: a term has one site, and once somebody has answered for a newer term nobody who is asked later answers
/// for an older one. What was seen, in a few words.
///
/// # Errors
/// The two answers that can't both be right.
pub fn one_holder_at_a_time(said: &[Held]) -> Result<String> {
    let mut terms: BTreeMap<u64, Vec<&Held>> = BTreeMap::new();
    for held in said {
        terms.entry(held.epoch).or_default().push(held);
    }
    ensure!(!terms.is_empty(), "no site has ever said that it holds the lease");
    let mut seen = Vec::new();
    let mut older: Option<&Held> = None;
    for (epoch, term) in &terms {
        let sites: BTreeSet<&str> = term.iter().map(|held| held.site).collect();
        ensure!(sites.len() == 1, "under epoch {epoch} the lease was held by {sites:?}");
        let Some(first) = term.iter().min_by_key(|held| held.answered) else { continue };
        if let Some(older) = older {
            let overlap = older.asked.saturating_duration_since(first.answered);
            ensure!(
                overlap.is_zero(),
                "{} still held epoch {} {overlap:?} after {} had epoch {epoch}",
                older.site,
                older.epoch,
                first.site
            );
        }
        let last = term.iter().copied().max_by_key(|held| held.asked);
        older = older.into_iter().chain(last).max_by_key(|held| held.asked);
        seen.push(format!("epoch {epoch} {}", term[0].site));
    }
    Ok(format!("{} answers of /lease, one holder at a time: {}", said.len(), seen.join(", ")))
}
