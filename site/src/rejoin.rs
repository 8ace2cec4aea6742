//! The return of a site that was active: what it committed and the newer term never saw is handed to the active site, which
//! merges it; then the keys that it touched are put right from there.
//!
//! Every step can be done again: the merge is idempotent, and that the site has rejoined a term is written down last.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, FeedStart, Guard, View, Write};
use diptych_core::ids::{Epoch, SiteName};
use diptych_core::keys::{self, Key, KeyRange, Owner};
use diptych_core::lease::{Admission, Event, Persisted, SiteRecord};
use diptych_core::records::{Extent, ExtentState, Position, Record, Term};
use diptych_wire::peer::{TermLabel, UnseenTerm};
use futures::StreamExt;
use tokio::time::timeout;

use crate::context::SiteContext;
use crate::error::SiteError;
use crate::keeper::{KeeperHandle, record};
use crate::peer::apply::put_or_delete;
use crate::peer::client::PeerError;
use crate::peer::follow::FollowError;
use crate::peer::{PeerClient, snapshot, want_all};
use crate::survey::each;

/// Records of one call.
const AT_ONCE: usize = 500;
/// What is committed already comes at once.
const OWN_FEED: Duration = Duration::from_secs(2);

/// What this site committed after P.
#[derive(Default)]
struct Unseen {
    /// Every role-owned key that it touched.
    touched: BTreeSet<Key>,
    /// Records that the other site merges, oldest first.
    records: Vec<(Key, Vec<u8>)>,
}

/// What came of [`settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Everything was copied anew.
    pub copied: bool,
    /// A view from here on shows all that was put right.
    pub seen: Position,
}

/// Brings this site into the peer's term, if it has not rejoined it yet.
///
/// `known`: a position that this site has reached; what it wrote before may be read from there on. A switch waits for this, so no
/// newer one is confirmed: a record that has the term, or was rejoined, can't be unsaid, and one that lacks it is compared when it is raised.
pub async fn settle(
    context: &SiteContext,
    from: &SiteName,
    peer: &PeerClient,
    label: TermLabel,
    keeper: &KeeperHandle,
    known: Position,
) -> Result<Settled, FollowError> {
    let view = context.catalog.view_from(known).await.map_err(SiteError::from)?;
    let rejoined = rejoined(view.as_ref(), &context.site)?;
    let (own, seen) = (record::read(view.as_ref(), &context.site)?, view.position());
    drop(view);
    // What the peer deletes later must not come back from here: a site that has rejoined the term has committed nothing since.
    if rejoined >= label.epoch {
        return Ok(Settled { copied: false, seen });
    }
    let end = raise(context, (&own, seen), from, label, keeper).await?;
    let unseen = unseen_since(context, from, peer, rejoined, label.epoch, end).await?;
    let copied = unseen.is_none();
    if let Some(unseen) = unseen {
        tell(context, label.epoch, &unseen);
        hand_over(context, peer, rejoined, &unseen).await?;
        put_right(context, (from, label.epoch), peer, &unseen.touched).await?;
    } else {
        // What this site deleted is not known then: only a copy of everything puts it right.
        let everything = everything(context).await?;
        tell(context, label.epoch, &everything);
        hand_over(context, peer, rejoined, &everything).await?;
        snapshot::copy(context, from, peer, Some(label.epoch)).await?;
    }
    let done =
        Write::Put(keys::site_rejoined(&context.site), Bytes::copy_from_slice(&label.epoch.0.to_be_bytes()));
    let view = context.catalog.view().await.map_err(SiteError::from)?;
    let guards = still_in(view.as_ref(), &context.site, (from, label.epoch))?;
    drop(view);
    Ok(Settled { copied, seen: commit(context, guards, vec![done]).await? })
}

/// Guards that hold while this site is in that term of the other one.
///
/// FENCING (one writer a key): a site that has won a later term meanwhile overwrites nothing with what the older one's holder has.
fn still_in(
    view: &dyn View,
    site: &SiteName,
    (from, epoch): (&SiteName, Epoch),
) -> Result<Vec<Guard>, FollowError> {
    let own = record::read(view, site)?;
    match own.admit(epoch, from) {
        Admission::Take => record::unchanged(view, site, &own)?.ok_or(FollowError::Changed),
        Admission::TakeRaising(_) | Admission::Refuse { .. } => Err(FollowError::Changed),
    }
}

