//! Rows that come in pieces: 64 MiB through one agent, within bounds of memory.

mod support;

use bytes::Bytes;
use diptych_core::ids::{DeviceId, Row};
use diptych_core::layout::{SHARD, StripeLayout};
use diptych_core::records::Holds;
use diptych_wire::agent::{AgentError, Begin, BeginRow};
use diptych_wire::client::CallError;
use support::{MAP, Site, at, content, extent_id, facts, peak_memory, stamp, whole};

fn begin(extent: u8, needed: u8, rows: &[(u32, u8)], reserve: u64) -> Begin {
    let facts = facts(extent_id(extent), needed, b"any");
    Begin {
        stamp: stamp(1, 1),
        map_generation: MAP,
        extent: facts.extent,
        needed,
        holds: Holds::Data,
        birth_epoch: facts.birth_epoch,
        birth_hlc: facts.birth_hlc,
        rows: rows
            .iter()
            .map(|&(device, row)| BeginRow {
                device: DeviceId(device),
                row: Row(row),
                reserve: reserve as u32,
            })
            .collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_times_64_mib_stream_through_bounded_memory() {
    let site = Site::start(1).await;
    site.raise_all().await;
    let gateway = site.gateway(0);
    let len = 64 << 20;
    let layout = StripeLayout::new(2, len);
    let shard = content(1, SHARD);
    for extent in 0..16u8 {
        let begin = begin(extent, 2, &[(0, 0), (1, 1)], layout.row_len());
        let (mut stream, begun) = gateway.begin(&begin).await.expect("it begins");
        assert_eq!(begun, [Ok(()), Ok(())]);
        let mut hasher = blake3::Hasher::new();
        for stripe in 0..layout.stripes() {
            let mut shard = shard.clone();
            shard[..4].copy_from_slice(&stripe.to_le_bytes());
            let shard = Bytes::from(shard);
            hasher.update(&shard).update(&shard);
            stream.append(vec![(0, shard.clone()), (1, shard)]).await.expect("it is taken");
        }
        let sealed = stream.seal(len as u32, *hasher.finalize().as_bytes()).await.expect("it is sealed");
        let instance = *sealed[1].as_ref().expect("row 1 is durable");
        let mut last = whole(at(extent_id(extent), 1, 1, Some(instance)), SHARD);
        last.offset = layout.shard_offset(layout.stripes() - 1) as u32;
        let read = gateway.read(last).await.expect("it is there");
        assert_eq!(read[..4], (layout.stripes() - 1).to_le_bytes());
        assert_eq!(read[4..], shard[4..]);
    }
    // Sender and agent both live here, so the product's bound of one process stands for two.
    assert!(peak_memory() < 256 << 20, "{} MiB", peak_memory() >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_can_not_begin_is_told_and_the_others_go_on() {
    let site = Site::start(1).await;
    site.raise_all().await;
    let bytes = content(2, 1000);
    let begin = begin(1, 1, &[(77, 0), (1, 1)], 1000);
    let (mut stream, begun) = site.gateway(0).begin(&begin).await.expect("it begins");
    assert_eq!(begun, [Err(AgentError::DeviceMissing { device: DeviceId(77) }), Ok(())]);
    stream
        .append(vec![(0, Bytes::from(bytes.clone())), (1, Bytes::from(bytes.clone()))])
        .await
        .expect("it is taken");
    let facts = facts(extent_id(1), 1, &bytes);
    let sealed = stream.seal(facts.length, facts.hash).await.expect("it is sealed");
    assert!(sealed[0].is_err());
    assert!(sealed[1].is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_given_up_or_too_short_leaves_no_row() {
    let site = Site::start(1).await;
    site.raise_all().await;
    let gateway = site.gateway(0);
    let bytes = content(3, 1000);
    let facts = facts(extent_id(1), 1, &bytes);
    let (mut stream, _) = gateway.begin(&begin(1, 1, &[(0, 0)], 1000)).await.expect("it begins");
    stream.append(vec![(0, Bytes::from(bytes.clone()))]).await.expect("it is taken");
    stream.abandon().await.expect("it is given up");
    let (mut stream, _) = gateway.begin(&begin(1, 1, &[(0, 0)], 1000)).await.expect("it begins");
    stream.append(vec![(0, Bytes::copy_from_slice(&bytes[..999]))]).await.expect("it is taken");
    let sealed = stream.seal(facts.length, facts.hash).await.expect("an answer");
    assert!(matches!(sealed[..], [Err(AgentError::Invalid { .. })]), "{sealed:?}");
    assert!(gateway.inventory(DeviceId(0), None, None, 10).await.expect("a page").records.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_term_that_ended_meanwhile_is_not_sealed() {
    let site = Site::start(1).await;
    site.raise_all().await;
    let gateway = site.gateway(0);
    let bytes = content(4, 1000);
    let facts = facts(extent_id(1), 1, &bytes);
    let (mut stream, _) = gateway.begin(&begin(1, 1, &[(0, 0)], 1000)).await.expect("it begins");
    stream.append(vec![(0, Bytes::from(bytes))]).await.expect("it is taken");
    site.operator(0).raise(stamp(2, 1)).await.expect("a newer epoch");
    let refused = stream.seal(facts.length, facts.hash).await.expect_err("its term is over");
    assert!(
        matches!(refused, CallError::Agent(AgentError::StaleStamp { have }) if have == stamp(2, 1)),
        "{refused}"
    );
    assert!(gateway.inventory(DeviceId(0), None, None, 10).await.expect("a page").records.is_empty());
}
