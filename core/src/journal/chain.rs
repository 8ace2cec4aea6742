//! Which journals follow a checkpoint, in which order, and what lies between them that nobody has.

use std::cmp::Reverse;

use crate::ids::Epoch;
use crate::keys::Key;
use crate::records::{Holds, Position, Span};

/// A journal that was found, by what the heads of its records say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Term in which it was written.
    pub epoch: Epoch,
    /// What it holds.
    pub span: Span,
}

/// A stretch that no journal and no checkpoint holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// All up to it is there; None: nothing is, there is no whole checkpoint.
    pub after: Option<Position>,
    /// What is there goes on behind it, if anything does. Of another incarnation: a newer term, of which no checkpoint is whole.
    pub next: Position,
}

/// A way from a checkpoint to the newest state that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk {
    /// Indices of the journals that are needed, in the order in which they are applied.
    pub order: Vec<usize>,
    /// What is missing on the way.
    pub gaps: Vec<Gap>,
    /// Where it ends.
    pub upto: Option<Position>,
}

/// From a checkpoint (the term it was written in, what it shows) through the journals. A catalog's history is one line, and
/// terms follow each other, so journals of older terms are another line's end that a newer checkpoint has left behind.
///
/// What goes on without a gap is taken first, the farthest of it, whatever term it was written in: a newer term may have merged
/// journals of an older one.
pub fn walk(checkpoint: Option<(Epoch, Position)>, journals: &[Found]) -> Walk {
    let newer = |journal: &Found| {
        checkpoint.is_none_or(|(epoch, at)| {
            journal.epoch > epoch || journal.span.upto.incarnation == at.incarnation
        })
    };
    let mut left: Vec<usize> = (0..journals.len()).filter(|&index| newer(&journals[index])).collect();
    let mut walk = Walk { upto: checkpoint.map(|(_, at)| at), ..Walk::default() };
    let mut epoch = checkpoint.map_or(Epoch::default(), |(epoch, _)| epoch);
    loop {
        left.retain(|&index| is_ahead(&journals[index], walk.upto, epoch));
        let index = match going_on(journals, &left, walk.upto) {
            Some(index) => index,
            None => match behind_a_gap(journals, &left) {
                Some(index) => {
                    walk.gaps.push(Gap { after: walk.upto, next: journals[index].span.after });
                    index
                }
                None => return walk,
            },
        };
        walk.order.push(index);
        walk.upto = Some(journals[index].span.upto);
        epoch = epoch.max(journals[index].epoch);
    }
}

/// Whether a journal has anything that is behind `at`, reached in `epoch`.
fn is_ahead(journal: &Found, at: Option<Position>, epoch: Epoch) -> bool {
    let upto = journal.span.upto;
    match at {
        Some(at) if at.incarnation == upto.incarnation => upto.revision > at.revision,
        Some(_) => journal.epoch >= epoch,
        None => true,
    }
}

/// The journal that leads farthest of those that begin at `at` or before.
fn going_on(journals: &[Found], ahead: &[usize], at: Option<Position>) -> Option<usize> {
    let goes_on = |span: Span| match at {
        Some(at) => span.upto.incarnation == at.incarnation && span.after.revision <= at.revision,
        // A catalog begins at revision 0, so what a journal says from there on needs no checkpoint.
        None => span.after.revision == 0,
    };
    let all = ahead.iter().copied().filter(|&index| goes_on(journals[index].span));
    all.min_by_key(|&index| {
        let Found { epoch, span } = journals[index];
        // Without a checkpoint there may be several catalogs, of which the first comes first.
        (at.is_none().then_some(epoch), Reverse(span.upto.revision))
    })
}

/// The first that is left: of the catalog whose journals are of the oldest term.
fn behind_a_gap(journals: &[Found], ahead: &[usize]) -> Option<usize> {
    let oldest =
        ahead.iter().min_by_key(|&&index| (journals[index].epoch, journals[index].span.after.revision))?;
    let incarnation = journals[*oldest].span.upto.incarnation;
    let all = ahead.iter().copied().filter(|&index| journals[index].span.upto.incarnation == incarnation);
    all.min_by_key(|&index| {
        (journals[index].span.after.revision, Reverse(journals[index].span.upto.revision))
    })
}

/// Indices of parts (first key, first key behind it) that tile the key space from its beginning to its end, in order. None: some
/// part is missing, so the checkpoint is not whole.
pub fn tile(parts: &[(Key, Option<Key>)]) -> Option<Vec<usize>> {
    let mut order = Vec::new();
    let mut from = Key(Vec::new());
    loop {
        let index = parts.iter().position(|(begins, _)| *begins == from)?;
        order.push(index);
        match &parts[index].1 {
            None => return Some(order),
            Some(to) if *to > from => from = to.clone(),
            Some(_) => return None,
        }
    }
}

/// Whether an extent of a catalog holds nothing any more that its whole checkpoint and the journals behind it do not hold too.
pub fn is_superseded(holds: Holds, checkpoint: Position) -> bool {
    match holds {
        Holds::Data => false,
        Holds::Checkpoint(at) => at != checkpoint,
        Holds::Journal(span) => {
            span.upto.incarnation != checkpoint.incarnation || span.upto.revision <= checkpoint.revision
        }
    }
}
