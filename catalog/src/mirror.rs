//! Mirroring: what the feed of one site becomes in the catalog of the other.

use std::collections::BTreeMap;

use bytes::Bytes;
use diptych_core::ids::SiteName;
use diptych_core::keys::{self, Key, Owner};
use diptych_core::records::{Cursor, Record};

use crate::{Batch, Change, Expect, FeedEntry, Guard, Limits, Write};

/// Room that the cursor and the guards of a mirror's batch take at most, in bytes.
const OVERHEAD: usize = 4 << 10;

/// Who follows whom, from where on.
#[derive(Debug, Clone)]
pub struct Mirror<'a> {
    /// The site that follows.
    pub own: &'a SiteName,
    /// The site whose feed it is.
    pub from: &'a SiteName,
    /// Whether that site is active in the term that the entries are of: if not, its role-owned keys are copies.
    pub from_active: bool,
    /// FENCING: bytes of the own vote as it was when the entries were taken from the peer; a vote that moved on since
    /// refuses them.
    pub vote: Option<Bytes>,
    /// The own cursor as it stands in the catalog; who else follows has moved it, and this batch is refused.
    pub cursor: Option<Cursor>,
}

/// What to commit for the first entries of a feed.
#[derive(Debug, Clone)]
pub struct Mirrored {
    /// One change: writes of the entries and the cursor, under the guards.
    pub batch: Batch,
    /// Entries that are in it, at least one if there are any; the rest did not fit.
    pub taken: usize,
    /// The cursor that it writes.
    pub cursor: Cursor,
}

/// Whether a key that the feed of `from` carries is written by a mirror; `from_active` as in `Mirror`.
pub fn is_mirrored(key: &Key, from: &SiteName, from_active: bool) -> bool {
    match keys::owner(key) {
        Some(Owner::Active) => from_active,
        Some(Owner::Site(owner)) => owner == *from,
        Some(Owner::Private(_)) | None => false,
    }
}

impl Mirror<'_> {
    /// The batch for as many of `entries` as fit.
    ///
    /// The newest value of a key is written once, so the catalog stands after the last entry as the other one did.
    pub fn batch(&self, entries: &[FeedEntry]) -> Mirrored {
        let limits = Limits::UNFENCED;
        let mut newest: BTreeMap<&Key, Option<&Bytes>> = BTreeMap::new();
        let mut cursor = self.cursor.unwrap_or_default();
        let mut bytes = OVERHEAD;
        let mut writes = 1;
        let mut taken = 0;
        for entry in entries {
            let mine =
                || entry.changes.iter().filter(|(key, _)| is_mirrored(key, self.from, self.from_active));
            bytes +=
                mine().map(|(key, value)| key.0.len() + value.as_ref().map_or(0, Bytes::len)).sum::<usize>();
            writes += mine().count();
            if taken > 0 && (bytes > limits.bytes || writes > limits.writes) {
                break;
            }
            newest.extend(mine().map(|(key, value)| (key, value.as_ref())));
            cursor.applied = entry.position;
            taken += 1;
        }
        let mut writes: Vec<Write> = newest
            .into_iter()
            .map(|(key, value)| match value {
                Some(value) => Write::Put(key.clone(), value.clone()),
                None => Write::Delete(key.clone()),
            })
            .collect();
        writes.push(Write::Put(keys::cursor(self.own), cursor.encode().into()));
        Mirrored { batch: Batch::one(None, Change { guards: self.guards(), writes }), taken, cursor }
    }

    fn guards(&self) -> Vec<Guard> {
        let expect = |value: Option<Bytes>| value.map_or(Expect::Absent, Expect::Value);
        vec![
            Guard { key: keys::site_vote(self.own), expect: expect(self.vote.clone()) },
            Guard {
                key: keys::cursor(self.own),
                expect: expect(self.cursor.map(|cursor| cursor.encode().into())),
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use diptych_core::ids::{BucketId, DeviceId};
    use diptych_core::records::Position;

    use super::*;

    fn site(name: &str) -> SiteName {
        name.parse().expect("a name")
    }

    fn entry(revision: u64, changes: Vec<(Key, Option<Bytes>)>) -> FeedEntry {
        FeedEntry { position: Position { incarnation: 1, revision }, changes }
    }

    fn written(mirrored: &Mirrored) -> Vec<Key> {
        mirrored.batch.changes[0].writes.iter().map(|write| write.key().clone()).collect()
    }

    fn mirror<'a>(own: &'a SiteName, from: &'a SiteName, from_active: bool) -> Mirror<'a> {
        Mirror { own, from, from_active, vote: None, cursor: None }
    }

    #[test]
    fn only_keys_of_the_other_site_and_of_the_active_are_taken() {
        let (east, west) = (site("east"), site("west"));
        let value = Some(Bytes::from_static(b"v"));
        let changes = [
            keys::bucket("b"),
            keys::map(&east),
            keys::map(&west),
            keys::map(&SiteName::outside()),
            keys::site_vote(&east),
            keys::site_vote(&west),
            Key(b"zz/unknown".to_vec()),
        ]
        .map(|key| (key, value.clone()));
        let entries = [entry(7, changes.to_vec())];
        let cursor = keys::cursor(&west);

        let from_active = written(&mirror(&west, &east, true).batch(&entries));
        assert_eq!(
            from_active,
            [keys::bucket("b"), keys::map(&east), keys::map(&SiteName::outside()), cursor.clone()]
        );

        let from_passive = written(&mirror(&west, &east, false).batch(&entries));
        assert_eq!(from_passive, [keys::map(&east), cursor]);
    }

    #[test]
    fn the_newest_of_many_entries_is_written_once() {
        let (east, west) = (site("east"), site("west"));
        let key = keys::device(&east, DeviceId(1));
        let entries = [
            entry(1, vec![(key.clone(), Some(Bytes::from_static(b"old")))]),
            entry(2, vec![]),
            entry(5, vec![(key.clone(), None)]),
        ];
        let mirrored = mirror(&west, &east, true).batch(&entries);
        assert_eq!(mirrored.taken, 3);
        assert_eq!(mirrored.cursor.applied.revision, 5);
        assert_eq!(mirrored.batch.changes[0].writes[0], Write::Delete(key));
    }

    #[test]
    fn what_does_not_fit_is_left_for_the_next_batch() {
        let (east, west) = (site("east"), site("west"));
        let large = |revision: u64| {
            let key = keys::head(BucketId([1; 8]), &revision.to_be_bytes());
            entry(revision, vec![(key, Some(Bytes::from(vec![0; 700 << 10])))])
        };
        let mirrored = mirror(&west, &east, true).batch(&[large(1), large(2)]);
        assert_eq!((mirrored.taken, mirrored.cursor.applied.revision), (1, 1));
        assert!(mirrored.batch.check().is_ok());
    }

    #[test]
    fn a_vote_or_a_cursor_that_moved_refuses_the_batch() {
        let (east, west) = (site("east"), site("west"));
        let cursor =
            Cursor { applied: Position { incarnation: 1, revision: 3 }, confirmed: Position::default() };
        let vote = Bytes::from_static(b"vote");
        let mirror = Mirror { vote: Some(vote.clone()), cursor: Some(cursor), ..mirror(&west, &east, true) };
        let guards = mirror.batch(&[entry(4, vec![])]).batch.changes[0].guards.clone();
        let expected = [
            Guard { key: keys::site_vote(&west), expect: Expect::Value(vote) },
            Guard { key: keys::cursor(&west), expect: Expect::Value(cursor.encode().into()) },
        ];
        assert_eq!(guards, expected);
    }
}
