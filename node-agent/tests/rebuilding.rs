//! Lost and forged rows.

mod support;

use diptych_core::ids::{DeviceId, InstanceId, Row};
use diptych_core::records::{ExtentKind, Holds, Position, Span};
use diptych_wire::agent::{AgentError, ExtentFacts, FarNode, Rebuild, Source};
use support::{MAP, Site, at, content, extent_id, facts, place, rows_of, stamp, whole};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// Rows 0..5 of a 4-row code on devices 0..5 of three nodes; row `forged` has other bytes under right checksums.
struct Placed {
    facts: ExtentFacts,
    rows: Vec<Vec<u8>>,
    instances: Vec<InstanceId>,
}

async fn place_all(site: &Site, number: u8, len: usize, forged: &[u8]) -> Placed {
    place_holding(site, number, len, forged, Holds::Data).await
}

async fn place_holding(site: &Site, number: u8, len: usize, forged: &[u8], holds: Holds) -> Placed {
    let bytes = content(u64::from(number), len);
    let facts = ExtentFacts { holds, ..facts(extent_id(number), 4, &bytes) };
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
            far: None,
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
async fn a_row_that_moves_is_copied_and_needs_no_others_unless_it_does_not_read() {
    let site = Site::start(3).await;
    site.raise_all().await;
    let placed = place_all(&site, 1, (17 << 20) + 77, &[]).await;
    let wanted = &placed.rows[5];
    let reads = async |instance| {
        let item = whole(at(placed.facts.extent, 1, 5, Some(instance)), wanted.len());
        site.gateway(0).read(item).await.expect("it is there") == *wanted
    };
    let mut command = placed.command(&site, 5, 1, &[5]);
    let copied = site.operator(0).rebuild(&command, LIMIT).await.expect("it is copied");
    assert!(reads(copied.instance).await);
    let stale = Rebuild { stamp: stamp(0, 9), ..command.clone() };
    assert!(site.operator(0).rebuild(&stale, LIMIT).await.is_err(), "a term that is over moves no rows");

    command.sources[0].instance = InstanceId([0; 8]);
    let error = site.operator(0).rebuild(&command, LIMIT).await.expect_err("there is no such record");
    assert!(matches!(error.agent(), Some(AgentError::InsufficientRows { needed: 4, .. })), "{error}");
    command.sources.extend((0..4).map(|row| placed.source(&site, row)));
    let made = site.operator(0).rebuild(&command, LIMIT).await.expect("k others make it");
    assert!(reads(made.instance).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_for_an_outside_node_is_made_here_and_read_back_from_its_disk() {
    let site = Site::start(3).await;
    let outside = site.start_outside(2).await;
    site.raise_all().await;
    outside.raise_all().await;
    let placed = place_all(&site, 1, (9 << 20) + 77, &[]).await;
    let far = FarNode {
        address: outside.agents[1].address.to_string(),
        site: "outside".parse().expect("a name"),
        node: outside.agents[1].name.parse().expect("a name"),
        map_generation: MAP,
    };
    let command = Rebuild { far: Some(far), ..placed.command(&site, 12, 3, &[0, 1, 2, 3, 4, 5]) };
    let rebuilt = site.operator(0).rebuild(&command, LIMIT).await.expect("it is made");
    let wanted = rows_of(4, &content(1, (9 << 20) + 77), 13).pop().expect("row 12");
    let at = at(placed.facts.extent, 3, 12, Some(rebuilt.instance));
    assert!(outside.gateway(1).read(whole(at, wanted.len())).await.expect("it is there") == wanted);
    let stale = Rebuild { stamp: stamp(0, 9), ..command };
    assert!(site.operator(0).rebuild(&stale, LIMIT).await.is_err(), "a term that is over makes no rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journals_row_says_where_it_begins_and_ends_and_says_so_when_it_is_made_anew() {
    let site = Site::start(3).await;
    site.raise_all().await;
    let position = |revision| Position { incarnation: 7, revision };
    let holds = Holds::Journal(Span { after: position(3), upto: position(9) });
    let placed = place_holding(&site, 1, 1_000, &[], holds).await;
    let rebuilt = site.operator(0).rebuild(&placed.command(&site, 5, 1, &[0, 1, 2, 3, 4]), LIMIT).await;
    let instance = rebuilt.expect("it is rebuilt").instance;
    for at in [at(placed.facts.extent, 0, 0, None), at(placed.facts.extent, 1, 5, Some(instance))] {
        let facts = site.gateway(0).describe(at).await.expect("it is there");
        assert_eq!(facts.head.holds, holds);
    }
    let journals = site.gateway(0).inventory(DeviceId(1), None, Some(ExtentKind::Journal), 10).await;
    assert_eq!(journals.expect("a page").records.len(), 2);
    let data = site.gateway(0).inventory(DeviceId(1), None, Some(ExtentKind::Data), 10).await;
    assert!(data.expect("a page").records.is_empty());
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
    let before = site.gateway(0).inventory(DeviceId(0), None, None, 10).await.expect("a page").records.len();
    let command = placed.command(&site, 0, 0, &[1, 2, 3, 4]);
    let error = site.operator(0).rebuild(&command, LIMIT).await.expect_err("the hash does not come out");
    assert_eq!(error.agent(), Some(&AgentError::WrongExtent));
    let after = site.gateway(0).inventory(DeviceId(0), None, None, 10).await.expect("a page").records.len();
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
