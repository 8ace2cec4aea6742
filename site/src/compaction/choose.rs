//! What is worth being compacted, and what goes into one new extent.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use diptych_catalog::View;
use diptych_core::compaction::is_worthwhile;
use diptych_core::ids::{ExtentId, SiteName};
use diptych_core::keys;
use diptych_core::records::{Extent, ExtentState, Holds, Record};

use super::names::{Named, movable};
use crate::collector::dead_bytes;
use crate::context::SiteContext;
use crate::error::SiteError;

/// An extent above this is not shared: its bytes are those of one large object, and live or die together.
const SHARED_MOST: u32 = 8 << 20;
/// Bytes of blobs in a new extent, about.
const NEW_MOST: u32 = 8 << 20;
/// Blobs in one: each has a dead mark in the commit that enters it, which takes 512 writes.
const BLOBS_MOST: usize = 256;

/// An extent that is mostly dead, and what of it lives.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) extent: ExtentId,
    pub(super) live: Vec<Named>,
}

/// Sources of up to `most` new extents, those with the most dead bytes first.
pub(super) fn choose(
    view: &dyn View,
    context: &SiteContext,
    most: usize,
) -> Result<Vec<Vec<Source>>, SiteError> {
    let mut worthwhile: Vec<(u64, ExtentId)> = Vec::new();
    for (extent, dead) in dead_bytes(view)? {
        let Some(raw) = view.get(&keys::extent(extent))? else { continue };
        let record = Extent::decode(&raw)?;
        let is_shared = record.holds == Holds::Data && record.length <= SHARED_MOST;
        if record.state == ExtentState::Live
            && is_shared
            && is_worthwhile(u64::from(record.payload), dead)
            && is_in_both(view, context, extent)?
        {
            worthwhile.push((dead, extent));
        }
    }
    if worthwhile.is_empty() {
        return Ok(Vec::new());
    }
    worthwhile.sort_by_key(|(dead, extent)| (Reverse(*dead), *extent));
    let extents: BTreeSet<ExtentId> = worthwhile.iter().map(|(_, extent)| *extent).collect();
    let mut live: BTreeMap<ExtentId, Vec<Named>> = BTreeMap::new();
    for named in movable(view, &extents)? {
        live.entry(named.piece.extent).or_default().push(named);
    }
    let sources = worthwhile.into_iter().filter_map(|(_, extent)| {
        let mut live = live.remove(&extent)?;
        live.sort_by_key(|named| named.piece.offset);
        Some(Source { extent, live })
    });
    Ok(pack(sources, most))
}

/// As many sources for each new extent as go into one.
fn pack(sources: impl Iterator<Item = Source>, most: usize) -> Vec<Vec<Source>> {
    let mut packed: Vec<Vec<Source>> = Vec::new();
    let (mut bytes, mut blobs) = (0_u32, 0);
    for source in sources {
        let (own, own_blobs) = (source.live.iter().map(|named| named.piece.sealed).sum(), source.live.len());
        let fits = bytes + own <= NEW_MOST && blobs + own_blobs <= BLOBS_MOST;
        if let Some(last) = packed.last_mut().filter(|_| fits) {
            last.push(source);
            (bytes, blobs) = (bytes + own, blobs + own_blobs);
        } else if packed.len() < most {
            packed.push(vec![source]);
            (bytes, blobs) = (own, own_blobs);
        } else {
            break;
        }
    }
    packed
}

/// Whether every row's site has the extent: the other one makes the new extent of it.
fn is_in_both(view: &dyn View, context: &SiteContext, extent: ExtentId) -> Result<bool, SiteError> {
    for site in std::iter::once(&context.site).chain(&context.peer) {
        if !is_in(view, site, extent)? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn is_in(view: &dyn View, site: &SiteName, extent: ExtentId) -> Result<bool, SiteError> {
    let placed = view.get(&keys::placement(site, extent))?.is_some();
    Ok(placed && view.get(&keys::wanted(site, extent))?.is_none())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use diptych_core::ids::BlobId;
    use diptych_core::keys::Key;
    use diptych_core::records::{Layout, Piece};

    use super::*;

    fn source(number: u8, blobs: usize, sealed: u32) -> Source {
        let extent = ExtentId([number; 16]);
        let named = |_| Named {
            blob: BlobId([1; 16]),
            piece: Piece {
                extent,
                first_chunk: 0,
                offset: 0,
                sealed,
                plain: sealed,
                last: true,
                layout: Layout::Plain,
            },
            version: (Key(Vec::new()), Bytes::new()),
        };
        Source { extent, live: (0..blobs).map(named).collect() }
    }

    fn packed(sources: Vec<Source>, most: usize) -> Vec<Vec<u8>> {
        let packed = pack(sources.into_iter(), most);
        packed.iter().map(|one| one.iter().map(|source| source.extent.0[0]).collect()).collect()
    }

    #[test]
    fn a_new_extent_takes_what_fits_by_bytes_and_by_blobs() {
        let by_blobs = vec![source(1, 200, 1), source(2, 56, 1), source(3, 1, 1)];
        assert_eq!(packed(by_blobs, 4), [vec![1, 2], vec![3]]);
        let by_bytes = vec![source(1, 1, NEW_MOST - 1), source(2, 1, 1), source(3, 1, 1), source(4, 1, 1)];
        assert_eq!(packed(by_bytes, 4), [vec![1, 2], vec![3, 4]]);
        let many = vec![source(1, 200, 1), source(2, 200, 1), source(3, 200, 1)];
        assert_eq!(packed(many, 2), [vec![1], vec![2]], "the rest waits for the next round");
    }
}
