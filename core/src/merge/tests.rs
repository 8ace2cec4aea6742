use proptest::prelude::*;

use super::*;
use crate::ids::Hlc;

const OLD: Epoch = Epoch(1);
const NEW: Epoch = Epoch(2);
const NOW_MS: u64 = 1_000;

/// A site that works on one key as a gateway does.
#[derive(Debug, Clone, Default)]
struct Site {
    history: History,
    changes: Vec<Change>,
    made: u8,
}

impl Site {
    fn act(&mut self, epoch: Epoch, kind: ChangeKind) {
        let head = self.history.head;
        if kind == ChangeKind::Metadata && self.history.nothing_there() {
            return;
        }
        self.made += 1;
        let mut id = [self.made; 16];
        id[0] = epoch.0 as u8;
        let hlc = clock::next(u64::from(self.made), head.map_or(Hlc(0), |head| head.at.hlc));
        let at = VersionRef { epoch, hlc, version: VersionId(id) };
        let replaces = match head {
            None => Replaced::Nothing,
            Some(head) if head.deleted => Replaced::Delete(head.at),
            Some(head) => Replaced::Version(head.at),
        };
        let over = head.map(|head| head.at);
        self.history.set_head(HeadChange { at, over }, kind == ChangeKind::Delete);
        self.changes.push(Change { at, replaces, kind });
    }

    fn acts(&mut self, epoch: Epoch, kinds: &[ChangeKind]) {
        for &kind in kinds {
            self.act(epoch, kind);
        }
    }
}

/// What both had, what the old site did unseen, what the new one did meanwhile.
#[derive(Debug, Clone)]
struct Split {
    unseen: Vec<Change>,
    returning: History,
    current: History,
    meanwhile: usize,
}

/// A tombstone that both sites have is forgotten; what was replaced is freed where versions are not kept.
fn collect(history: &mut History) {
    if !history.keeps_versions {
        history.older.clear();
    }
}

fn split(
    keeps_versions: bool,
    both: &[ChangeKind],
    old: &[ChangeKind],
    new: &[ChangeKind],
    collected: bool,
) -> Split {
    let mut shared = Site::default();
    shared.history.keeps_versions = keeps_versions;
    shared.acts(OLD, both);
    shared.changes.clear();
    let (mut east, mut west) = (shared.clone(), shared);
    east.acts(OLD, old);
    if collected && !keeps_versions {
        west.history.head = west.history.head.filter(|head| !head.deleted);
    }
    west.acts(NEW, new);
    if collected {
        collect(&mut west.history);
    }
    Split {
        unseen: east.changes,
        returning: east.history,
        current: west.history,
        meanwhile: west.changes.len(),
    }
}

fn merged(split: &Split) -> History {
    split.current.after(&merge(&split.unseen, &split.current, NEW, NOW_MS))
}

fn actions(split: &Split) -> Vec<MergeAction> {
    merge(&split.unseen, &split.current, NEW, NOW_MS).into_iter().map(|settled| settled.action).collect()
}

fn head(history: &History) -> Option<VersionId> {
    history.head.map(|head| head.at.version)
}

use ChangeKind::{Compaction, Delete, Metadata, Put};

#[test]
fn a_key_that_nobody_touched_meanwhile_gets_all_that_the_old_site_did() {
    let split = split(false, &[Put], &[Put, Metadata, Delete, Put], &[], true);
    assert_eq!(head(&merged(&split)), Some(split.unseen[3].at.version));
    assert_eq!(merged(&split).head.expect("it has a head").at, split.unseen[3].at, "it keeps its name");
    assert!(merged(&split).conflicts.is_empty());
}

#[test]
fn a_version_over_one_that_was_replaced_meanwhile_is_a_conflict() {
    let split = split(false, &[Put], &[Put, Put], &[Put], true);
    assert_eq!(actions(&split), [MergeAction::KeptConflict; 2]);
    assert_eq!(head(&merged(&split)), head(&split.current));
}

