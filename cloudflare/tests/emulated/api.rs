//! The client against the emulator: what is applied, what is refused, what stays unknown.

use std::time::Duration;

use crate::common::{
    HOSTNAME, TOKEN, client, client_with, eventually, options, owner, record, start, target, zone,
};
use diptych_cloudflare::address::{PointError, Pointed, point_name};
use diptych_cloudflare::client::{
    Batch, Client, ClientOptions, Error, HealthStatus, HttpConfig, NewHealthCheck, PatchRecord, RecordFilter,
    RecordId, RecordType, TokenState, ZoneId,
};
use diptych_cloudflare::emulator::{CallFault, Emulator, Faults, NextCalls, Only};

async fn all(client: &Client, zone: &ZoneId) -> Vec<(String, String)> {
    let records = client.records(zone, &RecordFilter::default()).await.expect("listed");
    records.into_iter().map(|record| (record.name, record.content)).collect()
}

fn next(emulator: &Emulator, calls: u32, fault: CallFault, only: Only) {
    emulator.set_faults(|faults| faults.next.push(NextCalls { calls, fault, only }));
}

#[tokio::test]
async fn a_token_is_verified_and_a_wrong_one_is_called_wrong() {
    let emulator = start(options()).await;
    assert_eq!(client(&emulator).verify_token().await.expect("valid").status, TokenState::Active);
    let wrong = client_with(&emulator, "wrong");
    assert!(matches!(wrong.verify_token().await, Err(Error::Unauthorized { .. })));
    assert!(matches!(wrong.zone_by_name("example.com").await, Err(Error::Unauthorized { .. })));
}

#[tokio::test]
async fn a_missing_permission_is_named_and_a_foreign_zone_is_not_seen() {
    let mut options = options();
    options.tokens.push("readonly:zone_read,dns_read".parse().expect("valid"));
    options.tokens.push("elsewhere@example.net".parse().expect("valid"));
    let emulator = start(options).await;
    let reader = client_with(&emulator, "readonly");
    let zone = zone(&reader).await;
    let refused = reader.create_record(&zone, &record("a.example.com", RecordType::A, "192.0.2.1")).await;
    let error = refused.expect_err("may only read");
    assert!(matches!(error, Error::Forbidden { .. }) && error.to_string().contains("DNS › Edit"), "{error}");
    let elsewhere = client_with(&emulator, "elsewhere");
    assert_eq!(elsewhere.zone_by_name("example.com").await.expect("answered"), None);
    assert!(matches!(elsewhere.records(&zone, &RecordFilter::default()).await, Err(Error::Forbidden { .. })));
}

#[tokio::test]
async fn a_revoked_token_stops_working_at_once() {
    let emulator = start(options()).await;
    let client = client(&emulator);
    client.verify_token().await.expect("valid");
    emulator.set_faults(|faults| faults.revoked = [TOKEN.to_owned()].into());
    assert!(matches!(client.verify_token().await, Err(Error::Unauthorized { .. })));
    emulator.clear_faults();
    client.verify_token().await.expect("valid again");
}

#[tokio::test]
async fn records_are_created_changed_listed_by_name_and_deleted() {
    let emulator = start(options()).await;
    let client = client(&emulator);
    let zone = zone(&client).await;
    let made = client
        .create_record(&zone, &record("a.example.com", RecordType::A, "192.0.2.1"))
        .await
        .expect("made");
    client
        .create_record(&zone, &record("b.example.com", RecordType::Cname, "x.example.net"))
        .await
        .expect("made");
    let patch = PatchRecord {
        id: made.id.clone(),
        name: made.name.clone(),
        kind: RecordType::A,
        content: Some("192.0.2.2".to_owned()),
        proxied: None,
        ttl: Some(120),
        comment: None,
    };
    let changed = client.patch_record(&zone, &patch).await.expect("changed");
    assert_eq!((changed.content.as_str(), changed.ttl, changed.comment), ("192.0.2.2", 120, made.comment));
    let filter = RecordFilter { name: Some("A.example.com".to_owned()), kind: Some(RecordType::A) };
    assert_eq!(client.records(&zone, &filter).await.expect("listed").len(), 1);
    client.delete_record(&zone, &made.id).await.expect("deleted");
    assert!(client.delete_record(&zone, &made.id).await.expect_err("gone").is_missing());
    assert_eq!(all(&client, &zone).await, [("b.example.com".to_owned(), "x.example.net".to_owned())]);
}

#[tokio::test]
async fn a_listing_of_several_pages_is_whole() {
    let emulator = start(options()).await;
    let client = client(&emulator);
    let zone = zone(&client).await;
    let post = |index: u32| {
        record(
            &format!("n{index}.example.com"),
            RecordType::A,
            &format!("10.0.{}.{}", index >> 8, index & 255),
        )
    };
    let posts = (0..2345).map(post).collect();
    client.batch(&zone, &Batch { posts, ..Batch::default() }).await.expect("within the plan's limit");
    let mut names = all(&client, &zone).await;
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 2345);
}

