//! Reads of rows in files that agents of this machine have lent.

use std::os::unix::fs::FileExt;

use crate::common::{TestSite, eventually, noise};
use diptych_core::ids::ExtentId;
use diptych_core::records::{PlacedRow, Placement};
use diptych_wire::agent::RowAt;
use reqwest::StatusCode;

const MIB: usize = 1 << 20;

async fn counted(site: &TestSite, metric: &str) -> u64 {
    let text = site.http.get(site.rest("/metrics")).send().await.expect("an answer").text().await;
    let text = text.expect("text");
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("diptych_gateway_{metric} ")));
    value.map_or(0, |value| value.parse().expect("a number"))
}

async fn lent(site: &TestSite, outcome: &str) -> u64 {
    counted(site, &format!("lent_reads_total{{outcome=\"{outcome}\"}}")).await
}

async fn put(site: &TestSite, id: &str, body: &[u8]) {
    assert_eq!(site.post(id, body.to_vec()).await.status(), StatusCode::CREATED);
}

async fn read(site: &TestSite, id: &str, expected: &[u8]) {
    let answer = site.get(id).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.bytes().await.expect("a body") == expected, "{id} differs");
}

/// Reads until that was done by loan: a machine that is busy may be too slow for one at first.
async fn read_lent(site: &TestSite, id: &str, expected: &[u8]) {
    eventually("it is read where it lies", async || {
        let before = lent(site, "read").await;
        read(site, id, expected).await;
        lent(site, "read").await > before
    })
    .await;
}

fn row_at(extent: ExtentId, placed: &PlacedRow) -> RowAt {
    RowAt { device: placed.device, extent, row: placed.row, instance: Some(placed.instance) }
}

/// Changes a byte of a row, behind the agent's back.
async fn rot(site: &TestSite, extent: ExtentId, placed: &PlacedRow, offset: u64) {
    let located = site.node_of(placed.device).client.locate(vec![row_at(extent, placed)]).await;
    let place = located.expect("an answer").remove(0).expect("it is there").expect("it lies in a file");
    let name = format!("{:016x}.segment", place.segment);
    let path = site.device_path(placed.device).join("segments").join(name);
    let segment = std::fs::File::options().read(true).write(true).open(path).expect("it opens");
    let mut byte = [0];
    segment.read_exact_at(&mut byte, place.offset + offset).expect("it reads");
    segment.write_all_at(&[byte[0] ^ 1], place.offset + offset).expect("it is written");
}

fn row(placement: &Placement, number: u8) -> &PlacedRow {
    placement.rows.iter().find(|placed| placed.row.0 == number).expect("it is placed")
}

