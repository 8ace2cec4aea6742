//! A rehearsal: what a resurrection would give, compared with a sample of the catalog that is there. Drills call it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Catalog, View};
use diptych_core::journal::is_recorded;
use diptych_core::keyring::{ClusterKeys, Keyring};
use diptych_core::keys::{Key, KeyRange};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::fragments::Fragments;
use super::history::{History, changes};
use super::report::Report;
use super::{ResurrectError, keyring};
use crate::survey::each;

/// What differs is looked at again so often: the journal follows the catalog by a second, and rows of it cross later.
const ROUNDS: usize = 6;
const PAUSE: Duration = Duration::from_secs(2);

/// What a rehearsal found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// Checkpoint, journals, gaps, and what did not read; counts of what would be made are left at zero.
    pub report: Report,
    /// Keys that were compared.
    pub sampled: u64,
    /// Of these, those that would be as they are.
    pub same: u64,
    /// Those that were changed while they were looked at, so that nothing can be said.
    pub changed: u64,
    /// Those that would be others, or missing.
    pub different: Vec<String>,
    /// Milliseconds that it took.
    pub took_ms: u64,
}

impl Rehearsal {
    /// Whether a resurrection would be whole and right.
    pub fn is_passed(&self) -> bool {
        self.different.is_empty() && self.report.gaps.is_empty() && self.report.upto.is_some()
    }
}

/// Reads checkpoint and journals as a resurrection would, all of them, and compares `sample` keys.
///
/// # Errors
/// No keyring, a wrong cluster key, nothing to make a catalog of; a catalog that can't be read.
pub async fn rehearse(
    catalog: &dyn Catalog,
    source: &dyn Fragments,
    cluster_keys: &ClusterKeys,
    sample: usize,
) -> Result<Rehearsal, ResurrectError> {
    let begun = Instant::now();
    let keyring = keyring(source, cluster_keys).await?;
    let mut open = sampled(catalog.view().await?.as_ref(), sample)?;
    let mut rehearsal = Rehearsal { sampled: open.len() as u64, ..Rehearsal::default() };
    for round in 0..ROUNDS {
        if round > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        rehearsal.report = Report::default();
        let history = History::find(source, &keyring, &mut rehearsal.report).await;
        rehearsal.report.note_history(&history);
        if history.is_empty() {
            return Err(ResurrectError::Nothing);
        }
        let made = made(source, &keyring, &history, &open).await?;
        let view = catalog.view().await?;
        let mut differing = BTreeMap::new();
        for (key, value) in open {
            let (now, made) = (view.get(&key)?, made.get(&key));
            if now.as_ref() == made {
                rehearsal.same += 1;
            } else if now.as_ref() == Some(&value) {
                differing.insert(key, value);
            } else {
                rehearsal.changed += 1;
            }
        }
        open = differing;
        // A journal that is being written just now is a gap, and none a moment later.
        if open.is_empty() && rehearsal.report.gaps.is_empty() {
            break;
        }
    }
    rehearsal.different = open.keys().map(|key| format!("{key:?}")).collect();
    rehearsal.took_ms = begun.elapsed().as_millis() as u64;
    Ok(rehearsal)
}

/// So many recorded keys, each as likely as any other (reservoir sampling, Vitter's algorithm R).
fn sampled(view: &dyn View, sample: usize) -> Result<BTreeMap<Key, Bytes>, ResurrectError> {
    let all = KeyRange { start: Key(Vec::new()), end: Key(vec![0xff; 64]) };
    let mut chosen: Vec<(Key, Bytes)> = Vec::new();
    let mut seen = 0;
    each(view, &all, |key, value| {
        if is_recorded(key, Some(value))? {
            seen += 1;
            let place = rand::rng().random_range(0..seen);
            if chosen.len() < sample {
                chosen.push((key.clone(), value.clone()));
            } else if let Some(replaced) = chosen.get_mut(place) {
                *replaced = (key.clone(), value.clone());
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(chosen.into_iter().collect())
}

/// What the keys of `wanted` would be.
async fn made(
    source: &dyn Fragments,
    keyring: &Keyring,
    history: &History,
    wanted: &BTreeMap<Key, Bytes>,
) -> Result<BTreeMap<Key, Bytes>, ResurrectError> {
    let mut made = BTreeMap::new();
    for extent in history.parts.iter().chain(&history.journals) {
        for (key, value) in changes(source, keyring, extent).await? {
            match value {
                Some(value) if wanted.contains_key(&key) => drop(made.insert(key, Bytes::from(value))),
                Some(_) => {}
                None => drop(made.remove(&key)),
            }
        }
    }
    Ok(made)
}
