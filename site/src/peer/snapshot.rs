//! A whole copy of the peer's catalog, page by page, where its feed no longer reaches back far enough.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Limits, is_mirrored};
use diptych_core::ids::{Epoch, SiteName};
use diptych_core::keys::{self, Key, KeyRange};
use diptych_core::lease::Admission;
use diptych_core::records::{Cursor, Position, Record};
use diptych_wire::peer::SnapshotReply;

use super::apply::{put_or_delete, want};
use super::client::{PeerClient, PeerError};
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::keeper::record;
use crate::survey::each;

/// Writes of one commit, besides this site's record.
const AT_ONCE: usize = 3_000;

/// Why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The peer.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The own catalog.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// Terms or records changed under way.
    #[error("the term changed while the snapshot was taken: it is begun anew")]
    Changed,
}

/// Copies everything that this site mirrors; the cursor stands at the first page's position afterwards, from where the feed
/// is followed: what the later pages knew already is applied again, in order. `term`: of the peer, as this site has settled it.
///
/// FENCING (nothing vanishes): a page of another term is not taken. What this site committed and that term never saw was not handed over
/// yet, and the page would overwrite it.
pub(crate) async fn copy(
    context: &SiteContext,
    from: &SiteName,
    peer: &PeerClient,
    term: Option<Epoch>,
) -> Result<(), SnapshotError> {
    let mut next: Option<Key> = None;
    let mut begin = None;
    loop {
        let start = next.take();
        let page = peer.snapshot(start.clone()).await?;
        if page.term.map(|label| label.epoch) != term {
            return Err(SnapshotError::Changed);
        }
        let position = *begin.get_or_insert(page.position);
        next.clone_from(&page.next);
        take(context, from, start.unwrap_or(Key(Vec::new())), page, position).await?;
        if next.is_none() {
            let cursor = Cursor { applied: position, confirmed: Position::default() };
            let put = (keys::cursor(&context.site), Some(Bytes::from(cursor.encode())));
            return commit(context, from, None, vec![put]).await;
        }
    }
}

/// Takes a page in, in as many commits as it needs. Absent means deleted.
async fn take(
    context: &SiteContext,
    from: &SiteName,
    start: Key,
    page: SnapshotReply,
    position: Position,
) -> Result<(), SnapshotError> {
    let term = page.term.map(|label| label.epoch);
    let range = KeyRange { start, end: page.next.unwrap_or(Key(vec![0xff; 64])) };
    let is_taken = |key: &Key| is_mirrored(key, from, term.is_some());
    let mut values: BTreeMap<Key, Option<Bytes>> = BTreeMap::new();
    let view = context.catalog.view().await.map_err(SiteError::from)?;
    each(view.as_ref(), &range, |key, _| {
        if is_taken(key) {
            values.insert(key.clone(), None);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let there = page.entries.into_iter().map(|(key, value)| (key, Some(Bytes::from(value))));
    values.extend(there.filter(|(key, _)| is_taken(key)));
    let (mut writes, mut bytes) = (Vec::new(), 0);
    for (key, value) in values {
        // An extent's record and that it is wanted are written together.
        let mut together = BTreeMap::new();
        want(view.as_ref(), &context.site, &key, value.as_ref(), position, &mut together)?;
        together.insert(key, value);
        let more: usize =
            together.iter().map(|(key, value)| key.0.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        let full = writes.len() + together.len() > AT_ONCE || bytes + more > Limits::ACTIVE.bytes;
        if full && !writes.is_empty() {
            commit(context, from, term, std::mem::take(&mut writes)).await?;
            bytes = 0;
        }
        bytes += more;
        writes.extend(together);
    }
    if writes.is_empty() {
        return Ok(());
    }
    commit(context, from, term, writes).await
}

/// FENCING: as with the feed, each commit compares this site's whole record, and raises it where the peer's term is newer.
async fn commit(
    context: &SiteContext,
    from: &SiteName,
    term: Option<Epoch>,
    values: Vec<(Key, Option<Bytes>)>,
) -> Result<(), SnapshotError> {
    let view = context.catalog.view().await.map_err(SiteError::from)?;
    let own = record::read(view.as_ref(), &context.site)?;
    let raised = match term.map(|term| own.admit(term, from)) {
        None | Some(Admission::Take) => None,
        Some(Admission::TakeRaising(raised)) => Some(raised),
        Some(Admission::Refuse { .. }) => return Err(SnapshotError::Changed),
    };
    let guards = record::unchanged(view.as_ref(), &context.site, &own)?.ok_or(SnapshotError::Changed)?;
    drop(view);
    let mut writes: Vec<_> = values.into_iter().map(|(key, value)| put_or_delete(key, value)).collect();
    writes.extend(raised.iter().flat_map(|raised| record::writes(&context.site, raised)));
    let committed = context.catalog.commit(Batch::one(None, Change { guards, writes })).await;
    if committed.map_err(SiteError::from)?.all_applied() { Ok(()) } else { Err(SnapshotError::Changed) }
}
