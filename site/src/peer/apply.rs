//! Taking entries of the peer's feed into the own catalog, in one transaction with the cursor.

use std::collections::BTreeMap;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, FeedEntry, Guard, Limits, View, Write, is_mirrored};
use diptych_core::ids::SiteName;
use diptych_core::keys::{self, Key};
use diptych_core::lease::{Admission, SiteRecord};
use diptych_core::records::{Cursor, Extent, ExtentKind, ExtentState, Position, Record, Wanted};
use diptych_wire::peer::TermLabel;

use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::keeper::record;
use crate::peer::each_lacking;
use crate::peer::reached::Known;

/// Keys that one transaction writes besides what it mirrors: `n/`, the record of this site, the cursor.
const OWN_WRITES: usize = 500;

/// What a transaction takes in.
pub(crate) struct Taken {
    /// Entries that are in it, from the first on.
    pub entries: usize,
    /// The cursor as it is now, and where it was written.
    pub known: Known,
    /// The site's record, where the peer's term raised it: for the keeper.
    pub raised: Option<SiteRecord>,
}

/// Why entries were not taken.
pub(crate) enum NotTaken {
    /// The own vote is of a later term.
    OldTerm,
    /// The own record or cursor changed meanwhile: look again.
    Changed,
}

/// Whether an entry has anything that this site mirrors, but for the peer's cursor.
pub(crate) fn concerns(entry: &FeedEntry, from: &SiteName, term: Option<TermLabel>) -> bool {
    let cursor = keys::cursor(from);
    let mirrored = |key: &Key| *key != cursor && is_mirrored(key, from, role_owned(entry.position, term));
    entry.changes.iter().any(|(key, _)| mirrored(key))
}

/// Mirrors the newest of the peer's cursors alone, without moving the own one: else each site would answer the other's
/// cursor with its own for ever.
pub(crate) async fn mirror_cursor(
    context: &SiteContext,
    from: &SiteName,
    entries: &mut [FeedEntry],
) -> Result<(), SiteError> {
    let key = keys::cursor(from);
    let mut newest = None;
    for entry in entries {
        for (_, value) in entry.changes.extract_if(.., |(changed, _)| *changed == key) {
            newest = value;
        }
    }
    if let Some(value) = newest {
        context.catalog.commit(Batch::one(None, Change::blind(vec![Write::Put(key, value)]))).await?;
    }
    Ok(())
}

/// Role-owned keys are taken from what stands behind the beginning of the sender's term.
fn role_owned(position: Position, term: Option<TermLabel>) -> bool {
    term.is_some_and(|term| position > term.begun_at && position.incarnation == term.begun_at.incarnation)
}

/// Commits as many of `entries` as fit, with the cursor behind them: confirmed up to the first extent that is not here.
///
/// FENCING (what two sites acknowledged survives): the transaction compares this site's whole record, vote and gate among
/// it, and raises it where the peer's term is newer; what is older than the vote is refused.
pub(crate) async fn apply(
    context: &SiteContext,
    from: &SiteName,
    term: Option<TermLabel>,
    entries: &[FeedEntry],
    known: &Known,
) -> Result<Result<Taken, NotTaken>, SiteError> {
    let site = &context.site;
    let cursor = &known.cursor;
    // What others may have changed since is compared in the transaction.
    let view = context.catalog.view_from(known.seen).await?;
    let own = record::read(view.as_ref(), site)?;
    let raised = match term.map(|term| own.admit(term.epoch, from)) {
        None | Some(Admission::Take) => None,
        Some(Admission::TakeRaising(raised)) => Some(raised),
        Some(Admission::Refuse { .. }) => return Ok(Err(NotTaken::OldTerm)),
    };
    let Some(mut guards) = record::unchanged(view.as_ref(), site, &own)? else {
        return Ok(Err(NotTaken::Changed));
    };
    let cursor_key = keys::cursor(site);
    let stored = view.get(&cursor_key)?;
    if stored.as_deref().map(Cursor::decode).transpose()?.unwrap_or_default() != *cursor {
        return Ok(Err(NotTaken::Changed));
    }
    guards.push(Guard { key: cursor_key.clone(), expect: stored.map_or(Expect::Absent, Expect::Value) });

    let mut newest: BTreeMap<Key, Option<Bytes>> = BTreeMap::new();
    let (mut taken, mut bytes) = (0, 0);
    let mut applied = cursor.applied;
    for entry in entries {
        let active = role_owned(entry.position, term);
        let mirrored = || entry.changes.iter().filter(|(key, _)| is_mirrored(key, from, active));
        bytes +=
            mirrored().map(|(key, value)| key.0.len() + value.as_ref().map_or(0, Bytes::len)).sum::<usize>();
        let full = bytes > Limits::ACTIVE.bytes
            || newest.len() + mirrored().count() + OWN_WRITES > Limits::UNFENCED.writes;
        if full && taken > 0 {
            break;
        }
        for (key, value) in mirrored() {
            want(view.as_ref(), site, key, value.as_ref(), entry.position, &mut newest)?;
            newest.insert(key.clone(), value.clone());
        }
        applied = entry.position;
        taken += 1;
    }
    let confirmed = confirmed(view.as_ref(), site, &newest, applied, cursor.confirmed)?;
    let mut writes: Vec<Write> = newest.into_iter().map(|(key, value)| put_or_delete(key, value)).collect();
    writes.extend(raised.iter().flat_map(|raised| record::writes(site, raised)));
    let cursor = Cursor { applied, confirmed };
    writes.push(Write::Put(cursor_key, Bytes::from(cursor.encode())));
    let committed = context.catalog.commit(Batch::one(None, Change { guards, writes })).await?;
    Ok(if committed.all_applied() {
        Ok(Taken { entries: taken, known: Known { cursor, seen: committed.position }, raised })
    } else {
        Err(NotTaken::Changed)
    })
}