async fn commit(
    context: &SiteContext,
    guards: Vec<Guard>,
    writes: Vec<Write>,
) -> Result<Position, FollowError> {
    let committed = context.catalog.commit(Batch::one(None, Change { guards, writes })).await;
    let committed = committed.map_err(SiteError::from)?;
    if committed.all_applied() { Ok(committed.position) } else { Err(FollowError::Changed) }
}

fn tell(context: &SiteContext, epoch: Epoch, unseen: &Unseen) {
    if !unseen.touched.is_empty() {
        tracing::info!(site = %context.site, %epoch, keys = unseen.touched.len(), "an unseen term is handed over");
    }
}

/// What this site has committed up to `end` and the peer's terms after `rejoined` never saw; None: its feed does not say.
async fn unseen_since(
    context: &SiteContext,
    from: &SiteName,
    peer: &PeerClient,
    rejoined: Epoch,
    epoch: Epoch,
    end: Position,
) -> Result<Option<Unseen>, FollowError> {
    match taken_over_at(from, peer, rejoined, epoch).await? {
        Some(position) => Ok(after(context, position, end).await?),
        None => Ok(None),
    }
}

/// The newest term of the other site that this one has handed over to and been put right by; 0: none.
pub(crate) fn rejoined(view: &dyn View, site: &SiteName) -> Result<Epoch, SiteError> {
    let raw = view.get(&keys::site_rejoined(site))?;
    let bytes = raw.as_deref().and_then(|raw| raw.try_into().ok()).map_or(0, u64::from_be_bytes);
    Ok(Epoch(bytes))
}

/// `own`, and where it was read; given is where this site has committed its last of an older term: its record has the newer one
/// there, and the gate of an older one went in the same change.
///
/// FENCING (epochs never fall): the newer term is in this site's record before anything of it is asked for. From there on
/// the catalog refuses what comes under an older one.
async fn raise(
    context: &SiteContext,
    (own, seen): (&SiteRecord, Position),
    from: &SiteName,
    label: TermLabel,
    keeper: &KeeperHandle,
) -> Result<Position, FollowError> {
    match own.admit(label.epoch, from) {
        Admission::Take => Ok(seen),
        Admission::Refuse { .. } => Err(FollowError::OldTerm),
        Admission::TakeRaising(raised) => {
            match record::persist(context.catalog.as_ref(), &raised, own).await? {
                Persisted::Stored { at } => {
                    keeper.tell(Event::RecordSeen(raised));
                    Ok(at)
                }
                _ => Err(FollowError::Changed),
            }
        }
    }
}

/// P of the first term after ours that the peer won; None where it is not known: a later one's stands behind what is unseen.
async fn taken_over_at(
    from: &SiteName,
    peer: &PeerClient,
    rejoined: Epoch,
    epoch: Epoch,
) -> Result<Option<Position>, PeerError> {
    let keys: Vec<Key> = (rejoined.0 + 1..=epoch.0).map(|number| keys::term(Epoch(number))).collect();
    let terms = peer.read(&keys).await?;
    let mut terms = terms.into_iter().flatten().filter_map(|raw| Term::decode(&raw).ok());
    Ok(terms.find(|term| term.holder == *from).and_then(|term| term.taken_over_at))
}

/// What was committed behind `position`, up to `end`; None: the feed does not say.
async fn after(
    context: &SiteContext,
    position: Position,
    end: Position,
) -> Result<Option<Unseen>, SiteError> {
    let mut feed = match context.catalog.feed(position).await? {
        FeedStart::From(feed) => feed,
        FeedStart::Compacted { .. } => return Ok(None),
    };
    let mut unseen = Unseen::default();
    let mut reached = position;
    while reached < end {
        let Ok(Some(entry)) = timeout(OWN_FEED, feed.next()).await else { return Ok(None) };
        let entry = entry?;
        reached = entry.position;
        for (key, value) in entry.changes {
            unseen.note(key, value);
        }
    }
    unseen.drop_compaction()?;
    Ok(Some(unseen))
}

