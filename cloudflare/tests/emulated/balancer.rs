//! Load balancing, against the emulator: what a site keeps, whom the edge asks, what is never touched.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{HOSTNAME, client, client_with, eventually, options, owner, record, start, target, zone};
use axum::extract::State;
use axum::http::StatusCode;
use diptych_cloudflare::address::{Owner, Pointed, point_name};
use diptych_cloudflare::balancer::{Balancer, BalancerError, BalancerTarget};
use diptych_cloudflare::client::{
    Client, Error, LoadBalancerSettings, NewRecord, Origin, PoolId, PoolSettings, RecordFilter, RecordType,
    Zone,
};
use diptych_cloudflare::emulator::{
    CallFault, EdgeListener, Emulator, EmulatorOptions, NextCalls, Only, Plan, TokenSpec,
};
use diptych_core::ids::ClusterId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const EAST: [u8; 4] = [127, 0, 1, 1];
const WEST: [u8; 4] = [127, 0, 2, 1];

/// Answers as a gateway does: `/lease` 200 only while it is lent, everything else with its site's name.
#[derive(Clone)]
struct Site {
    name: &'static str,
    active: Arc<AtomicBool>,
}

impl Site {
    /// Both, at one port; neither is active.
    async fn both() -> (Self, Self, u16) {
        for _ in 0..20 {
            let east = tokio::net::TcpListener::bind(SocketAddr::from((EAST, 0))).await.expect("a port");
            let port = east.local_addr().expect("bound").port();
            let Ok(west) = tokio::net::TcpListener::bind(SocketAddr::from((WEST, port))).await else {
                continue;
            };
            return (Self::serve("east", east), Self::serve("west", west), port);
        }
        unreachable!("no port is free on both addresses");
    }

