//! A whole copy of the peer's catalog, page by page, where its feed no longer reaches back far enough.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, is_mirrored};
use diptych_core::ids::SiteName;
use diptych_core::keys::{self, Key, KeyRange};
use diptych_core::lease::Admission;
use diptych_core::records::{Cursor, Record};

use super::apply::{put_or_delete, want};
use super::client::{PeerClient, PeerError};
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::keeper::record;
use crate::survey::each;

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
/// is followed: what the later pages knew already is applied again, in order.
pub(super) async fn copy(
    context: &SiteContext,
    from: &SiteName,
    peer: &PeerClient,
) -> Result<(), SnapshotError> {
    let mut next: Option<Key> = None;
    let mut begin = None;
    loop {
        let page = peer.snapshot(next.clone()).await?;
        let position = *begin.get_or_insert(page.position);
        let start = next.unwrap_or(Key(Vec::new()));
        let end = page.next.clone().unwrap_or(Key(vec![0xff; 64]));
        let view = context.catalog.view().await.map_err(SiteError::from)?;
        let own = record::read(view.as_ref(), &context.site)?;
        let active = page.term.is_some();
        let raised = match page.term.map(|term| own.admit(term.epoch, from)) {
            None | Some(Admission::Take) => None,
            Some(Admission::TakeRaising(raised)) => Some(raised),
            Some(Admission::Refuse { .. }) => return Err(SnapshotError::Changed),
        };
        let guards = record::unchanged(view.as_ref(), &context.site, &own)?.ok_or(SnapshotError::Changed)?;
        let mut newest: BTreeMap<Key, Option<Bytes>> = BTreeMap::new();
        let mut there = BTreeSet::new();
        for (key, value) in page.entries {
            if is_mirrored(&key, from, active) {
                let value = Bytes::from(value);
                want(view.as_ref(), &context.site, &key, Some(&value), position, &mut newest)?;
                there.insert(key.clone());
                newest.insert(key, Some(value));
            }
        }
        // Absent means deleted.
        each(view.as_ref(), &KeyRange { start, end }, |key, _| {
            if is_mirrored(key, from, active) && !there.contains(key) {
                newest.insert(key.clone(), None);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut writes: Vec<_> = newest.into_iter().map(|(key, value)| put_or_delete(key, value)).collect();
        writes.extend(raised.iter().flat_map(|raised| record::writes(&context.site, raised)));
        if page.next.is_none() {
            let cursor = Cursor { applied: position, confirmed: diptych_core::records::Position::default() };
            writes.push(put_or_delete(keys::cursor(&context.site), Some(Bytes::from(cursor.encode()))));
        }
        let committed = context.catalog.commit(Batch::one(None, Change { guards, writes })).await;
        if !committed.map_err(SiteError::from)?.all_applied() {
            return Err(SnapshotError::Changed);
        }
        match page.next {
            Some(key) => next = Some(key),
            None => return Ok(()),
        }
    }
}