/// How far this site has all, once `changes` are made to what `view` shows; never less than `known`.
///
/// FENCING (nothing is freed that the peer lacks): an extent that is wanted here, or will be with `changes`, holds it back. Those
/// of journals and checkpoints don't: what they supersede stays here until they have come (`collector`).
pub(crate) fn confirmed(
    view: &dyn View,
    site: &SiteName,
    changes: &BTreeMap<Key, Option<Bytes>>,
    applied: Position,
    known: Position,
) -> Result<Position, SiteError> {
    let range = keys::all_wanted(site);
    let mut oldest = u64::MAX;
    each_lacking(view, site, |key, wanted| {
        if !changes.contains_key(key) {
            oldest = oldest.min(wanted.revision);
        }
    })?;
    for value in changes.range(range.start..range.end).filter_map(|(_, value)| value.as_ref()) {
        let wanted = Wanted::decode(value)?;
        if wanted.kind == ExtentKind::Data {
            oldest = oldest.min(wanted.revision);
        }
    }
    let now = Position { revision: applied.revision.min(oldest.saturating_sub(1)), ..applied };
    Ok(if known.incarnation == now.incarnation { known.max(now) } else { now })
}

/// An extent that is named and not here is wanted; one that goes is not any more.
pub(crate) fn want(
    view: &dyn View,
    site: &SiteName,
    key: &Key,
    value: Option<&Bytes>,
    position: Position,
    writes: &mut BTreeMap<Key, Option<Bytes>>,
) -> Result<(), SiteError> {
    let Some(extent) = keys::extent_of(key).filter(|_| key.0.starts_with(b"x/")) else { return Ok(()) };
    let wanted = keys::wanted(site, extent);
    let record = value.map(|raw| Extent::decode(raw)).transpose()?;
    match record {
        Some(record) if record.state != ExtentState::Condemned => {
            let here = view.get(&keys::placement(site, extent))?.is_some() || view.get(&wanted)?.is_some();
            let ours = record.rows.iter().any(|(name, _, count)| name == site && *count > 0);
            if !here && ours {
                let note = Wanted {
                    kind: record.holds.kind(),
                    bytes: record.length,
                    since_ms: now_ms(),
                    revision: position.revision,
                };
                writes.insert(wanted, Some(Bytes::from(note.encode())));
            }
        }
        Some(_) | None => {
            writes.insert(wanted, None);
        }
    }
    Ok(())
}

/// As [`want`], for what comes outside of a feed: it holds the confirmed position back from its very beginning.
pub(crate) fn want_all(
    view: &dyn View,
    site: &SiteName,
    key: &Key,
    value: Option<&Bytes>,
    writes: &mut BTreeMap<Key, Option<Bytes>>,
) -> Result<(), SiteError> {
    want(view, site, key, value, Position { incarnation: 0, revision: 1 }, writes)
}

/// A write of a key's new state.
pub(crate) fn put_or_delete(key: Key, value: Option<Bytes>) -> Write {
    match value {
        Some(value) => Write::Put(key, value),
        None => Write::Delete(key),
    }
}

#[cfg(test)]
mod tests {
    use diptych_core::ids::{Epoch, ExtentId, Hlc, Row};
    use diptych_core::lease::SiteRecord;
    use diptych_core::records::Holds;

    use super::*;
    use crate::testing::west;

    const NOWHERE: Position = Position { incarnation: 0, revision: 0 };
    const KNOWN: Known = Known { cursor: Cursor { applied: NOWHERE, confirmed: NOWHERE }, seen: NOWHERE };

