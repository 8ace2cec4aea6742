//! Versions are switched to a new extent that is whole in both sites.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, View, Write};
use diptych_core::compaction::Recipe;
use diptych_core::ids::{Epoch, ExtentId};
use diptych_core::keys::{self, Key};
use diptych_core::records::{DeadMark, Extent, ExtentState, Head, HeadBody, Record};

use super::choose::is_in;
use super::names::{Named, movable};
use crate::collector::Batches;
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::survey::each;

/// A new extent, and what may be switched to it.
#[derive(Debug)]
pub(super) struct Filling {
    extent: ExtentId,
    /// `x/` as it was read.
    raw: Bytes,
    record: Extent,
    recipe: Recipe,
    versions: Vec<Version>,
}

/// A version whose bytes were copied.
#[derive(Debug)]
struct Version {
    key: Key,
    raw: Bytes,
    /// Of its object, where that is another key.
    head: Option<(Key, Option<Bytes>)>,
    blobs: Vec<Named>,
}

/// What came of a new extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is like any other now; so many versions were switched.
    Done(u64),
    /// The other site has no placement of it.
    Waits,
}

/// All new extents that are not done.
pub(super) fn look(view: &dyn View) -> Result<Vec<Filling>, SiteError> {
    let mut filling = Vec::new();
    each(view, &keys::extents(), |key, value| {
        // The format's byte tells, so that not every extent is read whole.
        if value.first() == Some(&Extent::FORMAT)
            && let Some(extent) = keys::extent_of(key)
            && let record = Extent::decode(value)?
            && let ExtentState::Compacting(recipe) = record.state.clone()
        {
            filling.push(Filling { extent, raw: value.clone(), record, recipe, versions: Vec::new() });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let ranges = filling.iter().flat_map(|one| &one.recipe.ranges);
    let sources: BTreeSet<ExtentId> = ranges.map(|range| range.extent).collect();
    if sources.is_empty() {
        return Ok(filling);
    }
    let live = movable(view, &sources)?;
    for one in &mut filling {
        one.versions = versions(view, &one.recipe, &live)?;
    }
    Ok(filling)
}

fn versions(view: &dyn View, recipe: &Recipe, live: &[Named]) -> Result<Vec<Version>, SiteError> {
    let mut by_key: BTreeMap<&Key, Vec<Named>> = BTreeMap::new();
    for named in live.iter().filter(|named| recipe.offset_of(&named.piece).is_some()) {
        by_key.entry(&named.version.0).or_default().push(named.clone());
    }
    let mut versions = Vec::with_capacity(by_key.len());
    for (key, blobs) in by_key {
        let Some(raw) = blobs.first().map(|named| named.version.1.clone()) else { continue };
        if !moves_with_all(recipe, &raw, blobs.len())? {
            continue;
        }
        let of_conflict = || keys::object_of_conflict(key).map(|(bucket, name, _)| (bucket, name));
        let Some((bucket, name)) = keys::bucket_and_object(key).or_else(of_conflict) else { continue };
        let head = keys::head(bucket, &name);
        let head = if head == *key { None } else { Some((head.clone(), view.get(&head)?)) };
        versions.push(Version { key: key.clone(), raw, head, blobs });
    }
    Ok(versions)
}

/// Whether the blobs of a version that were copied are still all its own.
fn moves_with_all(recipe: &Recipe, raw: &Bytes, blobs: usize) -> Result<bool, SiteError> {
    let HeadBody::Object(object) = Head::decode(raw)?.body else { return Ok(false) };
    let diptych_core::records::Content::Inline(named) = &object.content else { return Ok(false) };
    let pieces = named.iter().flat_map(|blob| &blob.pieces);
    Ok(pieces.filter(|piece| recipe.offset_of(piece).is_some()).count() == blobs)
}

impl Filling {
    /// Switches what is still as it was seen, and makes the extent one like any other.
    ///
    /// FENCING (compaction in an unseen term is dropped): only called when the other site has confirmed a position at which this extent,
    /// and each of these versions with just these bytes, stood; and the journal holds it. So whoever takes over, or resurrects, knows
    /// both, and a switch that it did not see names what it has: the version stays as it is there, and nothing is lost.
    pub(super) async fn switch(
        self,
        context: &SiteContext,
        epoch: Epoch,
        view: &dyn View,
    ) -> Result<Outcome, SiteError> {
        let is_here = is_in(view, &context.site, self.extent)?;
        if let Some(peer) = context.peer.as_ref().filter(|_| is_here)
            && !is_in(view, peer, self.extent)?
        {
            return Ok(Outcome::Waits);
        }
        let mut batches = Batches::new(context, epoch);
        // Of another site's term, and its bytes never came: nothing names it, and all of it has marks.
        if is_here {
            let mut heads: BTreeMap<&Key, Bytes> = BTreeMap::new();
            for version in &self.versions {
                if let Some((change, now)) = self.change(version, &heads)? {
                    batches.add(change).await?;
                    heads.insert(&version.key, now);
                }
            }
        }
        let switched = batches.commit().await?;
        let done = Extent { state: ExtentState::Live, ..self.record };
        let key = keys::extent(self.extent);
        let change = Change {
            guards: vec![Guard { key: key.clone(), expect: Expect::Value(self.raw) }],
            writes: vec![Write::Put(key, Bytes::from(done.encode()))],
        };
        // FENCING (nothing is freed that is named): last. The collector leaves it alone until then, and nothing is switched to it
        // afterwards: each switch asks for the record of an extent that is being filled.
        if context.catalog.commit(Batch::one(Some(epoch), change)).await?.all_applied() {
            Ok(Outcome::Done(switched))
        } else {
            Err(SiteError::Changed)
        }
    }

    /// What switches one version, and what it says then; `heads`: what was switched before it.
    ///
    /// FENCING (a version that changed meanwhile keeps its own): compared with the version as it was seen, and with the head of its
    /// object, which changes with whatever makes another version name the same bytes. The mark on the new bytes goes and the one on
    /// the old comes in this change.
    fn change(
        &self,
        version: &Version,
        heads: &BTreeMap<&Key, Bytes>,
    ) -> Result<Option<(Change, Bytes)>, SiteError> {
        let Some(moved) = self.recipe.moved(self.extent, &Head::decode(&version.raw)?) else {
            return Ok(None);
        };
        let now = Bytes::from(moved.encode());
        let is = |key: &Key, value: Bytes| Guard { key: key.clone(), expect: Expect::Value(value) };
        let mut guards =
            vec![is(&keys::extent(self.extent), self.raw.clone()), is(&version.key, version.raw.clone())];
        if let Some((key, seen)) = &version.head {
            let expected = heads.get(key).or(seen.as_ref());
            guards.push(Guard {
                key: key.clone(),
                expect: expected.map_or(Expect::Absent, |raw| Expect::Value(raw.clone())),
            });
        }
        let mut writes = vec![Write::Put(version.key.clone(), now.clone())];
        for Named { blob, piece, .. } in &version.blobs {
            let mark = DeadMark { sealed: u64::from(piece.sealed) };
            writes.push(Write::Put(keys::dead_mark(piece.extent, *blob), Bytes::from(mark.encode())));
            writes.push(Write::Delete(keys::dead_mark(self.extent, *blob)));
        }
        Ok(Some((Change { guards, writes }, now)))
    }
}
