//! What the feed carried and no journal holds yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use diptych_catalog::FeedEntry;
use diptych_core::ids::ExtentId;
use diptych_core::journal::{Journal, Writer, is_recorded};
use diptych_core::keys::{self, Key};
use diptych_core::records::{Position, RecordError, Span};

/// Bytes of changes of one journal, about.
const JOURNAL_BYTES: usize = 1 << 20;

/// Changes since the last journal, the newest of each key.
#[derive(Debug)]
pub(super) struct Pending {
    span: Span,
    changes: BTreeMap<Key, Option<Bytes>>,
    bytes: usize,
    since: Option<Instant>,
    /// The journal's own extents: that they go is no news.
    own: BTreeSet<ExtentId>,
}

impl Pending {
    pub(super) fn new(from: Position, own: BTreeSet<ExtentId>) -> Self {
        let span = Span { after: from, upto: from };
        Self { span, changes: BTreeMap::new(), bytes: 0, since: None, own }
    }

    /// Begins the stretch earlier: nothing new stands between there and where it began.
    pub(super) fn reach_back(&mut self, after: Position) {
        self.span.after = after;
    }

    /// Takes the next commit in.
    pub(super) fn add(&mut self, entry: FeedEntry) -> Result<(), RecordError> {
        for (key, value) in entry.changes {
            if self.is_news(&key, value.as_ref())? {
                self.since.get_or_insert_with(Instant::now);
                self.bytes += size(&key, value.as_ref());
                if let Some((key, old)) = self.changes.remove_entry(&key) {
                    self.bytes -= size(&key, old.as_ref());
                }
                self.changes.insert(key, value);
            }
        }
        self.span.upto = entry.position;
        Ok(())
    }

    fn is_news(&mut self, key: &Key, value: Option<&Bytes>) -> Result<bool, RecordError> {
        let extent = keys::extent_of(key).filter(|_| key.0.starts_with(b"x/"));
        let recorded = is_recorded(key, value.map(|value| &value[..]))?;
        Ok(match extent {
            Some(extent) if !recorded => {
                self.own.insert(extent);
                false
            }
            Some(extent) if value.is_none() => !self.own.remove(&extent),
            Some(_) | None => recorded,
        })
    }

    /// When the oldest change came that no journal holds; None: there is no such change.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// As much as one journal takes.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= JOURNAL_BYTES
    }

    /// Up to where all is known.
    pub(super) fn upto(&self) -> Position {
        self.span.upto
    }

    /// The journal of what is here.
    pub(super) fn journal(&self, writer: Writer) -> Journal {
        let change =
            |(key, value): (&Key, &Option<Bytes>)| (key.clone(), value.as_ref().map(|value| value.to_vec()));
        Journal { writer, span: self.span, changes: self.changes.iter().map(change).collect() }
    }

    /// All of it is in a journal.
    pub(super) fn clear(&mut self) {
        let own = std::mem::take(&mut self.own);
        *self = Self::new(self.span.upto, own);
    }
}

fn size(key: &Key, value: Option<&Bytes>) -> usize {
    key.0.len() + value.map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use diptych_core::ids::{Epoch, Hlc, Row, SiteName};
    use diptych_core::records::{Extent, ExtentState, Holds, Record};

    use super::*;

    fn at(revision: u64) -> Position {
        Position { incarnation: 7, revision }
    }

    fn entry(revision: u64, changes: Vec<(Key, Option<&'static [u8]>)>) -> FeedEntry {
        let changes = changes.into_iter().map(|(key, value)| (key, value.map(Bytes::from_static)));
        FeedEntry { position: at(revision), changes: changes.collect() }
    }

    fn east() -> SiteName {
        "east".parse().expect("a name")
    }

    fn journal(pending: &Pending) -> Journal {
        pending.journal(Writer { site: east(), epoch: Epoch(1) })
    }

    #[test]
    fn the_newest_change_of_a_key_is_kept_a_delete_too() {
        let mut pending = Pending::new(at(3), BTreeSet::new());
        let (one, two) = (keys::bucket("one"), keys::bucket("two"));
        pending
            .add(entry(4, vec![(one.clone(), Some(b"old")), (two.clone(), Some(b"v"))]))
            .expect("it reads");
        pending.add(entry(6, vec![(one.clone(), None)])).expect("it reads");
        let journal = journal(&pending);
        assert_eq!(journal.span, Span { after: at(3), upto: at(6) });
        assert_eq!(journal.changes, [(one, None), (two, Some(b"v".to_vec()))]);
        pending.clear();
        assert_eq!((pending.since(), pending.upto()), (None, at(6)));
    }

    #[test]
    fn what_is_not_role_owned_moves_the_position_and_is_no_news() {
        let mut pending = Pending::new(at(3), BTreeSet::new());
        pending.add(entry(9, vec![(keys::map(&east()), Some(b"map"))])).expect("it reads");
        assert_eq!((pending.since(), pending.upto()), (None, at(9)));
    }

    #[test]
    fn a_journals_own_extents_are_no_news_when_they_come_and_when_they_go() {
        let mut pending = Pending::new(at(0), [ExtentId([1; 16])].into());
        let record = Extent {
            state: ExtentState::Live,
            holds: Holds::Checkpoint(at(1)),
            length: 1,
            payload: 1,
            hash: [0; 32],
            needed: 1,
            rows: vec![(east(), Row(0), 1)],
            epoch: Epoch(1),
            hlc: Hlc(1),
        };
        let made = FeedEntry {
            position: at(1),
            changes: vec![
                (keys::extent(ExtentId([2; 16])), Some(record.encode().into())),
                (keys::journal(), Some(Bytes::from_static(b"progress"))),
            ],
        };
        pending.add(made).expect("it reads");
        let gone = [1, 2, 3].map(|number| (keys::extent(ExtentId([number; 16])), None));
        pending.add(entry(2, gone.to_vec())).expect("it reads");
        assert_eq!(journal(&pending).changes, [(keys::extent(ExtentId([3; 16])), None)], "that one is data");
    }

    #[test]
    fn a_mebibyte_of_changes_is_as_much_as_a_journal_takes_and_one_key_counts_once() {
        let mut pending = Pending::new(at(0), BTreeSet::new());
        let value = Bytes::from(vec![1; 600 << 10]);
        for revision in 1..5 {
            let changes = vec![(keys::bucket("same"), Some(value.clone()))];
            pending.add(FeedEntry { position: at(revision), changes }).expect("it reads");
            assert!(!pending.is_full());
        }
        pending
            .add(FeedEntry { position: at(9), changes: vec![(keys::bucket("other"), Some(value))] })
            .expect("it reads");
        assert!(pending.is_full());
    }
}