#[test]
fn a_version_over_one_that_was_deleted_meanwhile_is_a_conflict_and_not_buried() {
    let split = split(false, &[Put], &[Put], &[Delete], true);
    assert_eq!(actions(&split), [MergeAction::KeptConflict]);
    assert!(merged(&split).conflicts.contains(&split.unseen[0].at.version));
}

#[test]
fn a_new_key_becomes_head_also_over_a_newer_epochs_delete_of_another() {
    let split = split(false, &[], &[Put], &[Put, Delete], true);
    let MergeAction::BecomesHead(change) = actions(&split)[0] else { panic!("{:?}", actions(&split)) };
    let tombstone = split.current.head.expect("a tombstone is there").at;
    assert_eq!(change.over, Some(tombstone));
    assert!((change.at.epoch, change.at.hlc) > (tombstone.epoch, tombstone.hlc));
    assert_eq!(change.at.version, split.unseen[0].at.version);
}

#[test]
fn a_version_over_a_delete_that_is_forgotten_becomes_head() {
    let split = split(false, &[Put, Delete], &[Put], &[], true);
    assert_eq!(split.current.head, None);
    assert!(matches!(actions(&split)[..], [MergeAction::BecomesHead(HeadChange { over: None, .. })]));
}

#[test]
fn a_delete_or_metadata_of_what_is_still_head_is_done_and_of_anything_else_noted() {
    assert!(matches!(actions(&split(false, &[Put], &[Delete], &[], true))[..], [MergeAction::DeleteDone(_)]));
    assert!(matches!(
        actions(&split(false, &[Put], &[Metadata], &[], true))[..],
        [MergeAction::BecomesHead(_)]
    ));
    assert_eq!(actions(&split(false, &[Put], &[Delete], &[Put], true)), [MergeAction::DeleteNotDone]);
    assert_eq!(actions(&split(false, &[Put], &[Metadata], &[Put], true)), [MergeAction::MetadataNotDone]);
    assert_eq!(actions(&split(false, &[Put], &[Delete], &[Metadata], true)), [MergeAction::DeleteNotDone]);
}

#[test]
fn a_retained_head_is_neither_replaced_nor_deleted_by_what_an_unseen_term_did_to_it() {
    for (kind, kept_aside) in [
        (Put, MergeAction::KeptConflict),
        (Metadata, MergeAction::MetadataNotDone),
        (Delete, MergeAction::DeleteNotDone),
    ] {
        let mut split = split(false, &[Put], &[kind], &[], false);
        let before = head(&split.current);
        split.current.retained = before.into_iter().collect();
        assert_eq!(actions(&split), [kept_aside]);
        assert_eq!(head(&merged(&split)), before);
    }
}

#[test]
fn a_compaction_is_dropped() {
    let mut split = split(false, &[Put], &[Put], &[], true);
    split.unseen.push(Change { kind: Compaction, ..split.unseen[0] });
    assert!(matches!(actions(&split)[..], [MergeAction::BecomesHead(_), MergeAction::Dropped]));
}

#[test]
fn a_catalog_that_lost_a_version_gets_it_back_and_loses_none_to_absence() {
    let split = split(false, &[], &[Put], &[], true);
    let (lost, kept) = (History::default(), split.returning);
    let found = unseen_by_comparison(&kept, &lost);
    assert_eq!(found, split.unseen);
    assert_eq!(head(&lost.after(&merge(&found, &lost, NEW, NOW_MS))), head(&kept));
    assert_eq!(unseen_by_comparison(&lost, &kept), vec![]);
}

/// The newer site was told of the head and never got its bytes; of the older versions it has those that `whole` says.
fn lost_in(history: &History, whole: bool) -> History {
    let gave_way = give_way(history, |entry| entry.deleted || whole, VersionId([0xdd; 16]), NEW, NOW_MS);
    gave_way.map_or_else(|| history.clone(), |gave_way| history.after_giving_way(&gave_way))
}

