//! Nodes that answer slowly: reads and writes do not wait for them, and what they do late is not lost track of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{Others, TestSite, eventually, map, noise};
use diptych_core::ids::{DeviceId, Generation, InstanceId, KeeperNumber};
use diptych_core::keys;
use diptych_core::records::Record;
use diptych_gateway::Limits;
use diptych_gateway::authority::SingleSite;
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// How bytes pass on the way to a node.
#[derive(Debug, Clone, Copy)]
enum Pass {
    At(Duration),
    Held,
}

/// The way from the gateway to one node, by which requests pass as slowly as is said.
struct Way(watch::Sender<Pass>);

impl Way {
    /// Listens at `path`, and passes on to `agent`.
    fn open(path: &Path, agent: PathBuf) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        let (pass, passing) = watch::channel(Pass::At(Duration::ZERO));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&agent).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(carry(from_client, to_server, Some(passing.clone())));
                tokio::spawn(carry(from_server, to_client, None));
            }
        });
        Self(pass)
    }

    fn set(&self, pass: Pass) {
        self.0.send_replace(pass);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut passing: Option<watch::Receiver<Pass>>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if let Some(passing) = &mut passing {
            let Ok(pass) = passing.wait_for(|pass| matches!(pass, Pass::At(_))).await.map(|pass| *pass)
            else {
                return;
            };
            if let Pass::At(delay) = pass {
                tokio::time::sleep(delay).await;
            }
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// A site with a way to each of its nodes.
async fn site_with_ways(more_nodes: u32) -> (TestSite, Vec<Way>) {
    let others = Others { more_nodes, ..Others::default() };
    let authority = Arc::new(SingleSite { keeper: KeeperNumber(1) });
    let site = TestSite::start_beside(Limits::default(), authority, others, |catalog| catalog).await;
    let mut through = map(&site.nodes);
    through.generation = Generation(2);
    let mut ways = Vec::new();
    for node in &mut through.nodes {
        let agent = PathBuf::from(node.socket.take().expect("it has one"));
        let path = agent.with_extension("way");
        ways.push(Way::open(&path, agent));
        node.socket = Some(path.display().to_string());
    }
    site.put_keys(vec![(keys::map(&site.site), through.encode().into())]).await;
    site.gateway().context().refresh_now().await.expect("it reads");
    (site, ways)
}

async fn counted(site: &TestSite, metric: &str) -> u64 {
    let text = site.http.get(site.rest("/metrics")).send().await.expect("an answer").text().await;
    let text = text.expect("text");
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("diptych_gateway_{metric} ")));
    value.map_or(0, |value| value.parse().expect("a number"))
}

async fn hedges(site: &TestSite, outcome: &str) -> u64 {
    counted(site, &format!("hedges_total{{outcome=\"{outcome}\"}}")).await
}

async fn read(site: &TestSite, id: &str, expected: &[u8]) {
    let answer = site.get(id).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.bytes().await.expect("a body") == expected, "{id} differs");
}