    fn serve(name: &'static str, listener: tokio::net::TcpListener) -> Self {
        let site = Self { name, active: Arc::default() };
        let lease = async |State(site): State<Self>| {
            let active = site.active.load(Ordering::Relaxed);
            if active { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
        };
        let app = axum::Router::new()
            .route("/lease", axum::routing::get(lease))
            .fallback(async |State(site): State<Self>| site.name)
            .with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        site
    }

    fn holds_the_lease(&self, holds: bool) {
        self.active.store(holds, Ordering::Relaxed);
    }
}

fn balancer(site: &str, address: [u8; 4], port: u16) -> Balancer {
    let peer = if site == "east" { "west" } else { "east" };
    Balancer::new(BalancerTarget {
        name: target(&IpAddr::from(address).to_string()),
        site: site.parse().expect("a name"),
        peer: peer.parse().expect("a name"),
        https: false,
        port,
    })
}

async fn whole_zone(client: &Client) -> Zone {
    client.zone_by_name("example.com").await.expect("the API answers").expect("the zone exists")
}

async fn prepared(change: impl FnOnce(&mut EmulatorOptions)) -> (Emulator, Client, Zone) {
    let mut options = options();
    options.health_scale = 0.001;
    change(&mut options);
    let emulator = start(options).await;
    let client = client(&emulator);
    let zone = whole_zone(&client).await;
    (emulator, client, zone)
}

/// Who answers under the public name; else the edge's own words.
async fn answers(edge: SocketAddr) -> String {
    let ask = async {
        let mut stream = TcpStream::connect(edge).await?;
        let request = format!("GET / HTTP/1.1\r\nhost: {HOSTNAME}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    let answer = ask.await.unwrap_or_else(|error| error.to_string());
    let site = ["east", "west"].into_iter().find(|site| answer.contains(*site));
    site.map_or(answer.clone(), str::to_owned)
}

async fn order(client: &Client, zone: &Zone) -> Vec<String> {
    let pools = client.pools(&zone.account.id).await.expect("listed");
    let balancers = client.load_balancers(&zone.id).await.expect("listed");
    let [only] = balancers.as_slice() else { unreachable!("one is there: {balancers:?}") };
    assert_eq!(only.settings.fallback_pool, only.settings.default_pools[0]);
    let name =
        |id: &PoolId| pools.iter().find(|pool| pool.id == *id).expect("it is there").settings.name.clone();
    only.settings.default_pools.iter().map(name).collect()
}

fn names(sites: [&str; 2]) -> Vec<String> {
    sites.map(|site| owner().name_of(&site.parse().expect("a name"))).into()
}

#[tokio::test]
async fn the_site_that_serves_is_first_and_the_edge_sends_everything_to_it() {
    let (east, west, port) = Site::both().await;
    let listen = EdgeListener { listen: SocketAddr::from(([127, 0, 0, 1], 0)), origin_port: port };
    let (emulator, client, zone) = prepared(|options| options.edges = vec![listen]).await;
    let edge = emulator.edge_addresses()[0];
    let [in_east, in_west] = [balancer("east", EAST, port), balancer("west", WEST, port)];

    east.holds_the_lease(true);
    in_west.prepare(&client, &zone).await.expect("ready");
    assert!(client.load_balancers(&zone.id).await.expect("listed").is_empty(), "only the holder makes it");
    assert_eq!(in_east.point_here(&client, &zone).await.expect("pointed"), Pointed::Changed);
    assert_eq!(order(&client, &zone).await, names(["east", "west"]));
    eventually("east answers", async || (answers(edge).await == "east").then_some(())).await;
    assert_eq!(in_east.point_here(&client, &zone).await.expect("looked"), Pointed::AlreadyRight);
    in_west.prepare(&client, &zone).await.expect("ready");
    assert_eq!(order(&client, &zone).await, names(["east", "west"]), "looking changes no order");

    east.holds_the_lease(false);
    west.holds_the_lease(true);
    assert_eq!(in_west.point_here(&client, &zone).await.expect("pointed"), Pointed::Changed);
    assert_eq!(order(&client, &zone).await, names(["west", "east"]));
    eventually("west answers", async || (answers(edge).await == "west").then_some(())).await;

    // A late flip of the site that holds nothing is repaired by the one that holds the lease.
    assert_eq!(in_east.point_here(&client, &zone).await.expect("late"), Pointed::Changed);
    assert_eq!(in_west.point_here(&client, &zone).await.expect("repaired"), Pointed::Changed);
    assert_eq!(order(&client, &zone).await, names(["west", "east"]));
}

#[tokio::test]
async fn the_edge_leaves_a_site_whose_lease_has_ended_before_anybody_flips() {
    let (east, west, port) = Site::both().await;
    let listen = EdgeListener { listen: SocketAddr::from(([127, 0, 0, 1], 0)), origin_port: port };
    let (emulator, client, zone) = prepared(|options| options.edges = vec![listen]).await;
    let edge = emulator.edge_addresses()[0];
    east.holds_the_lease(true);
    balancer("west", WEST, port).prepare(&client, &zone).await.expect("ready");
    balancer("east", EAST, port).point_here(&client, &zone).await.expect("pointed");
    eventually("east answers", async || (answers(edge).await == "east").then_some(())).await;
    east.holds_the_lease(false);
    west.holds_the_lease(true);
    eventually("west answers", async || (answers(edge).await == "west").then_some(())).await;
    assert_eq!(order(&client, &zone).await, names(["east", "west"]), "nobody has flipped");
}

#[tokio::test]
async fn a_flip_is_one_look_and_one_change() {
    const BEFORE: usize = 17;
    // Every call after look and change is refused.
    let (emulator, client, zone) = prepared(|options| options.rate_limit = BEFORE + 2).await;
    let [in_east, in_west] = [balancer("east", EAST, 1), balancer("west", WEST, 1)];
    in_west.prepare(&client, &zone).await.expect("ready");
    in_east.point_here(&client, &zone).await.expect("pointed");
    in_west.prepare(&client, &zone).await.expect("ready");
    let error = in_west.point_here(&client, &zone).await.expect_err("what comes after the flip is refused");
    assert!(matches!(&error, BalancerError::Call(Error::RateLimited { .. })), "{error}");
    emulator.clear_faults();
    assert_eq!(order(&client, &zone).await, names(["west", "east"]));
}

#[tokio::test]
async fn what_was_applied_without_an_answer_is_found_and_made_only_once() {
    let (emulator, client, zone) = prepared(|_| {}).await;
    let east = balancer("east", EAST, 1);
    for fault in [CallFault::BadGatewayApplied, CallFault::CutApplied, CallFault::BadGatewayApplied] {
        emulator.set_faults(|faults| faults.next = vec![NextCalls { calls: 1, fault, only: Only::Writes }]);
        let error = east.point_here(&client, &zone).await.expect_err("no answer");
        assert!(matches!(&error, BalancerError::Call(error) if error.may_be_applied()), "{error}");
    }
    assert_eq!(east.point_here(&client, &zone).await.expect("all is there"), Pointed::AlreadyRight);
    assert_eq!(client.monitors(&zone.account.id).await.expect("listed").len(), 1);
    assert_eq!(client.pools(&zone.account.id).await.expect("listed").len(), 1);
    assert_eq!(client.load_balancers(&zone.id).await.expect("listed").len(), 1);
}

fn foreign_pool(name: &str) -> PoolSettings {
    let origin = Origin { name: "a".to_owned(), address: "198.51.100.9".to_owned(), enabled: true };
    PoolSettings {
        name: name.to_owned(),
        description: "somebody's".to_owned(),
        enabled: true,
        monitor: None,
        origins: vec![origin],
    }
}

#[tokio::test]
async fn a_pool_a_load_balancer_and_a_record_of_others_stop_everything_and_are_named() {
    let (_emulator, client, zone) = prepared(|_| {}).await;
    let account = &zone.account.id;
    let east = balancer("east", EAST, 1);
    let name = owner().name_of(&"east".parse().expect("a name"));
    let pool = client.create_pool(account, &foreign_pool(&name)).await.expect("made");
    let error = east.point_here(&client, &zone).await.expect_err("not ours").to_string();
    assert!(error.contains(&name) && error.contains(owner().comment()), "{error}");
    assert_eq!(client.pools(account).await.expect("listed"), std::slice::from_ref(&pool), "it is as it was");
    client.delete_pool(account, &pool.id).await.expect("deleted");

    let shadowed =
        NewRecord { comment: "somebody's".to_owned(), ..record(HOSTNAME, RecordType::A, "198.51.100.9") };
    let shadowed = client.create_record(&zone.id, &shadowed).await.expect("made");
    let error = east.point_here(&client, &zone).await.expect_err("it would be taken over");
    assert!(matches!(&error, BalancerError::ForeignRecords(_)), "{error}");
    assert!(client.load_balancers(&zone.id).await.expect("listed").is_empty());
    client.delete_record(&zone.id, &shadowed.id).await.expect("deleted");

    let other = client.create_pool(account, &foreign_pool("other")).await.expect("made").id;
    let settings = LoadBalancerSettings {
        name: HOSTNAME.to_owned(),
        description: Owner::new(ClusterId([9; 16])).comment().to_owned(),
        default_pools: vec![other.clone()],
        fallback_pool: other,
        proxied: true,
        enabled: true,
        steering_policy: "off".to_owned(),
        session_affinity: "none".to_owned(),
    };
    let made = client.create_load_balancer(&zone.id, &settings).await.expect("made");
    for error in [
        east.point_here(&client, &zone).await.map(drop).expect_err("not ours"),
        east.prepare(&client, &zone).await.expect_err("the passive site says so before it is needed"),
    ] {
        assert!(error.to_string().contains("load balancer files.example.com"), "{error}");
    }
    east.remove(&client, &zone).await.expect("removed");
    assert_eq!(client.load_balancers(&zone.id).await.expect("listed"), [made]);
}

#[tokio::test]
async fn what_a_person_changed_of_ours_is_put_right() {
    let (_emulator, client, zone) = prepared(|_| {}).await;
    let east = balancer("east", EAST, 1);
    east.point_here(&client, &zone).await.expect("pointed");
    let found = client.load_balancers(&zone.id).await.expect("listed").remove(0);
    let bent = LoadBalancerSettings { proxied: false, enabled: false, ..found.settings };
    client.patch_load_balancer(&zone.id, &found.id, &bent).await.expect("changed");
    let pool = client.pools(&zone.account.id).await.expect("listed").remove(0);
    let bent = PoolSettings { enabled: false, ..pool.settings };
    client.patch_pool(&zone.account.id, &pool.id, &bent).await.expect("changed");
    assert_eq!(east.point_here(&client, &zone).await.expect("put right"), Pointed::Changed);
    let found = client.load_balancers(&zone.id).await.expect("listed").remove(0).settings;
    assert!(found.proxied && found.enabled);
    assert!(client.pools(&zone.account.id).await.expect("listed")[0].settings.enabled);
}

#[tokio::test]
async fn where_load_balancing_was_not_bought_that_is_the_reason() {
    let (_emulator, client, zone) = prepared(|options| options.plan = Plan::Free).await;
    let error = balancer("east", EAST, 1).point_here(&client, &zone).await.expect_err("there is none");
    assert!(matches!(&error, BalancerError::NotAvailable(_)), "{error}");
    assert!(error.to_string().contains("via: Record"), "{error}");
}

#[tokio::test]
async fn a_token_without_the_accounts_permission_is_told_which() {
    const NARROW: &str = "narrowNarrowNarrowNarrowNarrowNarrowNarr";
    let spec: TokenSpec = format!("{NARROW}:zone_read,dns_edit,load_balancers_edit").parse().expect("valid");
    let (emulator, _, zone) = prepared(|options| options.tokens.push(spec)).await;
    let client = client_with(&emulator, NARROW);
    let error = balancer("east", EAST, 1).point_here(&client, &zone).await.expect_err("it may not");
    let text = error.to_string();
    assert!(
        text.contains("Account › Load Balancing: Monitors And Pools")
            && text.contains("account of this zone"),
        "{text}"
    );
}

#[tokio::test]
async fn a_site_that_goes_takes_its_own_away_and_leaves_the_others() {
    let (_emulator, client, zone) = prepared(|_| {}).await;
    let [east, west] = [balancer("east", EAST, 1), balancer("west", WEST, 1)];
    west.prepare(&client, &zone).await.expect("ready");
    east.point_here(&client, &zone).await.expect("pointed");
    east.remove(&client, &zone).await.expect("removed");
    east.remove(&client, &zone).await.expect("there is nothing left");
    let pools = client.pools(&zone.account.id).await.expect("listed");
    assert_eq!(
        pools.iter().map(|pool| pool.settings.name.clone()).collect::<Vec<_>>(),
        names(["west", "east"])[..1]
    );
    let left = client.load_balancers(&zone.id).await.expect("listed").remove(0).settings;
    assert_eq!((&left.default_pools[..], &left.fallback_pool), (&[pools[0].id.clone()][..], &pools[0].id));
    west.remove(&client, &zone).await.expect("removed");
    assert!(client.load_balancers(&zone.id).await.expect("listed").is_empty());
    assert!(client.monitors(&zone.account.id).await.expect("listed").is_empty());
}

#[tokio::test]
async fn own_records_below_a_load_balancer_are_kept_and_not_used() {
    let (_emulator, client, whole) = prepared(|_| {}).await;
    let zone = zone(&client).await;
    point_name(&client, &zone, &target("192.0.2.1")).await.expect("pointed");
    balancer("east", EAST, 1).point_here(&client, &whole).await.expect("pointed");
    let records = client.records(&zone, &RecordFilter::default()).await.expect("listed");
    assert_eq!(records.len(), 1);
}
