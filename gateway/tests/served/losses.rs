//! Rows that are missing: other rows serve, or an error says what is missing; wrong bytes never.

use std::time::Duration;

use crate::common::{TestSite, map, noise};
use bytes::Bytes;
use diptych_core::erasure::Decoder;
use diptych_core::ids::{DeviceId, Generation, Row, SiteName};
use diptych_core::keys;
use diptych_core::placement::NodeState;
use diptych_core::records::{PlacedRow, Placement, Record};
use diptych_wire::agent::{RowAt, RowHead};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn with_any_two_rows_gone_a_file_still_reads_and_with_three_it_says_what_is_missing() {
    let site = TestSite::start().await;
    let plain = noise(3 * MIB + 99, 5);
    assert_eq!(site.post("file", plain.clone()).await.status(), StatusCode::CREATED);
    let placements = site.placements().await;
    let (extent, placement) = placements.first().expect("one extent");
    for rows in [&[0_u8, 5][..], &[1]] {
        site.lose_rows(*extent, placement, rows).await;
        if rows.len() == 2 {
            let read = site.get("file").await;
            assert_eq!(read.status(), StatusCode::OK);
            assert!(read.bytes().await.expect("a body") == plain, "it differs");
            let range = site.range("file", MIB - 3, 2 * MIB).await.bytes().await.expect("a body");
            assert!(range == plain[MIB - 3..=2 * MIB], "a range differs");
        }
    }
    let refused = site.get("file").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    let error: Value = refused.json().await.expect("JSON");
    assert_eq!(error["error"]["code"], "InsufficientFragments");
    assert_eq!(error["error"]["needed"], 4);
    assert_eq!(error["error"]["present"], serde_json::json!([2, 3, 4]));
    let missing = error["error"]["missing"].as_str().expect("text");
    for row in ["row 0 on ", "row 1 on ", "row 5 on "] {
        assert!(missing.contains(row), "{missing}");
    }
    let metrics =
        site.http.get(site.rest("/metrics")).send().await.expect("an answer").text().await.expect("text");
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("diptych_gateway_degraded_reads_total") && !line.ends_with(" 0"))
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_rows_here_those_of_the_other_site_are_read_and_with_too_few_anywhere_it_says_so() {
    let site = TestSite::start().await;
    site.plan_for_two_sites().await;
    let plain = noise(3 * MIB + 99, 6);
    assert_eq!(site.post("file", plain.clone()).await.status(), StatusCode::CREATED);
    let (extent, placement) = site.placements().await.remove(0);
    let data = site.rows(extent, &placement, &[0, 1, 2, 3]).await;
    let have: Vec<Row> = (0..4).map(Row).collect();
    let data: Vec<&[u8]> = data.iter().map(|row| &row[..]).collect();
    let made = Decoder::new(4, &have, &[Row(8)]).expect("a decoder").decode(&data).expect("it decodes");
    let eighth = Bytes::from(made.into_iter().next().expect("one row"));
    site.lose_rows(extent, &placement, &[0, 2, 4]).await;

    let refused = site.get("file").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let error: Value = refused.json().await.expect("JSON");
    assert_eq!(error["error"]["code"], "InsufficientFragments");
    assert_eq!(error["error"]["present"], serde_json::json!([1, 3, 5]));
    let missing = error["error"]["missing"].as_str().expect("text");
    for row in ["row 0 on ", "row 6 in west: ", "row 11 in west: "] {
        assert!(missing.contains(row), "{missing}");
    }

    site.other.rows.lock().expect("no panic").insert((extent, Row(8)), eighth);
    let read = site.get("file").await;
    assert_eq!(read.status(), StatusCode::OK);
    assert!(read.bytes().await.expect("a body") == plain, "it differs");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_rows_in_both_sites_those_outside_make_up_k() {
    let site = TestSite::start().await;
    site.plan_for_two_sites().await;
    let mut outside = site.start_outside().await;
    let plain = noise(3 * MIB + 99, 8);
    assert_eq!(site.post("file", plain.clone()).await.status(), StatusCode::CREATED);
    let (extent, placement) = site.placements().await.remove(0);
    let data = site.rows(extent, &placement, &[0, 1, 2, 3]).await;
    let have: Vec<Row> = (0..4).map(Row).collect();
    let data: Vec<&[u8]> = data.iter().map(|row| &row[..]).collect();
    let made = Decoder::new(4, &have, &[Row(12)]).expect("a decoder").decode(&data).expect("it decodes");
    let row = Bytes::from(made.into_iter().next().expect("one row"));
    let placed = placement.rows[0];
    let at = RowAt { device: placed.device, extent, row: placed.row, instance: Some(placed.instance) };
    let head = site.node_of(placed.device).client.describe(at).await.expect("it is there").head;
    let head = RowHead { device: DeviceId(0), row: Row(12), ..head };
    let written = outside.client.place_rows(site.stamp(), Generation(1), vec![(head, row)]).await;
    let instance = written.expect("an answer").remove(0).expect("it is durable");
    let rows = vec![PlacedRow { row: Row(12), device: DeviceId(0), instance }];
    let record = Placement { rows, verified_day: 0 };
    site.put_keys(vec![(keys::placement(&SiteName::outside(), extent), record.encode().into())]).await;

    site.lose_rows(extent, &placement, &[0, 2, 4]).await;
    let read = site.get("file").await;
    assert_eq!(read.status(), StatusCode::OK);
    assert!(read.bytes().await.expect("a body") == plain, "it differs");

    outside.stop().await;
    let refused = site.get("file").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let error: Value = refused.json().await.expect("JSON");
    let missing = error["error"]["missing"].as_str().expect("text");
    assert!(missing.contains("row 12 on "), "{missing}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_wrong_although_its_checksums_are_right_is_found_and_read_around() {
    let site = TestSite::start().await;
    let plain = noise(MIB, 21);
    assert_eq!(site.post("file", plain.clone()).await.status(), StatusCode::CREATED);
    let (extent, mut placement) = site.placements().await.remove(0);
    let placed = placement.rows[1];
    let at = RowAt { device: placed.device, extent, row: placed.row, instance: Some(placed.instance) };
    let client = &site.node_of(placed.device).client;
    let head = client.describe(at).await.expect("it is there").head;
    let forged = Bytes::from(noise(head.len as usize, 99));
    site.lose_rows(extent, &placement, &[placed.row.0]).await;
    let written =
        client.place_rows(site.stamp(), Generation(1), vec![(head, forged)]).await.expect("an answer");
    placement.rows[1].instance = *written[0].as_ref().expect("it is durable");
    site.put_keys(vec![(keys::placement(&site.site, extent), placement.encode().into())]).await;

    let read = site.get("file").await;
    assert_eq!(read.status(), StatusCode::OK);
    assert!(read.bytes().await.expect("a body") == plain, "wrong bytes were given out");
    let metrics =
        site.http.get(site.rest("/metrics")).send().await.expect("an answer").text().await.expect("text");
    assert!(metrics.contains("rows_unreadable_total{category=\"forged\"} 1"), "{metrics}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_node_is_down_files_are_read_and_written_and_its_rows_lie_on_the_others() {
    let mut site = TestSite::start().await;
    let before = noise(2 * MIB, 1);
    assert_eq!(site.post("before", before.clone()).await.status(), StatusCode::CREATED);
    site.nodes[1].stop().await;
    let read = site.get("before").await;
    assert_eq!(read.status(), StatusCode::OK);
    assert!(read.bytes().await.expect("a body") == before);
    for (id, size) in [("small", 100), ("middle", 2 * MIB), ("large", 9 * MIB)] {
        let plain = noise(size, 7);
        let answer = site.post(id, plain.clone()).await;
        let status = answer.status();
        assert_eq!(status, StatusCode::CREATED, "{id}: {}", answer.text().await.expect("text"));
        assert!(site.get(id).await.bytes().await.expect("a body") == plain, "{id} differs");
    }
    let lost = [2, 3];
    for (_, placement) in site.placements().await.iter().skip(1) {
        assert!(placement.rows.len() >= 4);
    }
    let on_lost =
        |rows: &diptych_core::records::Placement| rows.rows.iter().any(|row| lost.contains(&row.device.0));
    let with_lost = site.placements().await.iter().filter(|(_, rows)| on_lost(rows)).count();
    assert_eq!(with_lost, 1, "only what was written before has rows on the node that is down");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_no_node_takes_are_refused_and_store_nothing() {
    let mut site = TestSite::start().await;
    for node in &mut site.nodes {
        node.stop().await;
    }
    for size in [1000, 5 * MIB] {
        let answer = site.post("file", noise(size, 3)).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let error: Value = answer.json().await.expect("JSON");
        assert_eq!(error["error"]["code"], "NotDurable", "{error}");
    }
    assert_eq!(site.count(b"h/").await + site.count(b"x/").await, 0);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_placement_map_is_taken_into_use_without_a_restart() {
    let site = TestSite::start().await;
    let mut new = map(&site.nodes);
    new.generation = Generation(2);
    new.nodes[2].state = NodeState::Draining;
    site.put_keys(vec![(keys::map(&site.site), new.encode().into())]).await;
    crate::common::eventually("the map is taken", async || {
        site.gateway().context().agents().generation() == Generation(2)
    })
    .await;
    assert_eq!(
        site.post("file", noise(1000, 3)).await.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "four devices, no node to lose"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_shorter_than_its_length_stores_nothing_and_says_so() {
    let site = TestSite::start().await;
    for (length, sent) in [(1000_usize, 400_usize), (3 * MIB, 2 * MIB)] {
        let mut stream = tokio::net::TcpStream::connect(site.gateway().rest()).await.expect("a connection");
        let head = format!(
            "POST /api/v1/files?id=short HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {length}\r\n\r\n",
            crate::common::TOKEN
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(&noise(sent, 1)).await.expect("sent");
        stream.shutdown().await.expect("the end");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        read.expect("in time").expect("an end");
        let answer = String::from_utf8_lossy(&answer);
        if !answer.is_empty() {
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            assert!(answer.contains("IncompleteBody"), "{answer}");
        }
        assert_eq!(site.get("short").await.status(), StatusCode::NOT_FOUND);
    }
    assert_eq!(site.count(b"h/").await, 0);
    site.stop().await;
}