async fn everything(context: &SiteContext) -> Result<Unseen, SiteError> {
    let mut unseen = Unseen::default();
    let view = context.catalog.view().await?;
    let all = KeyRange { start: Key(Vec::new()), end: Key(vec![0xff; 64]) };
    each(view.as_ref(), &all, |key, value| {
        unseen.note(key.clone(), Some(value.clone()));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(unseen)
}

impl Unseen {
    /// Leaves out the extents that compaction filled.
    ///
    /// FENCING (compaction in an unseen term is dropped): no version names one before the other site has it. One that it does not
    /// have goes with its key here, and its rows after that.
    fn drop_compaction(&mut self) -> Result<(), SiteError> {
        let mut filling = BTreeSet::new();
        for (key, value) in self.records.iter().filter(|(key, _)| key.0.starts_with(b"x/")) {
            if matches!(Extent::decode(value)?.state, ExtentState::Compacting(_)) {
                filling.insert(key.clone());
            }
        }
        self.records.retain(|(key, _)| !filling.contains(key));
        Ok(())
    }

    fn note(&mut self, key: Key, value: Option<Bytes>) {
        if keys::owner(&key) != Some(Owner::Active) {
            return;
        }
        // Dead marks stay behind: what an unseen change replaced may be head again. So do terms: each is its holder's.
        let merged = [b"h/".as_slice(), b"v/", b"x/", b"p/", b"b/", b"a/", b"t/", b"c/", b"y/"];
        let merged =
            |key: &Key| *key == keys::keyring() || merged.iter().any(|family| key.0.starts_with(family));
        if let Some(value) = value.filter(|_| merged(&key)) {
            self.records.push((key.clone(), value.to_vec()));
        }
        self.touched.insert(key);
    }
}

async fn hand_over(
    context: &SiteContext,
    peer: &PeerClient,
    epoch: Epoch,
    unseen: &Unseen,
) -> Result<(), FollowError> {
    // Heads name pages and extents, so these go first.
    let names = |key: &Key| key.0.starts_with(b"h/") || key.0.starts_with(b"v/");
    let (heads, mut others): (Vec<_>, Vec<_>) =
        unseen.records.iter().cloned().partition(|(key, _)| names(key));
    // FENCING: the ring keys that all of it lies under come before it.
    others.sort_by_key(|(key, _)| *key != keys::keyring());
    // All versions of a key are settled by one call.
    let mut by_object: BTreeMap<_, Vec<(Key, Vec<u8>)>> = BTreeMap::new();
    for (key, value) in heads {
        by_object.entry(keys::bucket_and_object(&key)).or_default().push((key, value));
    }
    let mut calls: Vec<Vec<(Key, Vec<u8>)>> = others.chunks(AT_ONCE).map(<[_]>::to_vec).collect();
    let mut call = Vec::new();
    for versions in by_object.into_values() {
        call.extend(versions);
        if call.len() >= AT_ONCE {
            calls.push(std::mem::take(&mut call));
        }
    }
    calls.push(call);
    for versions in calls.into_iter().filter(|call| !call.is_empty()) {
        peer.unseen(&UnseenTerm { site: context.site.clone(), epoch, versions }).await?;
    }
    Ok(())
}

/// The touched keys become what the active site has.
async fn put_right(
    context: &SiteContext,
    term: (&SiteName, Epoch),
    peer: &PeerClient,
    touched: &BTreeSet<Key>,
) -> Result<(), FollowError> {
    let touched: Vec<Key> = touched.iter().cloned().collect();
    for some in touched.chunks(AT_ONCE) {
        let values = peer.read(some).await?;
        let view = context.catalog.view().await.map_err(SiteError::from)?;
        let guards = still_in(view.as_ref(), &context.site, term)?;
        let mut newest: BTreeMap<Key, Option<Bytes>> = BTreeMap::new();
        for (key, value) in some.iter().zip(values) {
            let value = value.map(Bytes::from);
            want_all(view.as_ref(), &context.site, key, value.as_ref(), &mut newest)?;
            newest.insert(key.clone(), value);
        }
        drop(view);
        let writes = newest.into_iter().map(|(key, value)| put_or_delete(key, value)).collect();
        commit(context, guards, writes).await?;
    }
    Ok(())
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