#[tokio::test]
async fn a_batch_with_one_failure_changes_nothing() {
    let emulator = start(options()).await;
    let client = client(&emulator);
    let zone = zone(&client).await;
    let kept = client
        .create_record(&zone, &record("a.example.com", RecordType::A, "192.0.2.1"))
        .await
        .expect("made");
    client
        .create_record(&zone, &record("c.example.com", RecordType::Cname, "x.example.net"))
        .await
        .expect("made");
    let before = all(&client, &zone).await;
    let batch = Batch {
        deletes: vec![kept.id.clone()],
        posts: vec![
            record("new.example.com", RecordType::A, "192.0.2.9"),
            record("c.example.com", RecordType::Cname, "y.example.net"),
        ],
        ..Batch::default()
    };
    let error = client.batch(&zone, &batch).await.expect_err("a second CNAME on a name");
    assert!(error.is_conflict() && error.has_code(&[81053]) && !error.may_be_applied(), "{error}");
    assert_eq!(all(&client, &zone).await, before);
    let unknown = Batch { deletes: vec![kept.id, RecordId("0".repeat(32))], ..Batch::default() };
    assert!(client.batch(&zone, &unknown).await.expect_err("an unknown id").is_missing());
    assert_eq!(all(&client, &zone).await, before);
}

#[tokio::test]
async fn a_batch_deletes_before_it_posts() {
    let emulator = start(options()).await;
    let client = client(&emulator);
    let zone = zone(&client).await;
    let old = client
        .create_record(&zone, &record("c.example.com", RecordType::Cname, "x.example.net"))
        .await
        .expect("made");
    let batch = Batch {
        deletes: vec![old.id.clone()],
        posts: vec![record("c.example.com", RecordType::Cname, "y.example.net")],
        ..Batch::default()
    };
    let answer = client.batch(&zone, &batch).await.expect("the name is free by then");
    let posted = answer.posts.expect("posts are answered");
    assert!(posted.len() == 1 && posted[0].id != old.id);
}

#[tokio::test]
async fn too_many_calls_lock_the_user_out_and_say_for_how_long() {
    let mut options = options();
    options.rate_limit = 5;
    options.tokens.push("another".parse().expect("valid"));
    let emulator = start(options).await;
    let client = client(&emulator);
    for _ in 0..5 {
        client.verify_token().await.expect("within the limit");
    }
    for _ in 0..2 {
        let error = client_with(&emulator, "another")
            .verify_token()
            .await
            .expect_err("counted by user, not by token");
        let Error::RateLimited { retry_after, .. } = error else { panic!("{error}") };
        assert!((290..=300).contains(&retry_after.as_secs()));
    }
    emulator.clear_faults();
    client.verify_token().await.expect("cleared");
}

#[tokio::test]
async fn failures_of_the_server_are_unclear_and_may_have_been_applied() {
    let emulator = start(options()).await;
    let zone = zone(&client(&emulator)).await;
    let hasty = ClientOptions::new(TOKEN.parse().expect("a token")).base_url(&emulator.api_url());
    let client = Client::new(hasty.call_limit(Duration::from_millis(400))).expect("plain http");
    let faults = [
        (CallFault::InternalError, false),
        (CallFault::BadGateway, false),
        (CallFault::BadGatewayApplied, true),
        (CallFault::Timeout, false),
        (CallFault::TimeoutApplied, true),
        (CallFault::Cut, false),
        (CallFault::CutApplied, true),
    ];
    for (index, (fault, applied)) in faults.into_iter().enumerate() {
        next(&emulator, 1, fault, Only::Writes);
        let name = format!("n{index}.example.com");
        let answer = client.create_record(&zone, &record(&name, RecordType::A, "192.0.2.1")).await;
        let error = answer.expect_err("a fault");
        assert!(error.may_be_applied(), "{fault:?}: {error}");
        let there =
            || async { all(&client, &zone).await.iter().any(|(held, _)| *held == name).then_some(()) };
        if applied {
            eventually("the record is there", there).await;
        } else {
            assert!(there().await.is_none(), "{fault:?}");
        }
    }
    assert!(emulator.faults().next.is_empty(), "each fault was met once: nothing was sent twice");
}