/// As `split`, but the newer site lacks the bytes of the head that both have, and has older versions whole or not.
fn split_with_loss(
    keeps_versions: bool,
    both: &[ChangeKind],
    old: &[ChangeKind],
    new: &[ChangeKind],
    whole: bool,
) -> Split {
    let mut east = Site::default();
    east.history.keeps_versions = keeps_versions;
    east.acts(OLD, both);
    east.changes.clear();
    let mut west = Site { history: lost_in(&east.history, whole), made: 100, ..Site::default() };
    east.acts(OLD, old);
    west.acts(NEW, new);
    Split {
        unseen: east.changes,
        returning: east.history,
        current: west.history,
        meanwhile: west.changes.len(),
    }
}

/// What is lost has come back, as the collector left the rest.
fn returned(history: &History) -> History {
    let lost: Vec<VersionId> = history.lost.iter().map(|lost| lost.at.version).collect();
    lost.into_iter().fold(history.clone(), |history, version| {
        let settled = settle(version, &history, NEW, NOW_MS).expect("it is lost");
        history.after(&[settled])
    })
}

#[test]
fn a_head_without_bytes_gives_way_to_the_version_before_it_and_comes_back_with_them() {
    let split = split_with_loss(false, &[Put, Put], &[], &[], true);
    let (first, second) = (split.returning.older[0].at, split.returning.head.expect("a head").at);
    assert_eq!(head(&split.current), Some(first.version));
    assert!(split.current.head.expect("a head").at > second, "the order of the key goes on");
    let after = returned(&split.current);
    assert_eq!(head(&after), Some(second.version));
    assert!(after.lost.is_empty() && after.conflicts.is_empty(), "{after:?}");
}

#[test]
fn a_head_without_bytes_over_nothing_leaves_nothing_and_comes_back_with_them() {
    for split in
        [split_with_loss(false, &[Put], &[], &[], true), split_with_loss(false, &[Put, Put], &[], &[], false)]
    {
        assert!(split.current.nothing_there(), "{split:?}");
        assert_eq!(head(&returned(&split.current)), head(&split.returning));
    }
}

#[test]
fn a_head_without_bytes_over_a_delete_leaves_the_delete() {
    let split = split_with_loss(false, &[Put, Delete, Put], &[], &[], true);
    assert!(split.current.nothing_there(), "{split:?}");
    assert_eq!(head(&returned(&split.current)), head(&split.returning));
}

#[test]
fn what_is_lost_and_was_replaced_meanwhile_comes_back_as_a_conflict() {
    let split = split_with_loss(false, &[Put, Put], &[], &[Put], true);
    let after = returned(&split.current);
    assert_eq!(head(&after), head(&split.current));
    assert_eq!(after.conflicts, split.returning.head.map(|head| head.at.version).into_iter().collect());
}

#[test]
fn what_the_old_site_built_on_a_lost_version_brings_it_back() {
    let split = split_with_loss(false, &[Put, Put], &[Put], &[], true);
    assert!(matches!(actions(&split)[..], [MergeAction::BecomesHead(_), MergeAction::BecomesHead(_)]));
    assert_eq!(head(&merged(&split)), head(&split.returning));
    assert!(merged(&split).lost.is_empty());
    let replaced = split_with_loss(false, &[Put, Put], &[Put], &[Put], true);
    assert_eq!(actions(&replaced), [MergeAction::KeptConflict; 2]);
}

fn kinds() -> impl Strategy<Value = Vec<ChangeKind>> {
    prop::collection::vec(prop_oneof![3 => Just(Put), 2 => Just(Delete), 1 => Just(Metadata)], 0..5)
}

