//! The extents of journals and checkpoints that a catalog names.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, View, Write};
use diptych_core::ids::{Epoch, ExtentId};
use diptych_core::journal::is_superseded;
use diptych_core::keys;
use diptych_core::records::{Extent, ExtentState, Holds, Position, Record, Span};

use crate::context::SiteContext;
use crate::error::SiteError;
use crate::survey::each;

/// Extents that are condemned in one commit.
const AT_ONCE: usize = 60;
/// Journals up to this length are merged.
const SMALL: u32 = 256 << 10;

/// What is there.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    /// Extents that are live, with their lengths.
    live: BTreeMap<ExtentId, (Holds, u32)>,
    /// All of them, those that are condemned too.
    own: BTreeSet<ExtentId>,
}

impl Shelf {
    pub(super) async fn load(view: Box<dyn View>) -> Result<Self, SiteError> {
        let loaded = tokio::task::spawn_blocking(move || Self::read(view.as_ref())).await;
        loaded.map_err(|_| SiteError::Stopped)?
    }

    fn read(view: &dyn View) -> Result<Self, SiteError> {
        let mut shelf = Self::default();
        each(view, &keys::extents(), |key, value| {
            let record = Extent::decode(value)?;
            if let (Some(extent), true) = (keys::extent_of(key), record.holds != Holds::Data) {
                shelf.own.insert(extent);
                if record.state != ExtentState::Condemned {
                    shelf.live.insert(extent, (record.holds, record.length));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(shelf)
    }

    pub(super) fn own(&self) -> &BTreeSet<ExtentId> {
        &self.own
    }

    pub(super) fn add(&mut self, extent: ExtentId, record: &Extent) {
        self.live.insert(extent, (record.holds, record.length));
    }

    /// Where the last journal up to a position ends, or the whole checkpoint behind it; that position, where there is neither.
    pub(super) fn ends_at(&self, checkpoint: Option<Position>, upto: Position) -> Position {
        let journals = self.live.values().filter_map(|(holds, _)| match holds {
            Holds::Journal(span) => Some(span.upto),
            Holds::Data | Holds::Checkpoint(_) => None,
        });
        let ends = journals.chain(checkpoint);
        ends.filter(|end| end.incarnation == upto.incarnation && *end <= upto).max().unwrap_or(upto)
    }

    /// Journals behind a position, in the order of the feed.
    pub(super) fn journals(&self, behind: Position) -> Vec<(ExtentId, Span, u32)> {
        let journal = |(extent, (holds, length)): (&ExtentId, &(Holds, u32))| match holds {
            Holds::Journal(span) => Some((*extent, *span, *length)),
            Holds::Data | Holds::Checkpoint(_) => None,
        };
        let is_behind =
            |span: &Span| span.upto.incarnation == behind.incarnation && span.upto.revision > behind.revision;
        let mut journals: Vec<_> =
            self.live.iter().filter_map(journal).filter(|(_, span, _)| is_behind(span)).collect();
        journals.sort_by_key(|(_, span, _)| *span);
        journals
    }

    /// Runs of small journals, each behind the one before, that are worth a merge.
    pub(super) fn small_runs(&self, behind: Position) -> Vec<Vec<ExtentId>> {
        let mut runs: Vec<(Position, Vec<ExtentId>)> = Vec::new();
        for (extent, span, length) in self.journals(behind) {
            if length > SMALL {
                continue;
            }
            match runs.last_mut() {
                Some((upto, run)) if *upto == span.after => {
                    *upto = span.upto;
                    run.push(extent);
                }
                _ => runs.push((span.upto, vec![extent])),
            }
        }
        runs.into_iter().map(|(_, run)| run).filter(|run| run.len() > 1).collect()
    }

    /// Condemns what a whole checkpoint has made superfluous, and parts of those that are not whole.
    ///
    /// FENCING: only what was read back from the devices supersedes anything; until then the older ones stay.
    pub(super) async fn condemn_superseded(
        &mut self,
        context: &SiteContext,
        epoch: Epoch,
        checkpoint: Position,
    ) -> Result<(), SiteError> {
        let superseded = self.live.iter().filter(|(_, (holds, _))| is_superseded(*holds, checkpoint));
        let superseded: Vec<ExtentId> = superseded.map(|(extent, _)| *extent).collect();
        condemn(context, epoch, &superseded).await?;
        for extent in superseded {
            self.live.remove(&extent);
        }
        Ok(())
    }
}

/// Condemns extents of the catalog: nothing needs them any more.
pub(super) async fn condemn(
    context: &SiteContext,
    epoch: Epoch,
    extents: &[ExtentId],
) -> Result<(), SiteError> {
    for some in extents.chunks(AT_ONCE) {
        let view = context.catalog.view().await?;
        let mut changes = Vec::new();
        for extent in some {
            let key = keys::extent(*extent);
            let Some(raw) = view.get(&key)? else { continue };
            let condemned = Extent { state: ExtentState::Condemned, ..Extent::decode(&raw)? };
            let guard = Guard { key: key.clone(), expect: Expect::Value(raw) };
            let writes = vec![Write::Put(key, Bytes::from(condemned.encode()))];
            changes.push(Change { guards: vec![guard], writes });
        }
        drop(view);
        context.catalog.commit(Batch { epoch: Some(epoch), changes }).await?;
    }
    Ok(())
}