/// Writes and reads until the gateway knows what all its devices take.
async fn warm(site: &TestSite) {
    let mut number = 0;
    eventually("all devices are measured", async || {
        for _ in 0..60 {
            let id = format!("warm{}", number % 120);
            let body = noise(4096, number % 120);
            if number < 120 {
                assert_eq!(site.post(&id, body.clone()).await.status(), StatusCode::CREATED);
            }
            read(site, &id, &body).await;
            number += 1;
        }
        number >= 120 && site.gateway().context().measured_devices() == site.nodes.len() * 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_do_not_wait_for_a_node_that_hangs_and_go_around_it_once_it_is_known() {
    let (site, ways) = site_with_ways(0).await;
    warm(&site).await;
    ways[1].set(Pass::Held);
    eventually("20 reads together take less than 2 s, 100 ms each", async || {
        let begun = Instant::now();
        for number in 0..20 {
            read(&site, &format!("warm{number}"), &noise(4096, number)).await;
        }
        begun.elapsed() < Duration::from_secs(2)
    })
    .await;
    ways[1].set(Pass::At(Duration::from_millis(60)));
    let mut next = 0;
    eventually("reads go around the slow node", async || {
        let before = hedges(&site, "sent").await;
        for _ in 0..20 {
            next = (next + 1) % 60;
            read(&site, &format!("warm{next}"), &noise(4096, next)).await;
        }
        hedges(&site, "sent").await == before
    })
    .await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_nodes_are_slow_few_reads_ask_twice() {
    let (site, ways) = site_with_ways(0).await;
    warm(&site).await;
    for way in &ways {
        way.set(Pass::At(Duration::from_millis(50)));
    }
    let reads = (0..400_u64).map(|number| {
        let site = &site;
        async move { read(site, &format!("warm{}", number % 60), &noise(4096, number % 60)).await }
    });
    futures::future::join_all(reads).await;
    let (sent, denied) = (hedges(&site, "sent").await, hedges(&site, "denied").await);
    assert!(sent < 150, "{sent} of 400 reads asked other rows besides");
    assert!(denied > 0, "all were in time");
    site.stop().await;
}

/// Records on the first node.
async fn records(site: &TestSite) -> BTreeSet<InstanceId> {
    let mut found = BTreeSet::new();
    for device in [DeviceId(0), DeviceId(1)] {
        let page = site.node_of(device).client.inventory(device, None, None, 8_000).await.expect("a page");
        found.extend(page.records.into_iter().map(|record| record.instance));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_does_not_wait_for_a_slow_node_and_the_late_row_is_an_orphan_that_the_inventory_shows() {
    let (site, ways) = site_with_ways(1).await;
    warm(&site).await;
    ways[0].set(Pass::Held);
    let mut written = 0;
    eventually("4 writes together take less than 2 s, half a second each", async || {
        let begun = Instant::now();
        for _ in 0..4 {
            let answer = site.post(&format!("new{written}"), noise(4096, 200 + written)).await;
            let (status, said) = (answer.status(), answer.text().await.expect("a body"));
            assert_eq!(status, StatusCode::CREATED, "{said}");
            written += 1;
        }
        begun.elapsed() < Duration::from_secs(2)
    })
    .await;
    assert!(counted(&site, "rows_written_total{outcome=\"elsewhere\"}").await >= written);
    let named: BTreeSet<InstanceId> = site
        .placements()
        .await
        .iter()
        .flat_map(|(_, placement)| placement.rows.iter().map(|placed| placed.instance))
        .collect();
    assert!(records(&site).await.is_subset(&named), "what it has not taken yet is not there");
    ways[0].set(Pass::At(Duration::ZERO));
    eventually("the late rows are there, and no placement names them", async || {
        records(&site).await.difference(&named).count() > 0
    })
    .await;
    for number in 0..written {
        read(&site, &format!("new{number}"), &noise(4096, 200 + number)).await;
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_other_place_is_safe_enough_a_late_row_is_waited_for() {
    let (site, ways) = site_with_ways(0).await;
    warm(&site).await;
    ways[2].set(Pass::Held);
    let mut post = Box::pin(site.post("late", noise(4096, 7)));
    let late = eventually("its rows are late", async || {
        counted(&site, "rows_written_total{outcome=\"late\"}").await > 0
    });
    tokio::select! {
        answer = &mut post => panic!("on two of three nodes it would not survive one: {answer:?}"),
        () = late => {}
    }
    ways[2].set(Pass::At(Duration::ZERO));
    assert_eq!(post.await.status(), StatusCode::CREATED, "it was not waited for");
    let placements = site.placements().await;
    let on_three_nodes = |rows: &[diptych_core::records::PlacedRow]| {
        rows.iter().map(|placed| placed.device.0 / 2).collect::<BTreeSet<u32>>().len() == 3
    };
    assert!(placements.iter().all(|(_, placement)| on_three_nodes(&placement.rows)));
    site.stop().await;
}