    fn at(revision: u64) -> Position {
        Position { incarnation: 7, revision }
    }

    fn label() -> TermLabel {
        TermLabel { epoch: Epoch(1), open: true, begun_at: at(0) }
    }

    fn entry(revision: u64, changes: Vec<(Key, Option<Bytes>)>) -> FeedEntry {
        FeedEntry { position: at(revision), changes }
    }

    fn extent(number: u8, west: &SiteName, holds: Holds) -> (Key, Option<Bytes>) {
        let record = Extent {
            state: ExtentState::Live,
            holds,
            length: 1000,
            payload: 1000,
            hash: [number; 32],
            needed: 4,
            rows: vec![(west.clone(), Row(6), 6)],
            epoch: Epoch(1),
            hlc: Hlc(1),
        };
        (keys::extent(ExtentId([number; 16])), Some(Bytes::from(record.encode())))
    }

    async fn voted(context: &SiteContext) {
        let east = context.peer.clone().expect("there are two");
        let record = SiteRecord::empty(diptych_core::ids::KeeperNumber(1)).admit(Epoch(1), &east);
        let Admission::TakeRaising(record) = record else { panic!("{record:?}") };
        let writes = record::writes(&context.site, &record);
        context.catalog.commit(Batch::one(None, Change::blind(writes))).await.expect("it commits");
    }

    #[tokio::test]
    async fn more_than_a_commit_takes_is_taken_in_several() {
        let (context, _folder) = west();
        voted(&context).await;
        let east = context.peer.clone().expect("there are two");
        let value = Bytes::from(vec![1; 400 << 10]);
        let name = |number: u64| keys::bucket(&format!("b{number}"));
        let entries: Vec<FeedEntry> =
            (1..=9).map(|number| entry(number, vec![(name(number), Some(value.clone()))])).collect();
        let (mut known, mut rest, mut commits) = (KNOWN, &entries[..], 0);
        while !rest.is_empty() {
            let taken = apply(&context, &east, Some(label()), rest, &known).await.expect("it fits");
            let taken = taken.unwrap_or_else(|_| panic!("nothing stands in its way"));
            (known, rest, commits) = (taken.known, &rest[taken.entries..], commits + 1);
        }
        assert!((4..=9).contains(&commits), "{commits}");
        assert_eq!(known.cursor, Cursor { applied: at(9), confirmed: at(9) }, "nothing is wanted");
        let view = context.catalog.view().await.expect("a view");
        assert!((1..=9).all(|number| view.get(&name(number)).expect("it reads").is_some()));
    }

    #[tokio::test]
    async fn what_is_applied_is_confirmed_in_the_same_commit_up_to_the_first_extent_that_is_not_here() {
        let (context, _folder) = west();
        voted(&context).await;
        let east = context.peer.clone().expect("there are two");
        let changes =
            |revision| vec![(keys::bucket(&format!("b{revision}")), Some(Bytes::from_static(b"b")))];
        let entries = [
            entry(1, changes(1)),
            entry(2, vec![extent(1, &context.site, Holds::Data)]),
            entry(3, changes(3)),
        ];
        let taken = apply(&context, &east, Some(label()), &entries, &KNOWN).await;
        let taken = taken.expect("it commits").unwrap_or_else(|_| panic!("nothing stands in its way"));
        assert_eq!(taken.known.cursor, Cursor { applied: at(3), confirmed: at(1) });
        let view = context.catalog.view().await.expect("a view");
        let wanted = keys::wanted(&context.site, ExtentId([1; 16]));
        assert!(view.get(&wanted).expect("it reads").is_some());
        let here = BTreeMap::from([(wanted, None)]);
        let then = confirmed(view.as_ref(), &context.site, &here, at(3), at(1)).expect("it reads");
        assert_eq!(then, at(3));
    }

    #[tokio::test]
    async fn a_checkpoint_on_its_way_holds_nothing_back() {
        let (context, _folder) = west();
        voted(&context).await;
        let east = context.peer.clone().expect("there are two");
        let entries = [entry(1, vec![extent(1, &context.site, Holds::Checkpoint(at(1)))])];
        let taken = apply(&context, &east, Some(label()), &entries, &KNOWN).await;
        let taken = taken.expect("it commits").unwrap_or_else(|_| panic!("nothing stands in its way"));
        assert_eq!(taken.known.cursor, Cursor { applied: at(1), confirmed: at(1) });
        let view = context.catalog.view().await.expect("a view");
        assert!(view.get(&keys::wanted(&context.site, ExtentId([1; 16]))).expect("it reads").is_some());
        let lacking = crate::peer::loss::oldest_wanted_ms(&context).await;
        assert_eq!(lacking.expect("it reads"), None, "it is wanted, and nothing is lost without it");
    }
}
