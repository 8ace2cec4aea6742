//! One extent of which fragments were found.

use std::collections::BTreeMap;

use diptych_core::ids::{ExtentId, SiteName};
use diptych_core::journal::{Document, open};
use diptych_core::keyring::Keyring;
use diptych_core::records::{ExtentKind, Holds, PlacedRow};
use diptych_core::whole;
use diptych_wire::agent::ExtentFacts;
use futures::StreamExt;

use super::fragments::{Fragment, Fragments};
use super::report::Report;

/// An extent's fragments: at least one.
#[derive(Debug, Clone)]
pub(super) struct FoundExtent {
    pub(super) facts: ExtentFacts,
    pub(super) fragments: Vec<Fragment>,
}

/// All extents of a kind, but for objects' bytes: those are too many. What does not read is told to `report`.
pub(super) async fn list(
    source: &dyn Fragments,
    kind: ExtentKind,
    report: &mut Report,
) -> BTreeMap<ExtentId, FoundExtent> {
    let mut found = BTreeMap::new();
    let mut records = source.records(kind);
    while let Some(record) = records.next().await {
        match record {
            Ok(fragment) => FoundExtent::add(&mut found, fragment),
            Err(reason) => report.note(reason),
        }
    }
    found
}

impl FoundExtent {
    pub(super) fn add(found: &mut BTreeMap<ExtentId, Self>, fragment: Fragment) {
        let facts = fragment.facts.clone();
        let extent = found.entry(facts.extent).or_insert_with(|| Self { facts, fragments: Vec::new() });
        // A record that contradicts the others is none of this extent's.
        if extent.facts == fragment.facts {
            extent.fragments.push(fragment);
        }
    }

    /// Its bytes: from k rows, or others where these do not read or lie.
    pub(super) async fn read(&self, source: &dyn Fragments) -> Result<Vec<u8>, String> {
        let ExtentFacts { extent, needed, length, hash, .. } = self.facts;
        let mut rows = Vec::new();
        let mut reasons = Vec::new();
        for fragment in &self.fragments {
            if rows.iter().any(|(row, _)| *row == fragment.placed.row) {
                continue;
            }
            match source.read(fragment).await {
                Ok(bytes) => rows.push((fragment.placed.row, bytes)),
                Err(reason) => reasons.push(reason),
            }
            if rows.len() >= usize::from(needed)
                && let Some(bytes) = whole::recover(needed, u64::from(length), &hash, &rows)
            {
                return Ok(bytes);
            }
        }
        let present = rows.len();
        let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
        Err(format!(
            "extent {extent}: {present} rows read and {needed} that fit its hash are needed{reasons}"
        ))
    }

    /// What it holds, if that is what the heads of its records say.
    pub(super) async fn open(&self, source: &dyn Fragments, keyring: &Keyring) -> Result<Document, String> {
        let bytes = self.read(source).await?;
        let extent = self.facts.extent;
        let document = open(&bytes, extent, keyring).map_err(|error| format!("extent {extent}: {error}"))?;
        // FENCING: the heads only say where to look; what counts is what was sealed.
        let same = document.holds() == self.facts.holds && document.writer().epoch == self.facts.birth_epoch;
        same.then_some(document).ok_or_else(|| format!("extent {extent} is not what its records say"))
    }

    /// Where its rows are, by site: each row once.
    pub(super) fn rows(&self) -> BTreeMap<SiteName, Vec<PlacedRow>> {
        let mut rows: BTreeMap<_, Vec<PlacedRow>> = BTreeMap::new();
        for fragment in &self.fragments {
            let here = rows.entry(fragment.site.clone()).or_default();
            if !here.iter().any(|placed| placed.row == fragment.placed.row) {
                here.push(fragment.placed);
            }
        }
        for placed in rows.values_mut() {
            placed.sort_by_key(|placed| placed.row);
        }
        rows
    }

    pub(super) const fn holds(&self) -> Holds {
        self.facts.holds
    }
}
