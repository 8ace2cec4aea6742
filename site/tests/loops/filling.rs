//! A site whose devices are full of objects' bytes gets room again by what is deleted.

use std::time::Duration;

use diptych_core::ids::{BlobId, DeviceId, ExtentId, Row};
use diptych_core::keys;
use diptych_core::placement::MapDeviceState;
use diptych_core::records::{DeadMark, PlacedRow, Record};
use diptych_site::collector::Collector;
use diptych_site::nodes::NodeWatch;
use diptych_store::OpenOptions;

use crate::harness::{East, Journaling, NEEDED, ROWS, at_once, endpoint};
use crate::support::{Site, content, facts, head, rows_of, stamp, until};

const EXTENT: usize = 2 << 20;

/// Watches the agents of a site; its map is what they say.
async fn watch(east: &mut East) -> NodeWatch {
    let declared = east.site.agents.iter().map(endpoint).collect();
    let (catalog, agents) = (east.context.catalog.clone(), east.context.agents.clone());
    let standing = east.context.standing.clone();
    let survive = east.context.survive;
    let watch = NodeWatch::begin(catalog, agents, declared, standing, Duration::from_mins(1), survive).await;
    let watch = watch.expect("it begins");
    east.context.map = watch.map();
    watch.look().await.expect("a look");
    watch
}

fn states(east: &East) -> Vec<MapDeviceState> {
    east.context.map().devices().map(|(_, _, device)| device.state).collect()
}

/// Writes one extent as repair would, which goes on where clients stop; None: a device takes no more of that either.
async fn store(east: &East, number: u8) -> Option<ExtentId> {
    let (extent, bytes) = (ExtentId([number; 16]), content(u64::from(number), EXTENT));
    let facts = facts(extent, NEEDED, &bytes);
    let mut placed = Vec::new();
    for (row, bytes) in (0..ROWS).zip(rows_of(NEEDED, &bytes, ROWS)) {
        let client = east.site.operator(usize::from(row) / 2);
        let rows = vec![(head(&facts, u32::from(row), row, bytes.len()), bytes.into())];
        let generation = east.context.map().generation;
        let mut answers = client.place_rows(stamp(1, 1), generation, rows).await.expect("an answer");
        let instance = answers.pop().expect("one answer").ok()?;
        placed.push(PlacedRow { row: Row(row), device: DeviceId(u32::from(row)), instance });
    }
    east.enter(&facts, placed).await;
    Some(extent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_full_journals_on_so_what_is_deleted_makes_room() {
    let store_options = OpenOptions {
        capacity: Some(32 << 20),
        segment_bytes: 2 << 20,
        zero_ahead_bytes: 64 << 10,
        ..OpenOptions::default()
    };
    let mut east = East::start_on(Site::start_on(3, store_options).await, None, at_once()).await;
    east.seed().await;
    let watch = watch(&mut east).await;
    let mut stored = Vec::new();
    for number in 1..u8::MAX {
        if states(&east).iter().all(|state| *state == MapDeviceState::Full) {
            break;
        }
        stored.push(store(&east, number).await.expect("repair goes on to 95 %"));
        watch.look().await.expect("a look");
    }
    assert_eq!(states(&east), [MapDeviceState::Full; 6]);
    let east = &east;
    let mut collector = Collector::default();
    Journaling::default()
        .beside(&east.context, async {
            east.whole_checkpoint().await;
            for extent in &stored {
                let mark = DeadMark { sealed: EXTENT as u64 };
                east.put(vec![(keys::dead_mark(*extent, BlobId([4; 16])), mark.encode())]).await;
            }
            // Seen, condemned, freed: each once the journal has what was before.
            for _ in 0..4 {
                collector.pass(&east.context).await.expect("a pass");
                east.all_journaled().await;
            }
            until("there is room again", || async {
                watch.look().await.expect("a look");
                states(east).iter().all(|state| *state == MapDeviceState::Live)
            })
            .await;
        })
        .await;
    let placement = keys::placement(&crate::harness::east(), stored[0]);
    assert_eq!(east.get(&placement).await, None);
}
