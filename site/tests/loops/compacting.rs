//! Compaction: what lives in mostly dead extents moves to a new one, whatever happens meanwhile, and their bytes are freed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use diptych_catalog::{Batch, Change, Write};
use diptych_core::compaction::{Recipe, SourceRange};
use diptych_core::ids::{BlobId, ExtentId, Row};
use diptych_core::keys::{self, Key};
use diptych_core::records::{CodingPlan, DeadMark, Extent, ExtentKind, ExtentState, Record, Wanted};
use diptych_core::whole;
use diptych_site::collector::Collector;
use diptych_site::compaction::Compaction;
use diptych_site::context::LoopOptions;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::{East, NEEDED, ROWS, at_once, east, west};
use crate::shared::{BUCKET, Objects, bytes_of, extent_of, extents, used};

const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

async fn alone() -> East {
    let east = East::start(None, at_once()).await;
    east.seed().await;
    east
}

/// Active, beside a site that is told of everything and says what the test says.
async fn beside_west() -> East {
    let site = East::start(Some(west()), at_once()).await;
    site.seed().await;
    let plan = CodingPlan { needed: NEEDED, rows: vec![(east(), ROWS), (west(), ROWS)] };
    site.put(vec![(keys::plan(0), plan.encode())]).await;
    site
}

async fn compact(site: &East, compaction: &mut Compaction, passes: usize) {
    for _ in 0..passes {
        compaction.pass(&site.context, true).await.expect("a pass");
    }
}

async fn collect(site: &East, passes: usize) {
    let mut collector = Collector::default();
    for _ in 0..passes {
        collector.pass(&site.context).await.expect("a pass");
    }
}

/// The extent that is being filled.
async fn filling(site: &East) -> Option<ExtentId> {
    let view = site.context.catalog.view().await.expect("a view");
    let is_it = |record: &Extent| matches!(record.state, ExtentState::Compacting(_));
    extents(view.as_ref()).into_iter().find(|(_, record)| is_it(record)).map(|(extent, _)| extent)
}

async fn known(site: &East) -> usize {
    extents(site.context.catalog.view().await.expect("a view").as_ref()).len()
}

async fn remove(site: &East, key: Key) {
    let gone = Change::blind(vec![Write::Delete(key)]);
    site.context.catalog.commit(Batch::one(None, gone)).await.expect("it commits");
}

