//! Conflict versions through REST: listed, restored, discarded, each once, and refused in words.

use std::sync::Arc;

use bytes::Bytes;
use diptych_core::ids::Epoch;
use diptych_core::keys;
use diptych_core::lease::SubLease;
use diptych_core::records::{Head, LedgerEntry, Noted, Record};
use diptych_gateway::Limits;
use diptych_gateway::authority::{Authority, Role};
use diptych_gateway::objects::{ConflictVersion, ConflictsPage, LedgerPage};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::common::{TOKEN, TestSite, noise};

const MIB: usize = 1 << 20;

/// A site whose file `file` says `new`, with the version before it kept as a conflict.
struct Conflicting {
    site: TestSite,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Conflicting {
    async fn start() -> Self {
        let site = TestSite::start().await;
        let (old, new) = (noise(MIB, 1), noise(MIB, 2));
        assert_eq!(site.post("file", old.clone()).await.status(), StatusCode::CREATED);
        let put = site.http.put(site.file_url("file")).bearer_auth(TOKEN).body(new.clone());
        assert!(put.send().await.expect("an answer").status().is_success());
        // As a merge leaves it; the marks of the replaced version are still there.
        let view = diptych_catalog::Catalog::view(site.catalog.as_ref()).await.expect("a view");
        let (key, raw) = view.scan(&keys::prefix_range(b"v/"), 1).expect("it reads").entries.remove(0);
        drop(view);
        let (bucket, object) = keys::bucket_and_object(&key).expect("an object");
        let version = Head::decode(&raw).expect("it reads").at.version;
        site.delete_all(b"v/").await;
        site.put_keys(vec![(keys::conflict(bucket, &object, version), raw)]).await;
        Self { site, old, new }
    }

    async fn ask(&self, method: Method, path: &str) -> (StatusCode, Value) {
        let request = self.site.http.request(method, self.site.rest(path)).bearer_auth(TOKEN);
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        (status, serde_json::from_slice(&answer.bytes().await.expect("a body")).unwrap_or_default())
    }

    async fn listed(&self) -> Vec<ConflictVersion> {
        let (status, page) = self.ask(Method::GET, "/api/v1/conflicts").await;
        assert_eq!(status, StatusCode::OK, "{page}");
        serde_json::from_value::<ConflictsPage>(page).expect("a page").conflicts
    }

    async fn settled(&self) -> Vec<Option<String>> {
        let (status, page) = self.ask(Method::GET, "/api/v1/ledger?bucket=files").await;
        assert_eq!(status, StatusCode::OK, "{page}");
        let page: LedgerPage = serde_json::from_value(page).expect("a page");
        page.entries.into_iter().map(|entry| entry.settled).collect()
    }

    async fn reads(&self) -> Vec<u8> {
        self.site.get("file").await.bytes().await.expect("a body").to_vec()
    }
}

fn of(conflict: &ConflictVersion) -> String {
    format!("/api/v1/conflicts/{}?id=file", conflict.version)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_version_that_is_restored_is_head_and_what_was_head_can_be_freed() {
    let conflicting = Conflicting::start().await;
    let listed = conflicting.listed().await;
    let [conflict] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((&*conflict.bucket, &*conflict.id, conflict.size), ("files", "file", MIB as u64));
    assert!(conflict.whole && !conflict.lost, "{conflict:?}");
    let marks_of_old = conflicting.site.count(b"g/").await;

    assert_eq!(conflicting.ask(Method::POST, &of(conflict)).await.0, StatusCode::NO_CONTENT);
    assert!(conflicting.reads().await == conflicting.old, "it is head");
    assert!(conflicting.listed().await.is_empty());
    assert_eq!(conflicting.settled().await, [Some("Restored".to_owned())]);
    assert_eq!((conflicting.site.count(b"v/").await, conflicting.site.count(b"c/").await), (1, 0));
    assert_eq!(conflicting.site.count(b"g/").await, marks_of_old, "the marks are those of the other one now");

    let (status, error) = conflicting.ask(Method::POST, &of(conflict)).await;
    assert_eq!((status, &error["error"]["code"]), (StatusCode::NOT_FOUND, &Value::from("NoSuchVersion")));
    conflicting.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_version_that_is_discarded_is_gone_and_the_head_stays() {
    let conflicting = Conflicting::start().await;
    let conflict = conflicting.listed().await.remove(0);
    assert_eq!(conflicting.ask(Method::DELETE, &of(&conflict)).await.0, StatusCode::NO_CONTENT);
    assert!(conflicting.listed().await.is_empty());
    assert!(conflicting.reads().await == conflicting.new);
    assert_eq!(conflicting.settled().await, [Some("Discarded".to_owned())]);
    for method in [Method::POST, Method::DELETE] {
        let (status, error) = conflicting.ask(method, &of(&conflict)).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{error}");
    }
    conflicting.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_version_is_listed_as_lost_and_not_restored_before_its_bytes_are_here() {
    let conflicting = Conflicting::start().await;
    let key = {
        let view = diptych_catalog::Catalog::view(conflicting.site.catalog.as_ref()).await.expect("a view");
        view.scan(&keys::prefix_range(b"c/"), 1).expect("it reads").entries.remove(0)
    };
    let (bucket, object, version) = keys::object_of_conflict(&key.0).expect("an object");
    let head = Head::decode(&key.1).expect("it reads");
    let entry = LedgerEntry {
        at_ms: 1,
        bucket,
        key: object,
        version: Some(head.at),
        what: Noted::Lost { size: MIB as u64, instead: None, accepted_ms: Some(7) },
        settled: None,
    };
    let ledger = keys::ledger(Epoch(1), LedgerEntry::number(version));
    conflicting.site.put_keys(vec![(ledger, Bytes::from(entry.encode()))]).await;
    let placed = conflicting.site.placements().await;
    conflicting.site.delete_all(b"l/").await;

    let conflict = conflicting.listed().await.remove(0);
    assert!(conflict.lost && !conflict.whole, "{conflict:?}");
    let (status, error) = conflicting.ask(Method::POST, &of(&conflict)).await;
    assert_eq!((status, &error["error"]["code"]), (StatusCode::CONFLICT, &Value::from("ConflictLacksBytes")));
    assert_eq!(conflicting.settled().await, [None], "nothing was done");

    let back = placed.into_iter().map(|(extent, placement)| {
        (keys::placement(&conflicting.site.site, extent), Bytes::from(placement.encode()))
    });
    conflicting.site.put_keys(back.collect()).await;
    assert_eq!(conflicting.ask(Method::POST, &of(&conflict)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(conflicting.settled().await, [Some("Restored".to_owned())], "the same entry");
    conflicting.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_no_conflict_version_is_refused_in_words() {
    let conflicting = Conflicting::start().await;
    let conflict = conflicting.listed().await.remove(0);
    let path = |version: &str, rest: &str| format!("/api/v1/conflicts/{version}?id=file{rest}");
    let unknown = path(&"0".repeat(32), "");
    for (path, status) in [
        (unknown, StatusCode::NOT_FOUND),
        (path(&conflict.version, "&bucket=other"), StatusCode::NOT_FOUND),
        (path("no-version", ""), StatusCode::BAD_REQUEST),
    ] {
        let (answered, error) = conflicting.ask(Method::POST, &path).await;
        assert_eq!(answered, status, "{path}: {error}");
        assert!(error["error"]["message"].is_string(), "{error}");
    }
    for list in ["/api/v1/conflicts?after=no-page", "/api/v1/ledger?limit=0"] {
        assert_eq!(conflicting.ask(Method::GET, list).await.0, StatusCode::BAD_REQUEST, "{list}");
    }
    assert_eq!(conflicting.listed().await, [conflict]);
    conflicting.site.stop().await;
}

/// Of a site that follows.
struct Follows;

impl Authority for Follows {
    fn sub_lease(&self) -> Option<SubLease> {
        None
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    fn role(&self) -> Role {
        Role::Passive
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_not_active_settles_no_conflict() {
    let site = TestSite::start_on(Limits::default(), Arc::new(Follows), |catalog| catalog).await;
    let url = site.rest(&format!("/api/v1/conflicts/{}?id=file", "1".repeat(32)));
    for method in [Method::POST, Method::DELETE] {
        let answer = site.http.request(method, &url).bearer_auth(TOKEN).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let error: Value = answer.json().await.expect("JSON");
        let message = error["error"]["message"].as_str().expect("text");
        assert!(message.contains("may not write now"), "{message}");
    }
    site.stop().await;
}
