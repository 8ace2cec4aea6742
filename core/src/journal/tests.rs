use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cipher::SecretKey;
use crate::ids::{BlobId, BucketId, ClusterId, Epoch, ExtentId, Hlc, Row, SiteName};
use crate::keyring::{Keyring, NewRingKey};
use crate::records::{ExtentState, Holds, Span};

const EXTENT: ExtentId = ExtentId([4; 16]);

fn keyring() -> Keyring {
    let new = NewRingKey { key: SecretKey::new([3; 32]), nonce: [4; 12], made_ms: 1 };
    Keyring::create(ClusterId([1; 16]), new)
}

fn east() -> SiteName {
    "east".parse().expect("a name")
}

fn at(incarnation: u64, revision: u64) -> Position {
    Position { incarnation, revision }
}

fn span(incarnation: u64, after: u64, upto: u64) -> Span {
    Span { after: at(incarnation, after), upto: at(incarnation, upto) }
}

fn found(epoch: u64, incarnation: u64, after: u64, upto: u64) -> Found {
    Found { epoch: Epoch(epoch), span: span(incarnation, after, upto) }
}

fn fresh() -> Fresh {
    Fresh { extent: EXTENT, blob: BlobId([5; 16]), nonce: [6; 12] }
}

fn journal(values: usize) -> Document {
    let change = |number: usize| {
        let value = (!number.is_multiple_of(3)).then(|| vec![number as u8; 700]);
        (keys::head(BucketId([1; 8]), &number.to_be_bytes()), value)
    };
    let writer = Writer { site: east(), epoch: Epoch(2) };
    Document::Journal(Journal { writer, span: span(7, 3, 9), changes: (0..values).map(change).collect() })
}

#[test]
fn a_document_of_many_chunks_opens_as_it_was_sealed_and_only_as_its_own_extent() {
    for values in [0, 10, 5_000] {
        let document = journal(values);
        let sealed = seal(&document, keyring().current(), &fresh()).expect("it seals");
        assert_eq!(open(&sealed.bytes, EXTENT, &keyring()), Ok(document));
        assert!(open(&sealed.bytes, ExtentId([9; 16]), &keyring()).is_err());
        let mut altered = sealed.bytes;
        altered[1] ^= 1;
        assert!(open(&altered, EXTENT, &keyring()).is_err());
    }
}

#[test]
fn only_role_owned_keys_are_recorded_and_none_of_the_journals_own() {
    let extent = |holds| Extent {
        state: ExtentState::Live,
        holds,
        length: 1,
        payload: 1,
        hash: [0; 32],
        needed: 1,
        rows: vec![(east(), Row(0), 1)],
        epoch: Epoch(1),
        hlc: Hlc(1),
    };
    let key = keys::extent(EXTENT);
    let recorded = |key: &Key, value: Option<Vec<u8>>| is_recorded(key, value.as_deref()).expect("it reads");
    assert!(recorded(&key, Some(extent(Holds::Data).encode())));
    assert!(recorded(&key, None));
    assert!(!recorded(&key, Some(extent(Holds::Journal(span(1, 2, 3))).encode())));
    assert!(!recorded(&key, Some(extent(Holds::Checkpoint(at(1, 2))).encode())));
    assert!(!recorded(&keys::journal(), None));
    assert!(!recorded(&keys::placement(&east(), EXTENT), None));
    assert!(!recorded(&keys::placement(&SiteName::outside(), EXTENT), None));
    assert!(!recorded(&keys::site_gate(&east()), None));
    assert!(recorded(&keys::access_key("KEY"), Some(vec![])));
}

#[test]
fn journals_are_walked_in_order_whatever_the_order_in_which_they_are_found() {
    let journals = [found(1, 7, 12, 18), found(1, 7, 5, 12), found(1, 7, 2, 4), found(1, 7, 18, 30)];
    let way = walk(Some((Epoch(1), at(7, 6))), &journals);
    assert_eq!(way, Walk { order: vec![1, 0, 3], gaps: vec![], upto: Some(at(7, 30)) });
}

#[test]
fn what_overlaps_is_no_gap_and_what_is_missing_is_named() {
    let journals = [found(1, 7, 5, 20), found(1, 7, 12, 18), found(1, 7, 15, 25), found(1, 7, 27, 30)];
    let way = walk(Some((Epoch(1), at(7, 6))), &journals);
    let gap = Gap { after: Some(at(7, 25)), next: at(7, 27) };
    assert_eq!(way, Walk { order: vec![0, 2, 3], gaps: vec![gap], upto: Some(at(7, 30)) });
}

#[test]
fn what_a_newer_term_has_merged_is_no_gap() {
    let journals = [found(1, 7, 5, 10), found(1, 7, 20, 25), found(2, 7, 10, 20), found(2, 7, 25, 30)];
    let way = walk(Some((Epoch(1), at(7, 6))), &journals);
    assert_eq!(way, Walk { order: vec![0, 2, 1, 3], gaps: vec![], upto: Some(at(7, 30)) });
}

