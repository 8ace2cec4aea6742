//! An extent is called verified once every row of it was read from its disk and found right, and not before.

use diptych_core::ids::{DeviceId, InstanceId};
use diptych_core::keys;
use diptych_core::records::{Placement, Record};
use diptych_site::verified;

use crate::harness::{East, Stored, at_once};
use crate::support::{at, stamp};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

async fn placement(east: &East, stored: &Stored) -> Placement {
    let raw = east.get(&keys::placement(&east.context.site, stored.extent)).await.expect("it is placed");
    Placement::decode(&raw).expect("it reads")
}

async fn scrub(east: &East, devices: impl IntoIterator<Item = u32>) {
    for device in devices {
        let agent = east.site.operator(device as usize / 2);
        agent.scrub(Some(DeviceId(device)), true, LIMIT).await.expect("a round");
    }
}

async fn pass(east: &East) -> u64 {
    verified::pass(&east.context).await.expect("a pass")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extent_is_verified_when_the_last_of_its_devices_has_read_its_row() {
    let east = East::start(None, at_once()).await;
    let stored = east.store(1, 300_000, &[]).await;
    scrub(&east, 0..5).await;
    assert_eq!(pass(&east).await, 0, "device 5 has read nothing");
    assert_eq!(east.survey(&[]).await.health.verified, 0);
    let later = east.store(2, 300_000, &[]).await;
    scrub(&east, [5]).await;
    assert_eq!(pass(&east).await, 1, "the later extent was read on one device of six");
    let found = placement(&east, &stored).await;
    assert!(found.verified_day > 20_000, "days since 1970: {}", found.verified_day);
    assert_eq!(found.rows, stored.placement.rows);
    assert_eq!(placement(&east, &later).await.verified_day, 0);
    let health = east.survey(&[]).await.health;
    assert_eq!((health.verified, health.verified_day), (1, found.verified_day));
    assert_eq!(pass(&east).await, 0, "once a day is enough");
    scrub(&east, 0..6).await;
    assert_eq!(pass(&east).await, 1, "the later one, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lacks_a_row_or_names_another_record_is_not_verified() {
    let east = East::start(None, at_once()).await;
    let (lost, other, fewer) = (
        east.store(1, 100_000, &[]).await,
        east.store(2, 100_000, &[]).await,
        east.store(3, 100_000, &[]).await,
    );
    let row = lost.placement.rows[2];
    let gone = at(lost.extent, row.device.0, row.row.0, Some(row.instance));
    east.site.operator(1).delete(stamp(1, 1), vec![gone]).await.expect("an answer");
    let put = async |stored: &Stored, change: fn(&mut Placement)| {
        let mut placement = stored.placement.clone();
        change(&mut placement);
        east.put(vec![(keys::placement(&east.context.site, stored.extent), placement.encode())]).await;
    };
    put(&other, |placement| placement.rows[0].instance = InstanceId([9; 8])).await;
    put(&fewer, |placement| placement.rows.truncate(5)).await;
    scrub(&east, 0..6).await;
    assert_eq!(pass(&east).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_answer_leaves_the_day_as_it_was() {
    let mut east = East::start(None, at_once()).await;
    let stored = east.store(1, 100_000, &[]).await;
    let known = Placement { verified_day: 7, ..stored.placement.clone() };
    east.put(vec![(keys::placement(&east.context.site, stored.extent), known.encode())]).await;
    scrub(&east, 0..6).await;
    east.site.stop(2).await;
    assert_eq!(pass(&east).await, 0);
    assert_eq!(placement(&east, &stored).await, known);
}