/// Reads of which the agents of the site know.
async fn asked(site: &TestSite) -> u64 {
    let mut asked = 0;
    for node in &site.nodes {
        let text = node.client.metrics().await.expect("metrics");
        let reads = text.lines().filter(|line| line.contains("op=\"read\"") && line.contains("_total"));
        asked += reads.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
    }
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_ranges_of_every_size_are_read_where_they_lie_and_agents_are_hardly_asked() {
    let site = TestSite::start().await;
    let sizes = [1, 4096, 200_000, MIB, 3 * MIB + 99, 9 * MIB + 1];
    for (number, size) in sizes.into_iter().enumerate() {
        put(&site, &format!("file{number}"), &noise(size, number as u64)).await;
    }
    let before = asked(&site).await;
    for (number, size) in sizes.into_iter().enumerate() {
        let (id, body) = (format!("file{number}"), noise(size, number as u64));
        read_lent(&site, &id, &body).await;
        let (first, last) = (size / 3, size - 1 - size / 5);
        let range = site.range(&id, first, last).await.bytes().await.expect("a body");
        assert!(range == body[first..=last], "a range of {id} differs");
    }
    assert_eq!((lent(&site, "failed").await, lent(&site, "wrong").await), (0, 0));
    let (asked, lent) = (asked(&site).await - before, lent(&site, "read").await);
    assert!(lent >= 20 && asked * 4 <= lent, "{lent} runs were read by loan, agents read {asked} times");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_byte_in_a_lent_file_is_noticed_named_and_read_from_other_rows() {
    let site = TestSite::start().await;
    let (long, short) = (noise(3 * MIB + 99, 1), noise(4096, 2));
    put(&site, "long", &long).await;
    let (extent, placement) = site.placements().await.remove(0);
    put(&site, "short", &short).await;
    read_lent(&site, "long", &long).await;
    read_lent(&site, "short", &short).await;
    assert_eq!(lent(&site, "wrong").await, 0);

    rot(&site, extent, row(&placement, 1), 1_000).await;
    read(&site, "long", &long).await;
    assert!(lent(&site, "wrong").await > 0, "the tag fits although a byte is wrong");
    let device = row(&placement, 1).device;
    let status = site.node_of(device).client.status().await.expect("a status");
    let found = status.devices.iter().flat_map(|device| &device.findings);
    let found: Vec<_> = found.map(|finding| (finding.extent, finding.row.0)).collect();
    assert_eq!(found, [(extent, 1)], "the agent did not name it");

    // The other extent is the short one's, which begins in its first row.
    let others: Vec<_> = site.placements().await.into_iter().filter(|(id, _)| *id != extent).collect();
    let (extent, placement) = &others[0];
    rot(&site, *extent, row(placement, 0), 100).await;
    read(&site, "short", &short).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_node_gone_other_rows_that_are_lent_are_decoded_and_it_is_read_again_when_it_is_back() {
    let mut site = TestSite::start().await;
    let body = noise(3 * MIB + 99, 3);
    put(&site, "file", &body).await;
    read_lent(&site, "file", &body).await;
    site.nodes[0].stop().await;
    read(&site, "file", &body).await;
    let before = counted(&site, "degraded_reads_total").await;
    read_lent(&site, "file", &body).await;
    assert!(counted(&site, "degraded_reads_total").await > before, "its rows were on all nodes");
    site.nodes[0].run().await;
    let client = &site.nodes[0].client;
    client.raise(site.stamp()).await.expect("the agent hears its epoch");
    eventually("nothing is decoded any more", async || {
        let before = counted(&site, "degraded_reads_total").await;
        read(&site, "file", &body).await;
        counted(&site, "degraded_reads_total").await == before
    })
    .await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_deleted_since_is_read_no_longer_than_its_file_is_lent() {
    let site = TestSite::start().await;
    let body = noise(3 * MIB + 99, 4);
    put(&site, "file", &body).await;
    read_lent(&site, "file", &body).await;
    let (extent, placement) = site.placements().await.remove(0);
    site.lose_rows(extent, &placement, &[0, 1]).await;
    read(&site, "file", &body).await;
    assert!(counted(&site, "degraded_reads_total").await > 0, "rows that are gone were read");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_is_read_by_way_of_the_agents() {
    let site = TestSite::start().await;
    let body = noise(3 * MIB + 99, 5);
    put(&site, "file", &body).await;
    read_lent(&site, "file", &body).await;
    let (extent, placement) = site.placements().await.remove(0);
    let placed = row(&placement, 2);
    let folder = site.device_path(placed.device).join("segments");
    let located = site.node_of(placed.device).client.locate(vec![row_at(extent, placed)]).await;
    let place = located.expect("an answer").remove(0).expect("it is there").expect("it lies in a file");
    let path = folder.join(format!("{:016x}.segment", place.segment));
    let segment = std::fs::File::options().write(true).open(path).expect("it opens");
    segment.set_len(place.offset + 1_000).expect("it is cut");
    read(&site, "file", &body).await;
    assert!(lent(&site, "failed").await > 0, "the file is too short");
    site.stop().await;
}
