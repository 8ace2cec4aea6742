//! Tunnels, against the emulator: one a site, the flip, the outer fence. The connectors are the emulator's: cloudflared is not here.

use std::net::SocketAddr;

use crate::common::{HOSTNAME, client, options, owner, record, start};
use diptych_cloudflare::address::Pointed;
use diptych_cloudflare::client::{Client, Error, NewRecord, RecordFilter, RecordType, TunnelSecret, Zone};
use diptych_cloudflare::emulator::{CallFault, EdgeListener, Emulator, NextCalls, Only};
use diptych_cloudflare::tunnel::{SiteTunnel, TunnelError, TunnelRoute, TunnelTarget};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A service that says which site it is of.
async fn service(site: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let app = axum::Router::new().fallback(async move || site);
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn tunnel(site: &str, service: &str) -> SiteTunnel {
    let peer = if site == "east" { "west" } else { "east" };
    SiteTunnel::new(TunnelTarget {
        site: site.parse().expect("a name"),
        peer: peer.parse().expect("a name"),
        routes: vec![TunnelRoute { hostname: HOSTNAME.to_owned(), service: service.to_owned() }],
        owner: owner(),
    })
}

async fn begin() -> (Emulator, Client, Zone) {
    let mut options = options();
    options.edges = vec![EdgeListener { listen: SocketAddr::from(([127, 0, 0, 1], 0)), origin_port: 1 }];
    let emulator = start(options).await;
    let client = client(&emulator);
    let zone = client.zone_by_name("example.com").await.expect("the API answers").expect("it exists");
    (emulator, client, zone)
}

/// What comes back under the public name.
async fn answer(emulator: &Emulator) -> String {
    let mut stream = TcpStream::connect(emulator.edge_addresses()[0]).await.expect("the edge listens");
    let request = format!("GET / HTTP/1.1\r\nhost: {HOSTNAME}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}

async fn connect(emulator: &Emulator, tunnel: &SiteTunnel, client: &Client, zone: &Zone) -> String {
    let token = tunnel.token(client, zone).await.expect("there is one").expose().to_owned();
    emulator.connect_tunnel(&token).await.expect("let in");
    token
}

#[tokio::test]
async fn the_name_leads_to_the_tunnel_of_the_site_that_serves() {
    let (emulator, client, zone) = begin().await;
    let (east, west) =
        (tunnel("east", &service("of the east").await), tunnel("west", &service("of the west").await));
    assert_eq!(east.point_here(&client, &zone).await.expect("pointed"), Pointed::Changed);
    assert!(answer(&emulator).await.contains("Error 1033"), "no connector is there yet");
    connect(&emulator, &east, &client, &zone).await;
    assert!(answer(&emulator).await.contains("of the east"));
    connect(&emulator, &west, &client, &zone).await;
    west.prepare(&client, &zone).await.expect("ready");
    assert!(answer(&emulator).await.contains("of the east"), "being ready flips nothing");
    assert_eq!(west.point_here(&client, &zone).await.expect("pointed"), Pointed::Changed);
    assert!(answer(&emulator).await.contains("of the west"));
    assert_eq!(west.point_here(&client, &zone).await.expect("looked"), Pointed::AlreadyRight);
    // A late flip is repaired.
    assert_eq!(east.point_here(&client, &zone).await.expect("late"), Pointed::Changed);
    assert_eq!(west.point_here(&client, &zone).await.expect("repaired"), Pointed::Changed);
    assert!(answer(&emulator).await.contains("of the west"));
}

#[tokio::test]
async fn a_fenced_site_is_cut_off_and_comes_back_only_with_the_token_that_it_is_given_anew() {
    let (emulator, client, zone) = begin().await;
    let (east, west) = (tunnel("east", &service("of the east").await), tunnel("west", "http://127.0.0.1:1"));
    east.point_here(&client, &zone).await.expect("pointed");
    let old = connect(&emulator, &east, &client, &zone).await;
    assert!(answer(&emulator).await.contains("of the east"));
    west.fence_peer(&client, &zone).await.expect("fenced");
    assert!(answer(&emulator).await.contains("Error 1033"), "its connections are closed");
    emulator.connect_tunnel(&old).await.expect_err("what its connectors know is worth nothing");
    assert_ne!(connect(&emulator, &east, &client, &zone).await, old);
    assert!(answer(&emulator).await.contains("of the east"));
}

#[tokio::test]
async fn a_fence_whose_cleaning_up_failed_is_whole_after_another_try() {
    let (emulator, client, zone) = begin().await;
    let (east, west) = (tunnel("east", &service("of the east").await), tunnel("west", "http://127.0.0.1:1"));
    west.fence_peer(&client, &zone).await.expect("a site that never had a tunnel needs no fence");
    east.point_here(&client, &zone).await.expect("pointed");
    connect(&emulator, &east, &client, &zone).await;
    let next = |calls, fault| NextCalls { calls, fault, only: Only::Writes };
    // The rotation is applied, its answer lost: nothing was closed.
    emulator.set_faults(|faults| faults.next = vec![next(1, CallFault::CutApplied)]);
    let error = west.fence_peer(&client, &zone).await.expect_err("no answer");
    assert!(matches!(&error, TunnelError::Call(error) if error.may_be_applied()), "{error}");
    assert!(answer(&emulator).await.contains("of the east"));
    west.fence_peer(&client, &zone).await.expect("fenced");
    assert!(answer(&emulator).await.contains("Error 1033"));
}

#[tokio::test]
async fn what_was_applied_without_an_answer_is_found_and_the_tunnel_made_only_once() {
    let (emulator, client, zone) = begin().await;
    let east = tunnel("east", "http://127.0.0.1:1");
    for fault in [CallFault::BadGatewayApplied, CallFault::CutApplied, CallFault::BadGatewayApplied] {
        emulator.set_faults(|faults| faults.next = vec![NextCalls { calls: 1, fault, only: Only::Writes }]);
        let error = east.point_here(&client, &zone).await.expect_err("no answer");
        assert!(matches!(&error, TunnelError::Call(error) if error.may_be_applied()), "{error}");
    }
    assert_eq!(east.point_here(&client, &zone).await.expect("all is there"), Pointed::AlreadyRight);
    // A second of that name is refused, so there is one.
    let name = owner().name_of(&"east".parse().expect("a name"));
    let again = client.create_tunnel(&zone.account.id, &name, &TunnelSecret::random()).await;
    assert!(matches!(again, Err(Error::Unclear { .. })), "{again:?}");
}

#[tokio::test]
async fn a_record_of_others_on_the_name_is_not_touched_and_own_addresses_give_way() {
    let (_emulator, client, zone) = begin().await;
    let east = tunnel("east", "http://127.0.0.1:1");
    let foreign =
        NewRecord { comment: "somebody's".to_owned(), ..record(HOSTNAME, RecordType::A, "198.51.100.9") };
    let foreign = client.create_record(&zone.id, &foreign).await.expect("made");
    let error = east.point_here(&client, &zone).await.expect_err("not ours");
    assert!(matches!(&error, TunnelError::Foreign(_)), "{error}");
    client.delete_record(&zone.id, &foreign.id).await.expect("it was not touched");
    let own = record(HOSTNAME, RecordType::A, "192.0.2.1");
    client.create_record(&zone.id, &own).await.expect("made");
    assert_eq!(east.point_here(&client, &zone).await.expect("pointed"), Pointed::Changed);
    let left = client.records(&zone.id, &RecordFilter::default()).await.expect("listed");
    let [alias] = left.as_slice() else { unreachable!("one is left: {left:?}") };
    assert!(alias.kind == RecordType::Cname && alias.proxied, "{alias:?}");
}

#[tokio::test]
async fn a_site_that_goes_takes_its_tunnel_away_though_it_is_connected() {
    let (emulator, client, zone) = begin().await;
    let east = tunnel("east", "http://127.0.0.1:1");
    east.point_here(&client, &zone).await.expect("pointed");
    connect(&emulator, &east, &client, &zone).await;
    east.remove(&client, &zone).await.expect("removed");
    east.remove(&client, &zone).await.expect("there is nothing left");
    let name = owner().name_of(&"east".parse().expect("a name"));
    assert_eq!(client.tunnel_by_name(&zone.account.id, &name).await.expect("listed"), None);
}

#[test]
fn neither_a_secret_nor_a_token_prints() {
    assert_eq!(format!("{:?}", TunnelSecret::random()), "TunnelSecret(…)");
}
