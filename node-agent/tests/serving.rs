//! What an agent answers to gateways and operators, and whom it refuses.

mod support;

use bytes::Bytes;
use diptych_core::ids::{DeviceId, Generation, InstanceId};
use diptych_wire::agent::{AgentError, DeviceKeyring, DeviceState, SealedKeyring};
use diptych_wire::authority::Authority;
use diptych_wire::client::{AgentClient, CallError, ClientOptions, Endpoint};
use diptych_wire::identity::Role;
use support::{
    CLUSTER, MAP, Site, at, content, credentials, extent_id, facts, head, place, rows_of, stamp, until, whole,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_placed_read_by_ranges_listed_and_deleted() {
    let site = Site::start(1).await;
    site.raise_all().await;
    let gateway = site.gateway(0);
    let bytes = content(1, 700_000);
    let facts = facts(extent_id(1), 2, &bytes);
    let rows = rows_of(2, &bytes, 2);
    let heads = (0..2u8).map(|row| {
        let bytes = Bytes::copy_from_slice(&rows[usize::from(row)]);
        (head(&facts, u32::from(row), row, bytes.len()), bytes)
    });
    let placed = gateway.place_rows(stamp(1, 1), MAP, heads.collect()).await.expect("an answer");
    let placed: Vec<InstanceId> = placed.into_iter().map(|row| row.expect("it is placed")).collect();

    let mut item = whole(at(facts.extent, 1, 1, Some(placed[1])), 1000);
    item.offset = 260_000;
    let ranges = vec![whole(at(facts.extent, 0, 0, None), rows[0].len()), item];
    let read = gateway.read_many(ranges).await.expect("an answer");
    assert_eq!(read[0].as_deref(), Ok(&rows[0][..]));
    assert_eq!(read[1].as_deref(), Ok(&rows[1][260_000..261_000]));

    let past = whole(at(facts.extent, 0, 0, None), rows[0].len() + 1);
    let error = gateway.read(past).await.expect_err("the row is shorter");
    assert!(matches!(error, CallError::Agent(AgentError::OutOfRange { .. })), "{error}");

    let described = gateway.describe(at(facts.extent, 1, 1, None)).await.expect("it is there");
    assert_eq!((described.instance, described.head), (placed[1], head(&facts, 1, 1, rows[1].len())));
    let page = gateway.inventory(DeviceId(1), None, None, 10).await.expect("a page");
    assert!(page.last);
    assert_eq!(page.records.iter().map(|record| record.instance).collect::<Vec<_>>(), [placed[1]]);

    let items =
        vec![at(facts.extent, 1, 1, Some(placed[1])), at(facts.extent, 0, 0, Some(InstanceId([1; 8])))];
    let deleted = gateway.delete(stamp(1, 1), items).await.expect("an answer");
    assert_eq!(deleted, [Ok(()), Err(AgentError::NotFound)]);
    let gone = gateway.read(whole(at(facts.extent, 1, 1, None), 10)).await.expect_err("it was deleted");
    assert_eq!(gone.agent(), Some(&AgentError::NotFound));
    assert!(gateway.read(whole(at(facts.extent, 0, 0, None), 10)).await.is_ok(), "another instance stays");
    assert!(gateway.round_trip().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_is_taken_before_the_epoch_was_heard_also_after_a_restart() {
    let mut site = Site::start(1).await;
    let bytes = content(2, 5000);
    let facts = facts(extent_id(2), 1, &bytes);
    let command = || vec![(head(&facts, 0, 0, bytes.len()), Bytes::copy_from_slice(&bytes))];
    for round in 0..2 {
        let refused = site.gateway(0).place_rows(stamp(1, 1), MAP, command()).await.expect_err("not yet");
        assert_eq!(refused.agent(), Some(&AgentError::NotReady), "round {round}");
        site.operator(0).raise(stamp(1, 1)).await.expect("the epoch is heard");
        site.gateway(0).place_rows(stamp(1, 1), MAP, command()).await.expect("now it is taken");
        site.restart(0).await;
    }
    let read = site.gateway(0).read(whole(at(facts.extent, 0, 0, None), bytes.len())).await;
    assert_eq!(read.expect("reads need no epoch"), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_stamp_or_an_older_map_is_refused_and_a_restart_forgets_no_stamp() {
    let mut site = Site::start(1).await;
    site.operator(0).raise(stamp(3, 2)).await.expect("the epoch is heard");
    let bytes = content(3, 100);
    let facts = facts(extent_id(3), 1, &bytes);
    let command = || vec![(head(&facts, 0, 0, bytes.len()), Bytes::copy_from_slice(&bytes))];
    let stale = AgentError::StaleStamp { have: stamp(3, 2) };
    for lower in [stamp(2, 9), stamp(3, 1)] {
        let refused = site.gateway(0).place_rows(lower, MAP, command()).await.expect_err("it is stale");
        assert_eq!(refused.agent(), Some(&stale));
    }
    let item = at(facts.extent, 0, 0, Some(InstanceId([0; 8])));
    let refused = site.gateway(0).delete(stamp(2, 9), vec![item]).await.expect_err("it is stale");
    assert_eq!(refused.agent(), Some(&stale));

    site.gateway(0).place_rows(stamp(3, 2), Generation(7), command()).await.expect("it passes");
    let refused =
        site.gateway(0).place_rows(stamp(3, 2), Generation(6), command()).await.expect_err("an old map");
    assert_eq!(refused.agent(), Some(&AgentError::StaleMap { have: Generation(7) }));

    site.restart(0).await;
    let refused = site.operator(0).raise(stamp(3, 1)).await.expect_err("it is on the devices");
    assert_eq!(refused.agent(), Some(&stale));
    assert_eq!(site.gateway(0).status().await.expect("a status").stamp, stamp(3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_is_counted_and_harms_nobody() {
    let site = Site::start(1).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 500]] {
        let mut stream = tokio::net::TcpStream::connect(site.agents[0].address).await.expect("a connection");
        stream.write_all(garbage).await.expect("sent");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
    let mut stream = tokio::net::UnixStream::connect(site.socket(0)).await.expect("a connection");
    stream.write_all(&[7; 64]).await.expect("sent");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "garbage is not answered");
    let gateway = site.gateway(0);
    until("three connections with garbage", || async {
        let text = gateway.metrics().await.expect("metrics");
        text.contains(r#"diptych_agent_connections{state="garbage"} 3"#)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_authority_is_told_so_and_refused() {
    let site = Site::start(1).await;
    let other = Authority::create(CLUSTER).expect("an authority");
    let client = site.client_as(0, &credentials(&other, "east", Role::Gateway, "gw"));
    let error = client.ping().await.expect_err("another authority").to_string();
    assert!(error.contains("is from another authority"), "{error}");
    assert!(error.contains(&site.authority.fingerprint()), "{error}");
    assert!(error.contains(&other.fingerprint()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_without_a_right_to_rows_are_refused_by_name() {
    let site = Site::start(1).await;
    for (place, role) in [("east", Role::Peer), ("west", Role::Gateway), ("east", Role::Client)] {
        let client = site.client_as(0, &credentials(&site.authority, place, role, "x"));
        let error = client.ping().await.expect_err("no right");
        assert!(matches!(error.agent(), Some(AgentError::Denied { .. })), "{error}");
    }
    let sibling = site.client_as(0, &credentials(&site.authority, "east", Role::Agent, "n9"));
    sibling.ping().await.expect("siblings may speak");
    let error = sibling.delete(stamp(1, 1), vec![]).await.expect_err("but not delete");
    assert!(matches!(error.agent(), Some(AgentError::Denied { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unix_socket_serves_processes_of_this_machine() {
    let site = Site::start(1).await;
    site.raise_all().await;
    let endpoint = Endpoint {
        site: "east".parse().expect("a name"),
        node: "n0".parse().expect("a name"),
        // Nobody listens there, so an answer can only come by the socket.
        address: "127.0.0.1:1".to_owned(),
        socket: Some(site.socket(0)),
    };
    let who = credentials(&site.authority, "east", Role::Gateway, "gw");
    let client = AgentClient::new(endpoint, &who, ClientOptions::default()).expect("a client");
    let bytes = content(4, 300_000);
    let facts = facts(extent_id(4), 1, &bytes);
    place(&client, &facts, 0, 0, &bytes).await;
    let read = client.read(whole(at(facts.extent, 0, 0, None), bytes.len())).await;
    assert_eq!(read.expect("it is there"), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_goes_is_reported_and_one_that_comes_back_is_served_again() {
    let site = Site::start(1).await;
    site.raise_all().await;
    let gateway = site.gateway(0);
    let bytes = content(5, 100_000);
    let facts = facts(extent_id(5), 1, &bytes);
    place(&gateway, &facts, 0, 0, &bytes).await;
    place(&gateway, &facts, 1, 1, &bytes).await;

    let (path, away) = (site.device_path(0), site.folder.path().join("away"));
    std::fs::rename(&path, &away).expect("it is moved");
    until("device 0 is missing", || async {
        let status = gateway.status().await.expect("a status");
        status.devices[0].state == DeviceState::Missing && status.devices[1].state == DeviceState::Ok
    })
    .await;
    let error = gateway.read(whole(at(facts.extent, 0, 0, None), 10)).await.expect_err("it is away");
    assert_eq!(error.agent(), Some(&AgentError::DeviceMissing { device: DeviceId(0) }));
    gateway.read(whole(at(facts.extent, 1, 1, None), 10)).await.expect("the other one goes on");

    site.operator(0).raise(stamp(2, 1)).await.expect("an epoch while it was away");
    std::fs::rename(&away, &path).expect("it is moved back");
    until("device 0 is back", || async {
        gateway.status().await.expect("a status").devices[0].state == DeviceState::Ok
    })
    .await;
    let read = gateway.read(whole(at(facts.extent, 0, 0, None), bytes.len())).await;
    assert_eq!(read.expect("it is there again"), bytes);
    let inspected = diptych_store::inspect::device(&path).expect("a device");
    assert_eq!(inspected.highest_stamp, stamp(2, 1), "it has heard what it missed");
}

/// What lies on the devices of the first node.
async fn kept(site: &Site) -> Vec<DeviceKeyring> {
    site.gateway(0).get_keyrings().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyring_is_kept_over_a_restart_and_an_older_one_is_refused() {
    let mut site = Site::start(1).await;
    site.raise_all().await;
    let keyring =
        |generation, byte| SealedKeyring { generation: Generation(generation), sealed: vec![byte; 300] };
    assert!(kept(&site).await.iter().all(|kept| kept.keyring.is_none()));
    site.operator(0).put_keyring(stamp(1, 1), keyring(2, 2)).await.expect("it is kept");
    site.restart(0).await;
    let read = kept(&site).await;
    assert!(read.len() == 2 && read.iter().all(|kept| kept.keyring == Some(keyring(2, 2))), "{read:?}");
    site.raise_all().await;
    assert!(site.operator(0).put_keyring(stamp(1, 1), keyring(1, 1)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_connection_is_made_anew() {
    let mut site = Site::start(1).await;
    let gateway = site.gateway(0);
    gateway.ping().await.expect("it is there");
    let address = site.agents[0].address;
    site.stop(0).await;
    let error = gateway.ping().await.expect_err("it is away");
    assert!(error.is_absence(), "{error}");
    let mut options = site.options(0);
    options.listen = Some(address);
    let stop = tokio_util::sync::CancellationToken::new();
    let running = diptych_node_agent::start(options, stop.clone()).await.expect("it starts again");
    until("the client is connected again", || async { gateway.ping().await.is_ok() }).await;
    stop.cancel();
    running.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_are_answered_by_plain_http() {
    let site = Site::start(0).await;
    let mut options = site.options(0);
    options.health = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let stop = tokio_util::sync::CancellationToken::new();
    let running = diptych_node_agent::start(options, stop.clone()).await.expect("it starts");
    let address = running.health().expect("it answers probes");
    let get = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    };
    assert!(get("/live").await.starts_with("HTTP/1.1 200"));
    let ready = get("/ready").await;
    assert!(
        ready.starts_with("HTTP/1.1 200") && ready.contains("2 of 2 devices in use, epoch not heard"),
        "{ready}"
    );
    assert!(get("/metrics").await.contains("diptych_agent_device{"));
    assert!(get("/x").await.starts_with("HTTP/1.1 404"));
    stop.cancel();
    running.stopped().await;
}
