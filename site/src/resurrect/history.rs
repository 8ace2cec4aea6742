//! The newest whole checkpoint and the journals behind it: found, tried, and read again into a catalog.

use std::collections::BTreeMap;
use std::ops::Range;

use diptych_catalog::Catalog;
use diptych_core::ids::{Epoch, ExtentId};
use diptych_core::journal::{Document, FOUND_WITHIN, Found, Gap, tile, walk};
use diptych_core::keyring::Keyring;
use diptych_core::keys::Key;
use diptych_core::records::{ExtentKind, Holds, Position};

use super::ResurrectError;
use super::extent::{FoundExtent, list};
use super::fragments::Fragments;
use super::load::Loader;
use super::report::Report;

const FOUND_WITHIN_MS: u64 = FOUND_WITHIN.as_millis() as u64;

/// All that is known of a catalog's role-owned keys.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The checkpoint's term, what it shows, and its parts in order.
    pub(super) checkpoint: Option<(Epoch, Position)>,
    pub(super) parts: Vec<FoundExtent>,
    /// In the order in which they are applied.
    pub(super) journals: Vec<FoundExtent>,
    pub(super) gaps: Vec<Gap>,
    /// Where it ends.
    pub(super) upto: Option<Position>,
    /// When the newest of all was written, milliseconds since 1970.
    pub(super) ended_ms: u64,
    /// When extents were begun that only what is missing would tell of, milliseconds since 1970.
    pub(super) missing_ms: Option<Range<u64>>,
    /// The newest term of all.
    pub(super) epoch: Epoch,
}

/// What an extent may be that the history does not know, by when it was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Deleted, or never acknowledged.
    Gone,
    /// That, or acknowledged in a stretch that is missing.
    Missing,
    /// Acknowledged after the history's end, or not at all.
    New,
}

impl History {
    /// Finds the newest that is whole. Everything of it was read and opened when this returns.
    pub(super) async fn find(source: &dyn Fragments, keyring: &Keyring, report: &mut Report) -> Self {
        let mut history = Self::default();
        history.find_checkpoint(source, keyring, report).await;
        history.find_journals(source, keyring, report).await;
        // A checkpoint shows what was before its first part was written.
        let shown = history.parts.iter().map(born_ms).min();
        let told = history.journals.iter().map(born_ms).max();
        history.ended_ms = shown.max(told).unwrap_or_default();
        history.missing_ms = history.missing();
        let epochs = history.extents().map(|extent| extent.facts.birth_epoch);
        history.epoch = epochs.max().unwrap_or_default();
        history
    }

    fn extents(&self) -> impl Iterator<Item = &FoundExtent> {
        self.parts.iter().chain(&self.journals)
    }

    /// From the last that is known before the first gap to the first that is known behind the last one.
    fn missing(&self) -> Option<Range<u64>> {
        let (first, last) = (self.gaps.first()?, self.gaps.last()?);
        let since = first.after.and_then(|after| {
            let before = self.extents().filter(|extent| extent.holds().last_position() == Some(after));
            before.map(born_ms).min()
        });
        let behind = self.journals.iter().filter(|extent| extent.holds().first_position() == Some(last.next));
        let until = behind.map(born_ms).max().unwrap_or(self.ended_ms);
        Some(since.unwrap_or_default().saturating_sub(FOUND_WITHIN_MS)..until)
    }

    /// What an extent may be that was begun then (milliseconds since 1970), and that is not in it.
    pub(super) fn unknown(&self, born_ms: u64) -> Unknown {
        if born_ms >= self.ended_ms.saturating_sub(FOUND_WITHIN_MS) {
            Unknown::New
        } else if self.missing_ms.as_ref().is_some_and(|missing| missing.contains(&born_ms)) {
            Unknown::Missing
        } else {
            Unknown::Gone
        }
    }

    async fn find_checkpoint(&mut self, source: &dyn Fragments, keyring: &Keyring, report: &mut Report) {
        let mut checkpoints: BTreeMap<(Epoch, u64, u64), Vec<FoundExtent>> = BTreeMap::new();
        for extent in list(source, ExtentKind::Checkpoint, report).await.into_values() {
            if let Holds::Checkpoint(at) = extent.holds() {
                let key = (extent.facts.birth_epoch, at.revision, at.incarnation);
                checkpoints.entry(key).or_default().push(extent);
            }
        }
        for ((epoch, revision, incarnation), parts) in checkpoints.into_iter().rev() {
            match whole(source, keyring, parts).await {
                Ok(parts) => {
                    self.checkpoint = Some((epoch, Position { incarnation, revision }));
                    self.parts = parts;
                    return;
                }
                Err(reason) => report.troubles.push(format!(
                    "the checkpoint of epoch {epoch} at revision {revision} is not whole: {reason}"
                )),
            }
        }
    }

