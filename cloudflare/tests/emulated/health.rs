//! Health checks of sites, against the emulator.

use crate::common::{HOSTNAME, client, eventually, options, owner, start, zone};
use diptych_cloudflare::client::{Error, HealthStatus, HttpConfig, NewHealthCheck};
use diptych_cloudflare::emulator::Plan;
use diptych_cloudflare::health::{SiteCheck, check_of, keep_check, remove_check};
use diptych_core::ids::SiteName;

fn east() -> SiteName {
    "east".parse().expect("a name")
}

fn check(port: u16) -> SiteCheck {
    SiteCheck {
        site: east(),
        address: [127, 0, 0, 1].into(),
        https: false,
        port,
        hostname: HOSTNAME.to_owned(),
        owner: owner(),
    }
}

/// A site that is well; its port.
async fn site() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let answer = async |headers: axum::http::HeaderMap| {
        let asked = headers.get("host").is_some_and(|host| host == HOSTNAME);
        if asked { axum::http::StatusCode::OK } else { axum::http::StatusCode::NOT_FOUND }
    };
    let app = axum::Router::new().route("/health", axum::routing::get(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

#[tokio::test]
async fn a_check_is_made_once_kept_right_judged_and_removed_and_no_other_is_touched() {
    let mut options = options();
    options.health_scale = 0.001;
    let emulator = start(options).await;
    let client = client(&emulator);
    let zone = zone(&client).await;
    let config = HttpConfig {
        method: "GET".to_owned(),
        port: 1,
        path: "/".to_owned(),
        expected_codes: vec!["2xx".to_owned()],
        allow_insecure: false,
        header: None,
    };
    let foreign = NewHealthCheck::http("diptych-east", "127.0.0.1", config);
    let foreign = client.create_health_check(&zone, &foreign).await.expect("made");

    let first = check(site().await);
    let listing = keep_check(&client, &zone, &first).await.expect("made");
    let made = check_of(&listing, &owner(), &east()).expect("it is there").clone();
    eventually("the verdict", async || {
        let listing = keep_check(&client, &zone, &first).await.expect("kept");
        let kept = check_of(&listing, &owner(), &east()).expect("it is there");
        assert_eq!(kept.id, made.id, "one that is right is left alone");
        (kept.status == HealthStatus::Healthy).then_some(())
    })
    .await;

    // The site moved to where nobody listens.
    let moved = check(1);
    eventually("the verdict on the new address", async || {
        let listing = keep_check(&client, &zone, &moved).await.expect("kept");
        assert_eq!(listing.len(), 2, "{listing:?}");
        let kept = check_of(&listing, &owner(), &east()).expect("it is there");
        assert_ne!(kept.id, made.id, "it was made anew");
        (kept.status == HealthStatus::Unhealthy).then_some(())
    })
    .await;

    for _ in 0..2 {
        remove_check(&client, &zone, &owner(), &east()).await.expect("removed");
        let left = client.health_checks(&zone).await.expect("listed");
        assert_eq!(left.iter().map(|check| &check.id).collect::<Vec<_>>(), [&foreign.id]);
    }
}

#[tokio::test]
async fn a_plan_without_health_checks_says_so_and_has_nothing_to_remove() {
    let mut options = options();
    options.plan = Plan::Free;
    let emulator = start(options).await;
    let client = client(&emulator);
    let zone = zone(&client).await;
    let error = keep_check(&client, &zone, &check(80)).await.expect_err("the plan has none");
    assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    assert!(error.to_string().contains("health checks of this plan: 0"), "{error}");
    remove_check(&client, &zone, &owner(), &east()).await.expect("there is none");
}

#[tokio::test]
async fn an_address_that_the_edge_can_not_reach_is_unhealthy_though_it_answers() {
    let mut options = options();
    options.health_scale = 0.001;
    let emulator = start(options).await;
    let client = client(&emulator);
    let zone = zone(&client).await;
    let site = check(site().await);
    let is = |wanted: HealthStatus| {
        let (client, zone, site) = (&client, &zone, &site);
        eventually("the verdict", async move || {
            let listing = keep_check(client, zone, site).await.expect("kept");
            check_of(&listing, &owner(), &east()).filter(|check| check.status == wanted).map(drop)
        })
    };
    is(HealthStatus::Healthy).await;
    emulator.set_faults(|faults| {
        faults.unreached.insert([127, 0, 0, 1].into());
    });
    is(HealthStatus::Unhealthy).await;
    emulator.set_faults(|faults| faults.unreached.clear());
    is(HealthStatus::Healthy).await;
}