/// Three extents of eight objects of 4 KiB each, of which every key's newest is one: five of eight are dead in the first two.
async fn three_mostly_dead(site: &East) -> (Objects, Vec<ExtentId>) {
    let mut objects = Objects::default();
    let mut made = Vec::new();
    for round in 0..3 {
        let names: Vec<String> = KEYS.iter().map(|key| format!("{key}{round}")).collect();
        let sizes: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 4_096)).collect();
        made.push(objects.put(site, &sizes).await);
        for name in &names[..5] {
            objects.delete(site, name).await;
        }
    }
    (objects, made)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lives_in_mostly_dead_extents_moves_to_one_and_their_bytes_are_freed() {
    let site = alone().await;
    let (objects, made) = three_mostly_dead(&site).await;
    let before = used(&site).await;
    let mut compaction = Compaction::new(&site.context);
    compact(&site, &mut compaction, 1).await;
    assert_eq!(compaction.status().extents, 1);
    assert_eq!(compaction.status().dead_bytes, 15 * 4_112, "what is copied is not counted before it is");
    compact(&site, &mut compaction, 1).await;
    assert_eq!((compaction.status().extents, compaction.status().versions), (0, 9));
    objects.all_read(&site).await;
    collect(&site, 5).await;
    objects.all_read(&site).await;
    let into = extent_of(&site, "h0").await;
    assert!(!made.contains(&into));
    assert_eq!(extent_of(&site, "f2").await, into, "they share one");
    assert_eq!(known(&site).await, 1);
    let after = used(&site).await;
    assert!(after * 2 < before, "{before} bytes before, {after} after");
    compact(&site, &mut compaction, 2).await;
    assert_eq!((known(&site).await, compaction.status().dead_bytes), (1, 0), "nothing is left to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_less_than_half_dead_or_waits_behind_repair_is_left_alone() {
    let site = alone().await;
    let mut objects = Objects::default();
    objects.put(&site, &KEYS.map(|key| (key, 4_096))).await;
    for key in &KEYS[..3] {
        objects.delete(&site, key).await;
    }
    let mut compaction = Compaction::new(&site.context);
    compact(&site, &mut compaction, 2).await;
    assert_eq!(known(&site).await, 1);
    objects.delete(&site, KEYS[3]).await;
    compaction.pass(&site.context, false).await.expect("a pass");
    assert_eq!(filling(&site).await, None, "something more urgent waits");
    compact(&site, &mut compaction, 1).await;
    assert!(filling(&site).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_switched_before_the_other_site_has_confirmed_and_the_journal_has_it() {
    let site = beside_west().await;
    let (objects, made) = three_mostly_dead(&site).await;
    let mut compaction = Compaction::new(&site.context);
    compact(&site, &mut compaction, 2).await;
    assert_eq!(filling(&site).await, None, "the other site could not make it: it lacks the old ones");
    for extent in &made {
        site.whole_in_west(*extent).await;
    }
    compact(&site, &mut compaction, 3).await;
    let into = filling(&site).await.expect("it is begun");
    assert!(made.contains(&extent_of(&site, "h0").await), "the other site has confirmed nothing");
    site.whole_in_west(into).await;
    let journaled = site.context.journaled.send_replace(None);
    site.confirm().await;
    compact(&site, &mut compaction, 2).await;
    assert!(made.contains(&extent_of(&site, "h0").await), "the journal does not have it");
    site.context.journaled.send_replace(journaled);
    compact(&site, &mut compaction, 1).await;
    assert_eq!((extent_of(&site, "h0").await, filling(&site).await), (into, None));
    collect(&site, 3).await;
    assert_eq!(known(&site).await, 4, "what died waits for the other site, as ever");
    objects.all_read(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_changed_meanwhile_keeps_its_own_and_what_was_copied_of_it_dies() {
    let site = alone().await;
    let (mut objects, made) = three_mostly_dead(&site).await;
    let mut compaction = Compaction::new(&site.context);
    compact(&site, &mut compaction, 1).await;
    let into = filling(&site).await.expect("it is begun");
    objects.put(&site, &[("h0", 10_000)]).await;
    objects.delete(&site, "f1").await;
    // A keeper that begins knows nothing but what the catalog says: it looks, then it switches.
    compact(&site, &mut compaction, 1).await;
    assert_eq!(filling(&site).await, None);
    let own = extent_of(&site, "h0").await;
    assert!(own != into && !made.contains(&own));
    assert_eq!(extent_of(&site, "h1").await, into);
    collect(&site, 5).await;
    objects.all_read(&site).await;
    let view = site.context.catalog.view().await.expect("a view");
    let marks = view.scan(&keys::dead_marks(into), 100).expect("it reads").entries;
    let dead: u64 = marks.iter().map(|(_, raw)| DeadMark::decode(raw).expect("it reads").sealed).sum();
    assert_eq!(dead, 2 * 4_112, "of the two that went elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_begins_goes_on_with_what_the_one_before_it_left() {
    let site = alone().await;
    let (objects, made) = three_mostly_dead(&site).await;
    compact(&site, &mut Compaction::new(&site.context), 1).await;
    let into = filling(&site).await.expect("it is begun");
    compact(&site, &mut Compaction::new(&site.context), 2).await;
    assert_eq!((extent_of(&site, "g2").await, filling(&site).await), (into, None));
    collect(&site, 5).await;
    assert_eq!(known(&site).await, 1, "{made:?} are freed");
    objects.all_read(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_took_over_without_the_new_extent_drops_it() {
    let site = beside_west().await;
    let (objects, made) = three_mostly_dead(&site).await;
    for extent in &made {
        site.whole_in_west(*extent).await;
    }
    compact(&site, &mut Compaction::new(&site.context), 1).await;
    let into = filling(&site).await.expect("it is begun");
    // As where the other site had begun it, and its bytes never came.
    remove(&site, keys::placement(&east(), into)).await;
    let wanted = Wanted { kind: ExtentKind::Data, bytes: 1, since_ms: 1, revision: 1 };
    site.put(vec![(keys::wanted(&east(), into), wanted.encode())]).await;
    let mut compaction = Compaction::new(&site.context);
    compact(&site, &mut compaction, 2).await;
    assert_eq!(filling(&site).await, Some(into), "the site that began it may come back with it");
    site.confirm().await;
    compaction.pass(&site.context, false).await.expect("a pass");
    assert_eq!(filling(&site).await, None);
    assert!(made.contains(&extent_of(&site, "h0").await), "no version was switched");
    let mut collector = Collector::default();
    for _ in 0..4 {
        collector.pass(&site.context).await.expect("a pass");
        site.confirm().await;
    }
    assert_eq!(site.get(&keys::extent(into)).await, None);
    assert_eq!(site.get(&keys::wanted(&east(), into)).await, None);
    objects.all_read(&site).await;
}

/// Has a passive site that was told of a new extent, and has both that it is made of or the first of them, see to it. How often the
/// other site was asked, and whether its rows give the right bytes.
async fn told_of_a_new_extent(has_both: bool) -> (usize, bool) {
    let mut site = East::start(Some(west()), LoopOptions::default()).await;
    site.seed().await;
    let mut objects = Objects::default();
    let first = objects.put_from(&site, &[("a", 5_000), ("b", 6_000)], Row(ROWS)).await;
    let second = objects.put_from(&site, &[("c", 7_000)], Row(ROWS)).await;
    let (one, two) = (bytes_of(&site, first).await, bytes_of(&site, second).await);
    let range = |extent, offset, length| SourceRange { extent, offset, length };
    let ranges = vec![range(second, 0, 7_016), range(first, 5_016, 6_016)];
    let bytes = [&two[..7_016], &one[5_016..11_032], b"its tail"].concat();
    let raw = site.get(&keys::extent(first)).await.expect("it is known");
    let record = Extent {
        state: ExtentState::Compacting(Recipe { ranges, tail: b"its tail".to_vec() }),
        length: bytes.len() as u32,
        payload: 13_032,
        hash: *blake3::hash(&bytes).as_bytes(),
        ..Extent::decode(&raw).expect("it reads")
    };
    if !has_both {
        remove(&site, keys::placement(&east(), second)).await;
    }
    let asked = site.open_door(&bytes).await;
    let into = ExtentId([0xee; 16]);
    let wanted = Wanted { kind: ExtentKind::Data, bytes: record.length, since_ms: 1, revision: 1 };
    let told = vec![(keys::extent(into), record.encode()), (keys::wanted(&east(), into), wanted.encode())];
    site.put(told).await;
    let rows = site.brought_here(into).await;
    (
        asked.load(Ordering::Relaxed),
        whole::recover(NEEDED, bytes.len() as u64, &record.hash, &rows) == Some(bytes),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_site_makes_it_of_what_it_has_and_no_byte_crosses() {
    assert_eq!(told_of_a_new_extent(true).await, (0, true), "from parity rows alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_of_the_old_extents_is_not_here_the_new_one_crosses() {
    assert_eq!(told_of_a_new_extent(false).await, (1, true));
}

/// Puts, deletes and passes at random, each pass broken off somewhere now and then, as by a kill. Versions that were switched.
async fn at_random(seed: u64) -> u64 {
    let site = alone().await;
    let mut dice = StdRng::seed_from_u64(seed);
    let mut objects = Objects::default();
    let (mut compaction, mut collector) = (Compaction::new(&site.context), Collector::default());
    let mut switched = 0;
    for _ in 0..50 {
        let some = dice.random_range(0..KEYS.len());
        match dice.random_range(0..6) {
            0 | 1 => {
                let mut sizes: Vec<(&str, usize)> =
                    KEYS.iter().map(|key| (*key, dice.random_range(1..9_000))).collect();
                sizes.rotate_left(some);
                sizes.truncate(dice.random_range(1..=KEYS.len()));
                objects.put(&site, &sizes).await;
            }
            2 => objects.delete(&site, KEYS[some]).await,
            3 => collector.pass(&site.context).await.map(drop).expect("a pass"),
            _ => {
                let until_it_is_killed = Duration::from_micros(dice.random_range(1..20_000));
                let pass = compaction.pass(&site.context, true);
                if let Ok(pass) = tokio::time::timeout(until_it_is_killed, pass).await {
                    pass.expect("a pass");
                } else {
                    switched += compaction.status().versions;
                    compaction = Compaction::new(&site.context);
                }
            }
        }
        objects.all_read(&site).await;
    }
    compact(&site, &mut compaction, 4).await;
    switched += compaction.status().versions;
    // What a pass that was killed left unnamed dies, too.
    for _ in 0..6 {
        collect(&site, 4).await;
        compact(&site, &mut compaction, 3).await;
    }
    objects.all_read(&site).await;
    nothing_is_named_and_marked(&site, &objects).await;
    let live: u64 = objects.stored.values().map(|plain| plain.len() as u64 + 16).sum();
    let dead = compaction.status().dead_bytes;
    assert!(dead <= live, "{dead} bytes are dead beside {live} that live: half of an extent at most");
    switched
}

/// A mark on bytes that are named would let them be freed.
async fn nothing_is_named_and_marked(site: &East, objects: &Objects) {
    for key in objects.stored.keys() {
        let extent = extent_of(site, key).await;
        let view = site.context.catalog.view().await.expect("a view");
        let marks = view.scan(&keys::dead_marks(extent), 1_000).expect("it reads").entries;
        let marked = |blob: BlobId| marks.iter().any(|(mark, _)| *mark == keys::dead_mark(extent, blob));
        assert!(!marked(crate::shared::blob_id(site, key).await), "{BUCKET:?} {key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_stored_deleted_and_killed_every_object_reads_as_it_was_stored() {
    let replayed = std::env::var("DIPTYCH_COMPACTION_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds = replayed.map_or_else(|| (0..2).map(|_| rand::random()).collect(), |seed| vec![seed]);
    let mut switched = 0;
    for seed in seeds {
        println!("DIPTYCH_COMPACTION_SEED={seed} replays it");
        switched += at_random(seed).await;
    }
    assert!(switched > 0, "nothing was compacted");
}