#[test]
fn without_a_checkpoint_only_journals_from_the_very_first_revision_on_are_whole() {
    let whole = walk(None, &[found(1, 7, 0, 5), found(1, 7, 5, 9)]);
    assert_eq!((whole.order, whole.gaps), (vec![0, 1], vec![]));
    let cut = walk(None, &[found(1, 7, 5, 9)]);
    assert_eq!(cut.gaps, [Gap { after: None, next: at(7, 5) }]);
    assert_eq!(walk(None, &[]), Walk::default());
}

#[test]
fn an_older_terms_end_is_left_behind_by_a_newer_checkpoint_and_a_newer_term_without_one_is_a_gap() {
    // East's epoch 1, west's epoch 2, east's epoch 3.
    let journals = [found(1, 7, 5, 20), found(2, 8, 40, 50), found(3, 7, 33, 60)];
    let of_west = walk(Some((Epoch(2), at(8, 45))), &journals);
    assert_eq!(of_west.order, [1, 2]);
    assert_eq!(of_west.gaps, [Gap { after: Some(at(8, 50)), next: at(7, 33) }]);
    let of_east = walk(Some((Epoch(3), at(7, 35))), &journals);
    assert_eq!((of_east.order, of_east.gaps), (vec![2], vec![]));
}

#[test]
fn parts_are_whole_only_if_they_tile_the_key_space() {
    let key = |text: &str| Key(text.as_bytes().to_vec());
    let parts = [(key("m"), None), (key(""), Some(key("c"))), (key("c"), Some(key("m")))];
    assert_eq!(tile(&parts), Some(vec![1, 2, 0]));
    assert_eq!(tile(&parts[..2]), None);
    assert_eq!(tile(&parts[1..]), None);
    assert_eq!(tile(&[(key(""), None)]), Some(vec![0]));
    assert_eq!(tile(&[(key(""), Some(key("")))]), None, "it ends");
}

#[test]
fn what_the_checkpoint_holds_is_superseded() {
    let checkpoint = at(7, 10);
    let all = [span(7, 3, 10), span(7, 9, 12), span(7, 12, 14), span(8, 50, 60)];
    let superseded: Vec<bool> =
        all.iter().map(|span| is_superseded(Holds::Journal(*span), checkpoint)).collect();
    assert_eq!(superseded, [true, false, false, true]);
    assert!(!is_superseded(Holds::Checkpoint(checkpoint), checkpoint));
    assert!(is_superseded(Holds::Checkpoint(at(7, 9)), checkpoint));
    assert!(!is_superseded(Holds::Data, checkpoint));
}

/// A history of puts (some) and deletes (none) of few keys, one a revision from 1 on.
type History = Vec<(u8, Option<u8>)>;

fn state_at(history: &History, revision: usize) -> BTreeMap<u8, u8> {
    let mut state = BTreeMap::new();
    for (key, value) in &history[..revision] {
        match value {
            Some(value) => drop(state.insert(*key, *value)),
            None => drop(state.remove(key)),
        }
    }
    state
}

/// Stretches between two revisions that no journal has.
fn missing(journals: &[Found], from: u64, upto: u64) -> Vec<Gap> {
    let has = |revision: u64| {
        journals
            .iter()
            .any(|journal| (journal.span.after.revision + 1..=journal.span.upto.revision).contains(&revision))
    };
    let mut gaps: Vec<Gap> = Vec::new();
    for revision in (from + 1..=upto).filter(|revision| !has(*revision)) {
        match gaps.last_mut().filter(|gap| gap.next == at(7, revision - 1)) {
            Some(gap) => gap.next = at(7, revision),
            None => gaps.push(Gap { after: Some(at(7, revision - 1)), next: at(7, revision) }),
        }
    }
    gaps
}

proptest! {
    #[test]
    fn a_checkpoint_and_the_journals_of_a_walk_give_the_newest_state_however_they_were_cut(
        history in prop::collection::vec((0_u8..6, prop::option::of(any::<u8>())), 1..60),
        cuts in prop::collection::vec((0_usize..60, 1_usize..20, 1_u64..4), 1..30),
        checkpoint in 0_usize..60,
    ) {
        let end = history.len();
        let checkpoint = checkpoint.min(end);
        let journals: Vec<Found> = cuts
            .iter()
            .map(|&(after, len, epoch)| (after.min(end - 1), len, epoch))
            .map(|(after, len, epoch)| found(epoch, 7, after as u64, (after + len).min(end) as u64))
            .collect();
        let way = walk(Some((Epoch(1), at(7, checkpoint as u64))), &journals);
        let mut state = state_at(&history, checkpoint);
        for index in &way.order {
            let Span { after, upto } = journals[*index].span;
            let newest: BTreeMap<u8, Option<u8>> =
                history[after.revision as usize..upto.revision as usize].iter().copied().collect();
            for (key, value) in newest {
                match value {
                    Some(value) => drop(state.insert(key, value)),
                    None => drop(state.remove(&key)),
                }
            }
        }
        let upto = way.upto.expect("there is a checkpoint").revision as usize;
        prop_assert!(upto >= checkpoint && journals.iter().all(|journal| journal.span.upto.revision <= upto as u64));
        prop_assert_eq!(&way.gaps, &missing(&journals, checkpoint as u64, upto as u64));
        if way.gaps.is_empty() {
            prop_assert_eq!(state, state_at(&history, upto));
        }
    }
}