#[tokio::test]
async fn an_api_that_is_down_is_unclear_on_an_open_connection_and_one_that_is_gone_unreachable() {
    let emulator = start(options()).await;
    let client = client(&emulator);
    emulator.set_faults(|faults| faults.api_down = true);
    assert!(matches!(client.verify_token().await, Err(Error::Unclear { .. })));
    drop(emulator);
    let gone = eventually("the listener is closed", async || match client.verify_token().await {
        Err(Error::Unclear { .. }) => None,
        other => Some(other),
    });
    assert!(matches!(gone.await, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn pointing_the_name_creates_flips_and_then_rests() {
    let emulator = start(options()).await;
    let client = client(&emulator);
    let zone = zone(&client).await;
    assert_eq!(point_name(&client, &zone, &target("192.0.2.1")).await.expect("created"), Pointed::Changed);
    assert_eq!(point_name(&client, &zone, &target("192.0.2.2")).await.expect("flipped"), Pointed::Changed);
    next(&emulator, 1, CallFault::InternalError, Only::Writes);
    assert_eq!(
        point_name(&client, &zone, &target("192.0.2.2")).await.expect("no write"),
        Pointed::AlreadyRight
    );
    assert_eq!(all(&client, &zone).await, [(HOSTNAME.to_owned(), "192.0.2.2".to_owned())]);
}

#[tokio::test]
async fn a_name_with_a_foreign_record_is_left_alone() {
    let emulator = start(options()).await;
    let client = client(&emulator);
    let zone = zone(&client).await;
    let mut foreign = record(HOSTNAME, RecordType::A, "198.51.100.7");
    foreign.comment = "somebody else's".to_owned();
    client.create_record(&zone, &foreign).await.expect("made");
    let error = point_name(&client, &zone, &target("192.0.2.1")).await.expect_err("not ours");
    assert!(matches!(&error, PointError::Foreign(_)), "{error}");
    assert!(
        error.to_string().contains("198.51.100.7") && error.to_string().contains(owner().comment()),
        "{error}"
    );
    assert_eq!(all(&client, &zone).await, [(HOSTNAME.to_owned(), "198.51.100.7".to_owned())]);
}

#[tokio::test]
async fn a_restarted_emulator_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut with_state = options();
    with_state.state = Some(folder.path().join("state.json"));
    let emulator = start(with_state.clone()).await;
    let zone_before = zone(&client(&emulator)).await;
    point_name(&client(&emulator), &zone_before, &target("192.0.2.1")).await.expect("created");
    drop(emulator);
    let emulator = start(with_state).await;
    let client = client(&emulator);
    assert_eq!(zone(&client).await, zone_before);
    assert_eq!(all(&client, &zone_before).await, [(HOSTNAME.to_owned(), "192.0.2.1".to_owned())]);
}

#[tokio::test]
async fn a_state_that_cannot_be_written_refuses_the_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut with_state = options();
    with_state.state = Some(folder.path().join("state.json"));
    let emulator = start(with_state).await;
    let client = client(&emulator);
    let zone = zone(&client).await;
    folder.close().expect("removed");
    let answer = client.create_record(&zone, &record("a.example.com", RecordType::A, "192.0.2.1")).await;
    assert!(answer.expect_err("not durable").may_be_applied());
    assert_eq!(all(&client, &zone).await, []);
}

#[tokio::test]
async fn a_health_check_probes_for_real() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let healthy = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let seen = std::sync::Arc::clone(&healthy);
    let answer = move || async move {
        if seen.load(std::sync::atomic::Ordering::Relaxed) {
            axum::http::StatusCode::OK
        } else {
            axum::http::StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let app = axum::Router::new().route("/health", axum::routing::get(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let mut options = options();
    options.health_scale = 0.001;
    let emulator = start(options).await;
    let client = client(&emulator);
    let zone = zone(&client).await;
    let config = HttpConfig {
        method: "GET".to_owned(),
        port,
        path: "/health".to_owned(),
        expected_codes: vec!["2xx".to_owned()],
        allow_insecure: false,
        header: None,
    };
    let check = client
        .create_health_check(&zone, &NewHealthCheck::http("east", "127.0.0.1", config))
        .await
        .expect("made");
    let reaches = |wanted: HealthStatus| {
        let (client, zone, id) = (&client, &zone, &check.id);
        eventually("the verdict", async move || {
            let check = client.health_check(zone, id).await.expect("read");
            (check.status == wanted).then_some(check)
        })
    };
    reaches(HealthStatus::Healthy).await;
    healthy.store(false, std::sync::atomic::Ordering::Relaxed);
    let sick = reaches(HealthStatus::Unhealthy).await;
    assert!(sick.failure_reason.is_some_and(|reason| reason.contains("503")));
    assert_eq!(client.health_checks(&zone).await.expect("listed").len(), 1);
    client.delete_health_check(&zone, &check.id).await.expect("deleted");
    assert!(client.health_checks(&zone).await.expect("listed").is_empty());
}

#[tokio::test]
async fn the_control_api_changes_and_clears_faults() {
    let emulator = start(options()).await;
    let url = format!("{}/faults", emulator.control_url().expect("it has one"));
    let plain = plain_client();
    let patched =
        plain.patch(&url).body(r#"{"dns_down": true, "next": [{"calls": 2, "fault": "bad_gateway"}]}"#);
    let answer = patched.header("content-type", "application/json").send().await.expect("answered");
    assert_eq!(answer.status().as_u16(), 200);
    assert!(emulator.faults().dns_down && emulator.faults().next[0].calls == 2);
    let unknown = plain.patch(&url).body(r#"{"dsn_down": true}"#).header("content-type", "application/json");
    assert_eq!(unknown.send().await.expect("answered").status().as_u16(), 400);
    plain.delete(&url).send().await.expect("answered");
    assert_eq!(emulator.faults(), Faults::default());
}

fn plain_client() -> reqwest::Client {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).build().expect("a client")
}