fn any_split() -> impl Strategy<Value = Split> {
    let whole = (any::<bool>(), kinds(), kinds(), kinds(), any::<bool>())
        .prop_map(|(keeps, both, old, new, collected)| split(keeps, &both, &old, &new, collected));
    prop_oneof![2 => whole, 1 => any_split_with_loss()]
}

fn any_split_with_loss() -> impl Strategy<Value = Split> {
    (any::<bool>(), kinds(), kinds(), kinds(), any::<bool>())
        .prop_map(|(keeps, both, old, new, whole)| split_with_loss(keeps, &both, &old, &new, whole))
}

fn shuffled() -> impl Strategy<Value = (Split, Vec<Change>)> {
    any_split().prop_flat_map(|split| {
        let unseen = split.unseen.clone();
        (Just(split), Just(unseen).prop_shuffle())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn repeating_it_changes_nothing(split in any_split(), freed: bool) {
        let mut once = merged(&split);
        if freed {
            collect(&mut once);
        }
        for settled in merge(&split.unseen, &once, NEW, NOW_MS + 1) {
            prop_assert_eq!(settled.action, MergeAction::Nothing);
        }
    }

    #[test]
    fn a_write_after_it_is_not_undone_when_it_is_repeated(split in any_split(), kind in prop_oneof![Just(Put), Just(Delete)], freed: bool) {
        let mut site = Site { history: merged(&split), made: 100, ..Site::default() };
        site.act(NEW, kind);
        if freed {
            collect(&mut site.history);
        }
        let again = site.history.after(&merge(&split.unseen, &site.history, NEW, NOW_MS + 1));
        prop_assert_eq!(again, site.history);
    }

    #[test]
    fn a_merge_that_was_cut_short_ends_as_a_whole_one(split in any_split(), done: prop::sample::Index) {
        let settled = merge(&split.unseen, &split.current, NEW, NOW_MS);
        let cut = split.current.after(&settled[..done.index(settled.len() + 1)]);
        prop_assert_eq!(cut.after(&merge(&split.unseen, &cut, NEW, NOW_MS)), merged(&split));
    }

    #[test]
    fn the_order_in_which_changes_come_does_not_matter((split, unseen) in shuffled()) {
        let twice = [unseen.clone(), unseen].concat();
        prop_assert_eq!(merge(&twice, &split.current, NEW, NOW_MS), merge(&split.unseen, &split.current, NEW, NOW_MS));
    }

    #[test]
    fn the_order_of_keys_does_not_matter(keys in prop::collection::btree_map(0_u8..20, any_split(), 1..8), first: prop::sample::Index) {
        let run = |order: &[u8]| {
            let mut catalog: BTreeMap<u8, History> = keys.iter().map(|(&key, split)| (key, split.current.clone())).collect();
            for key in order {
                let merged = catalog[key].after(&merge(&keys[key].unseen, &catalog[key], NEW, NOW_MS));
                catalog.insert(*key, merged);
            }
            catalog
        };
        let order: Vec<u8> = keys.keys().copied().collect();
        let mut turned = order.clone();
        turned.rotate_left(first.index(order.len()));
        turned.reverse();
        turned.push(order[0]);
        prop_assert_eq!(run(&order), run(&turned));
    }

    #[test]
    fn no_acknowledged_version_vanishes(split in any_split()) {
        let after = merged(&split);
        let kept = |version| {
            after.entries().any(|entry| entry.at.version == version) || after.conflicts.contains(&version) || after.is_lost(version)
        };
        for change in &split.unseen {
            let version = change.at.version;
            prop_assert!(kept(version) || (change.kind != Put && after.ledger.contains(&version)), "{change:?}");
        }
        for entry in split.current.entries() {
            prop_assert!(kept(entry.at.version));
        }
        prop_assert!(after.conflicts.is_superset(&split.current.conflicts));
        prop_assert!(split.current.lost.iter().all(|lost| kept(lost.at.version)));
    }

    /// Whether its bytes come before the old site's changes or after them.
    #[test]
    fn a_key_with_a_lost_head_that_nobody_touched_ends_as_the_old_site_had_it(keeps: bool, both in kinds(), old in kinds(), whole: bool, first: bool) {
        let split = split_with_loss(keeps, &both, &old, &[], whole);
        let before = if first { returned(&split.current) } else { split.current.clone() };
        let after = returned(&before.after(&merge(&split.unseen, &before, NEW, NOW_MS)));
        prop_assert!(after.lost.is_empty() && after.conflicts.is_empty() && after.ledger.is_empty(), "{after:?}");
        let shown = |history: &History| history.head.filter(|head| !head.deleted).map(|head| head.at.version);
        prop_assert_eq!(shown(&after), shown(&split.returning));
    }

    #[test]
    fn what_comes_back_never_takes_away_what_was_written_meanwhile(split in any_split_with_loss()) {
        let live = split.current.head.filter(|head| !head.deleted);
        let after = returned(&merged(&split));
        if split.meanwhile > 0 && live.is_some() {
            prop_assert_eq!(after.head, live);
        }
        for lost in &split.current.lost {
            prop_assert!(after.has(lost.at.version));
        }
    }

    #[test]
    fn what_the_newer_epoch_shows_is_never_taken_away(split in any_split()) {
        // What only stands in for a lost version was written before.
        let live = split.current.head.filter(|head| !head.deleted && head.at.epoch == NEW);
        if let Some(live) = live.filter(|_| split.meanwhile > 0) {
            prop_assert_eq!(merged(&split).head, Some(live));
        }
    }

    /// Neither epoch's delete hides a version that it did not name.
    #[test]
    fn no_delete_buries_what_it_had_not_seen(split in any_split()) {
        let mut shown = split.current.head.filter(|head| !head.deleted).map(|head| head.at.version);
        for settled in merge(&split.unseen, &split.current, NEW, NOW_MS) {
            match settled.action {
                MergeAction::DeleteDone(_) => {
                    prop_assert!(shown.is_none() || shown == settled.change.replaces.version());
                    shown = None;
                }
                MergeAction::BecomesHead(change) => {
                    prop_assert!(shown.is_none() || shown == settled.change.replaces.version());
                    shown = Some(change.at.version);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_key_untouched_meanwhile_ends_as_the_old_site_had_it(keeps: bool, both in kinds(), old in kinds(), collected: bool) {
        let split = split(keeps, &both, &old, &[], collected);
        prop_assert_eq!(split.meanwhile, 0);
        let (after, before) = (merged(&split), split.returning.clone());
        prop_assert!(after.conflicts.is_empty() && after.ledger.is_empty());
        if !old.is_empty() && !split.unseen.is_empty() {
            prop_assert_eq!(head(&after), head(&before));
        }
    }

    #[test]
    fn heads_only_grow_in_order(split in any_split()) {
        for settled in merge(&split.unseen, &split.current, NEW, NOW_MS) {
            if let MergeAction::BecomesHead(head) | MergeAction::DeleteDone(head) = settled.action {
                prop_assert!(head.over.is_none_or(|over| (over.epoch, over.hlc) < (head.at.epoch, head.at.hlc)));
            }
        }
    }

    /// Without P: whole catalogs are compared, and nothing that either has is lost.
    #[test]
    fn comparing_whole_catalogs_loses_nothing(split in any_split()) {
        let unseen = unseen_by_comparison(&split.returning, &split.current);
        let after = split.current.after(&merge(&unseen, &split.current, NEW, NOW_MS));
        for entry in split.returning.entries().chain(split.current.entries()) {
            prop_assert!(after.knows(entry.at.version), "{entry:?}");
        }
        for settled in merge(&unseen_by_comparison(&split.returning, &after), &after, NEW, NOW_MS) {
            prop_assert_eq!(settled.action, MergeAction::Nothing);
        }
    }
}
