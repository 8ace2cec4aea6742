//! Compaction of shared extents: of what new extents are made, and what a version says once its bytes lie in one.
//!
//! Live blobs are copied unopened, so a new extent is a list of ranges of others and a fresh tail. Whoever holds the others makes it
//! by that list alone, without a key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::ExtentId;
use crate::records::{Content, Head, HeadBody, Piece};

/// Of what an extent is made: ranges of others, one behind the other, then its tail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// In the new extent's order, one for each piece of a blob.
    pub ranges: Vec<SourceRange>,
    /// The new extent's last bytes.
    pub tail: Vec<u8>,
}

/// Bytes of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRange {
    /// Which.
    pub extent: ExtentId,
    /// The first of them.
    pub offset: u32,
    /// How many.
    pub length: u32,
}

/// Whether an extent of `payload` bytes is worth being compacted with `dead` of them named by nothing: half of it or more, and not
/// all, which is the collector's.
pub const fn is_worthwhile(payload: u64, dead: u64) -> bool {
    dead < payload && dead >= payload.div_ceil(2)
}

impl Recipe {
    /// The bytes of the new extent. None: a source is not there, or is shorter than the recipe says.
    pub fn assemble(&self, sources: &BTreeMap<ExtentId, Vec<u8>>) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.payload() as usize + self.tail.len());
        for range in &self.ranges {
            let end = range.offset.checked_add(range.length)?;
            bytes.extend_from_slice(sources.get(&range.extent)?.get(range.offset as usize..end as usize)?);
        }
        bytes.extend_from_slice(&self.tail);
        Some(bytes)
    }

    /// Bytes of blobs in the new extent.
    pub fn payload(&self) -> u64 {
        self.ranges.iter().map(|range| u64::from(range.length)).sum()
    }

    /// A version whose pieces that were copied lie in the new extent. None: it has none of them, or its references are in pages.
    pub fn moved(&self, into: ExtentId, head: &Head) -> Option<Head> {
        let mut moved = head.clone();
        let HeadBody::Object(object) = &mut moved.body else { return None };
        let Content::Inline(blobs) = &mut object.content else { return None };
        let mut any = false;
        for piece in blobs.iter_mut().flat_map(|blob| &mut blob.pieces) {
            if let Some(offset) = self.offset_of(piece) {
                (piece.extent, piece.offset, any) = (into, offset, true);
            }
        }
        any.then_some(moved)
    }

    /// Where a piece begins in the new extent; None: it was not copied.
    pub fn offset_of(&self, piece: &Piece) -> Option<u32> {
        let mut offset = 0;
        for range in &self.ranges {
            let is_it =
                (range.extent, range.offset, range.length) == (piece.extent, piece.offset, piece.sealed);
            if is_it {
                return Some(offset);
            }
            offset += range.length;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BlobId, Epoch, Hlc, RingKeyNumber, VersionId};
    use crate::records::{Blob, Etag, Layout, Object, VersionRef};

    const INTO: ExtentId = ExtentId([9; 16]);

    fn extent(number: u8) -> ExtentId {
        ExtentId([number; 16])
    }

    fn recipe() -> Recipe {
        let range = |number, offset, length| SourceRange { extent: extent(number), offset, length };
        Recipe { ranges: vec![range(1, 2, 3), range(2, 0, 1), range(1, 6, 2)], tail: b"tail".to_vec() }
    }

    fn version(pieces: &[(u8, u32, u32)]) -> Head {
        let piece = |&(number, offset, sealed): &(u8, u32, u32)| Piece {
            extent: extent(number),
            first_chunk: 0,
            offset,
            sealed,
            plain: sealed,
            last: true,
            layout: Layout::Plain,
        };
        let blob = Blob {
            id: BlobId([4; 16]),
            ring_key: RingKeyNumber(1),
            pieces: pieces.iter().map(piece).collect(),
        };
        let object = Object {
            size: 1,
            etag: Etag { md5: [0; 16], parts: 0 },
            modified_ms: 0,
            headers: vec![],
            tags: vec![],
            content: Content::Inline(vec![blob]),
        };
        let at = VersionRef { epoch: Epoch(1), hlc: Hlc(1), version: VersionId([1; 16]) };
        Head::new(at, None, HeadBody::Object(Box::new(object)))
    }

    #[test]
    fn a_new_extent_is_the_ranges_one_behind_the_other_and_the_tail() {
        let sources = BTreeMap::from([(extent(1), b"abcdefgh".to_vec()), (extent(2), b"z".to_vec())]);
        assert_eq!(recipe().assemble(&sources).as_deref(), Some(&b"cdezghtail"[..]));
        let cut = BTreeMap::from([(extent(1), b"abcdefg".to_vec()), (extent(2), b"z".to_vec())]);
        assert_eq!(recipe().assemble(&cut), None);
        assert_eq!(recipe().assemble(&BTreeMap::from([(extent(1), b"abcdefgh".to_vec())])), None);
    }

    #[test]
    fn of_a_version_the_pieces_that_were_copied_lie_in_the_new_extent() {
        let moved = recipe().moved(INTO, &version(&[(1, 6, 2), (3, 6, 2), (1, 2, 4)]));
        let HeadBody::Object(object) = moved.expect("one was copied").body else { panic!("an object") };
        let Content::Inline(blobs) = object.content else { panic!("inline") };
        let places: Vec<_> = blobs[0].pieces.iter().map(|piece| (piece.extent, piece.offset)).collect();
        assert_eq!(places, [(INTO, 4), (extent(3), 6), (extent(1), 2)], "another length is another piece");
        assert_eq!(recipe().moved(INTO, &version(&[(3, 0, 1)])), None);
    }

    #[test]
    fn half_dead_is_worth_it_and_all_dead_is_the_collectors() {
        let found: Vec<bool> = [1, 2, 3, 5].map(|dead| is_worthwhile(5, dead)).to_vec();
        assert_eq!(found, [false, false, true, false]);
        assert!(is_worthwhile(4, 2));
        assert!(!is_worthwhile(0, 0));
    }
}