    /// A journal that does not open is one that is missing: others may hold the same.
    async fn find_journals(&mut self, source: &dyn Fragments, keyring: &Keyring, report: &mut Report) {
        let mut found: BTreeMap<ExtentId, (Found, FoundExtent)> = BTreeMap::new();
        for (id, extent) in list(source, ExtentKind::Journal, report).await {
            if let Holds::Journal(span) = extent.holds() {
                found.insert(id, (Found { epoch: extent.facts.birth_epoch, span }, extent));
            }
        }
        let mut opened: BTreeMap<ExtentId, bool> = BTreeMap::new();
        loop {
            let usable: Vec<(&ExtentId, &(Found, FoundExtent))> =
                found.iter().filter(|(id, _)| opened.get(id) != Some(&false)).collect();
            let heads: Vec<Found> = usable.iter().map(|(_, (head, _))| *head).collect();
            let way = walk(self.checkpoint, &heads);
            let mut failed = false;
            for &index in &way.order {
                let (id, (_, extent)) = usable[index];
                if !opened.contains_key(id) {
                    let outcome = extent.open(source, keyring).await;
                    failed |= outcome.is_err();
                    opened.insert(*id, outcome.is_ok());
                    report.troubles.extend(outcome.err());
                }
            }
            if !failed {
                self.journals = way.order.iter().map(|&index| usable[index].1.1.clone()).collect();
                (self.gaps, self.upto) = (way.gaps, way.upto);
                // Those that did not open may have led on.
                let all: Vec<Found> = found.values().map(|(head, _)| *head).collect();
                if let Some(next) = walk(self.checkpoint, &all).upto.filter(|end| Some(*end) != self.upto) {
                    self.gaps.push(Gap { after: self.upto, next });
                }
                return;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.journals.is_empty()
    }

    /// Writes all of it into a catalog, in order.
    pub(super) async fn load(
        &self,
        source: &dyn Fragments,
        keyring: &Keyring,
        catalog: &dyn Catalog,
    ) -> Result<(), ResurrectError> {
        let mut loader = Loader::new(catalog);
        for extent in self.extents() {
            for (key, value) in changes(source, keyring, extent).await? {
                loader.set(key, value.map(Into::into)).await?;
            }
        }
        loader.finish().await
    }
}

fn born_ms(extent: &FoundExtent) -> u64 {
    extent.facts.birth_hlc.milliseconds()
}

/// Keys with their new values, as one extent tells.
pub(super) async fn changes(
    source: &dyn Fragments,
    keyring: &Keyring,
    extent: &FoundExtent,
) -> Result<Vec<(Key, Option<Vec<u8>>)>, ResurrectError> {
    // It opened a moment ago.
    match extent.open(source, keyring).await.map_err(ResurrectError::Gap)? {
        Document::Checkpoint(part) => {
            Ok(part.entries.into_iter().map(|(key, value)| (key, Some(value))).collect())
        }
        Document::Journal(journal) => Ok(journal.changes),
    }
}

/// The parts in order, if all of them open and tile the key space.
async fn whole(
    source: &dyn Fragments,
    keyring: &Keyring,
    parts: Vec<FoundExtent>,
) -> Result<Vec<FoundExtent>, String> {
    let mut opened = Vec::new();
    let mut reasons = Vec::new();
    for extent in parts {
        match extent.open(source, keyring).await {
            Ok(Document::Checkpoint(part)) => opened.push(((part.from, part.to), extent)),
            Ok(Document::Journal(_)) => {}
            Err(reason) => reasons.push(reason),
        }
    }
    let (tiles, extents): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
    let order = tile(&tiles).ok_or_else(|| {
        let missing = format!("{} parts opened, some are missing", extents.len());
        [vec![missing], reasons].concat().join("; ")
    })?;
    Ok(order.into_iter().map(|index: usize| extents[index].clone()).collect())
}
