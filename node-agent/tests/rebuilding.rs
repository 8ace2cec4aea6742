//! Lost and forged rows.

mod support;

use diptych_core::ids::{DeviceId, InstanceId, Row};
use diptych_wire::agent::{AgentError, ExtentFacts, Rebuild, Source};
use support::{MAP, Site, at, content, extent_id, facts, place, rows_of, stamp, whole};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// Rows 0..5 of a 4-row code on devices 0..5 of three nodes; row `forged` has other bytes under right checksums.
struct Placed {
    facts: ExtentFacts,
    rows: Vec<Vec<u8>>,
    instances: Vec<InstanceId>,
}

async fn place_all(site: &Site, number: u8, len: usize, forged: &[u8]) -> Placed {
    let bytes = content(u64::from(number), len);
    let facts = facts(extent_id(number), 4, &bytes);
    let rows = rows_of(4, &bytes, 6);
    let mut instances = Vec::new();
    for row in 0..6u8 {
        let mut bytes = rows[usize::from(row)].clone();
        if forged.contains(&row) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        let client = site.gateway(usize::from(row) / 2);
        instances.push(place(&client, &facts, u32::from(row), row, &bytes).await);
    }
    Placed { facts, rows, instances }
}

impl Placed {
    fn source(&self, site: &Site, row: u8) -> Source {
        let node = usize::from(row) / 2;
        Source {
            address: Some(site.agents[node].address.to_string()),
            site: "east".parse().expect("a name"),
            node: site.agents[node].name.parse().expect("a name"),
            device: DeviceId(u32::from(row)),
            row: Row(row),
            instance: self.instances[usize::from(row)],
        }
    }

    /// Row `row`, anew on device `device` of node 0, from `sources`.
    fn command(&self, site: &Site, row: u8, device: u32, sources: &[u8]) -> Rebuild {
        let mut sources: Vec<Source> = sources.iter().map(|row| self.source(site, *row)).collect();
        for local in sources.iter_mut().filter(|source| source.device.0 < 2) {
            local.address = None;
        }
        Rebuild {
            stamp: stamp(1, 1),
            map_generation: MAP,
            extent: self.facts.clone(),
            row: Row(row),
            device: DeviceId(device),
            sources,
            budget: None,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_row_is_made_from_others_here_and_on_siblings() {
    let site = Site::start(3).await;
    site.raise_all().await;
    for (number, len) in [(1, 100), (2, 5 << 20), (3, (9 << 20) + 77)] {
        let placed = place_all(&site, number, len, &[]).await;
        for lost in [0u8, 5] {
            let others: Vec<u8> = (0..6).filter(|row| *row != lost).collect();
            let command = placed.command(&site, lost, 1, &others);
            let rebuilt = site.operator(0).rebuild(&command, LIMIT).await.expect("it is rebuilt");
            assert!(rebuilt.liars.is_empty());
            let wanted = &placed.rows[usize::from(lost)];
            let item = whole(at(placed.facts.extent, 1, lost, Some(rebuilt.instance)), wanted.len());
            assert!(
                site.gateway(0).read(item).await.expect("it is there") == *wanted,
                "row {lost} of {len} bytes"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lies_is_named_and_the_row_is_right_all_the_same() {
    let site = Site::start(3).await;
    site.raise_all().await;
    let placed = place_all(&site, 1, 3 << 20, &[2]).await;
    let command = placed.command(&site, 0, 0, &[2, 1, 3, 4, 5]);
    let rebuilt = site.operator(0).rebuild(&command, LIMIT).await.expect("it is rebuilt without the liar");
    assert_eq!(rebuilt.liars, [placed.source(&site, 2)]);
    let item = whole(at(placed.facts.extent, 0, 0, Some(rebuilt.instance)), placed.rows[0].len());
    assert!(site.gateway(0).read(item).await.expect("it is there") == placed.rows[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_row_to_spare_a_lie_is_noticed_and_nothing_is_written() {
    let site = Site::start(3).await;
    site.raise_all().await;
    let placed = place_all(&site, 1, 100_000, &[2]).await;
    let before = site.gateway(0).inventory(DeviceId(0), None, 10).await.expect("a page").records.len();
    let command = placed.command(&site, 0, 0, &[1, 2, 3, 4]);
    let error = site.operator(0).rebuild(&command, LIMIT).await.expect_err("the hash does not come out");
    assert_eq!(error.agent(), Some(&AgentError::WrongExtent));
    let after = site.gateway(0).inventory(DeviceId(0), None, 10).await.expect("a page").records.len();
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_away_is_replaced_and_too_few_are_counted() {
    let mut site = Site::start(3).await;
    site.raise_all().await;
    let placed = place_all(&site, 1, 2 << 20, &[]).await;
    let mut command = placed.command(&site, 0, 0, &[4, 1, 2, 3, 5]);
    command.sources[0].instance = InstanceId([0; 8]);
    site.operator(0).rebuild(&command, LIMIT).await.expect("row 5 takes the place of row 4");

    site.stop(2).await;
    let error = site.operator(0).rebuild(&command, LIMIT).await.expect_err("three rows are left");
    let told = matches!(error.agent(), Some(AgentError::InsufficientRows { present: 3, needed: 4, .. }));
    assert!(told, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_found_by_scrub_refused_by_reads_and_mended_by_a_rebuild() {
    let site = Site::start(3).await;
    site.raise_all().await;
    let placed = place_all(&site, 1, 2 << 20, &[]).await;
    let needle = &placed.rows[0][1000..1064];
    let segment = support::segments(&site.device_path(0)).into_iter().find_map(|path| {
        let bytes = std::fs::read(&path).ok()?;
        let at = bytes.windows(needle.len()).position(|window| window == needle)?;
        Some((path, at))
    });
    let (path, offset) = segment.expect("the row is on the disk");
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("the segment");
    std::os::unix::fs::FileExt::write_all_at(&file, &[needle[0] ^ 0x40], offset as u64)
        .expect("a byte is flipped");

    let operator = site.operator(0);
    operator.scrub(Some(DeviceId(0)), true, LIMIT).await.expect("a round");
    let findings = operator.status().await.expect("a status").devices[0].findings.clone();
    assert_eq!(
        findings.iter().map(|found| (found.row, found.instance)).collect::<Vec<_>>(),
        [(Row(0), placed.instances[0])]
    );
    let item = whole(at(placed.facts.extent, 0, 0, Some(placed.instances[0])), 10);
    let error = site.gateway(0).read(item).await.expect_err("it is rotten");
    assert_eq!(error.agent(), Some(&AgentError::Rotten { device: DeviceId(0) }));

    let command = placed.command(&site, 0, 0, &[1, 2, 3, 4]);
    let rebuilt = operator.rebuild(&command, LIMIT).await.expect("it is rebuilt");
    let item = whole(at(placed.facts.extent, 0, 0, Some(rebuilt.instance)), placed.rows[0].len());
    assert!(site.gateway(0).read(item).await.expect("it is there") == placed.rows[0]);
    let old = at(placed.facts.extent, 0, 0, Some(placed.instances[0]));
    assert_eq!(operator.delete(stamp(1, 1), vec![old]).await.expect("an answer"), [Ok(())]);
    assert!(operator.status().await.expect("a status").devices[0].findings.is_empty());
}
