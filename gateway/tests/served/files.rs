//! Files through REST, on real agents and a real catalog.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Others, TOKEN, TestSite, noise, user};
use async_trait::async_trait;
use diptych_core::ids::{ExtentId, KeeperNumber};
use diptych_core::keys::Key;
use diptych_core::records::Position;
use diptych_core::session::User;
use diptych_gateway::authority::SingleSite;
use diptych_gateway::rest::Reviewer;
use diptych_gateway::{Limits, PeerConfirmation};
use diptych_wire::review::{Access, Resource, Verb};
use reqwest::{Method, StatusCode};
use serde_json::Value;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_sizes_come_back_as_they_were() {
    let site = TestSite::start().await;
    let sizes = [0, 1, 255 * KIB, 256 * KIB, 256 * KIB + 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 7];
    for (seed, size) in (1..).zip(sizes) {
        let id = format!("size/{size}");
        let plain = noise(size, seed);
        let answer = site.post(&id, plain.clone()).await;
        assert_eq!(
            answer.status(),
            StatusCode::CREATED,
            "{size} bytes: {}",
            answer.text().await.expect("a body")
        );
        let receipt =
            answer.headers().get("x-diptych-receipt").expect("a receipt").to_str().expect("text").to_owned();
        assert_eq!(receipt, "epoch=1; east=6/6; exposed=no");
        let document: Value = answer.json().await.expect("JSON");
        assert_eq!(document["id"], id);
        assert_eq!(document["size"], size);
        let read = site.get(&id).await;
        assert_eq!(read.status(), StatusCode::OK);
        assert_eq!(read.content_length(), Some(size as u64));
        assert!(read.bytes().await.expect("a body") == plain, "{size} bytes differ");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_many_extents_comes_back_whole_and_by_ranges() {
    let site = TestSite::start().await;
    let plain = noise(70 * MIB + 12_345, 9);
    let answer = site.post("large", plain.clone()).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(site.count(b"x/").await, 2, "two extents");
    let read = site.get("large").await.bytes().await.expect("a body");
    assert!(read == plain, "the whole differs");
    let borders =
        [0, 256 * KIB, MIB, 4 * 256 * KIB, 7 * MIB, 64 * MIB, 64 * MIB + 256 * KIB, plain.len() - 1];
    for border in borders {
        for (first, last) in [
            (border.saturating_sub(1), border),
            (border, border),
            (border.saturating_sub(300 * KIB), border + 300 * KIB),
            (border.saturating_sub(2 * MIB), border + 17),
        ] {
            let first = first.min(plain.len() - 1);
            let answer = site.range("large", first, last).await;
            assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
            let end = (last + 1).min(plain.len());
            let range = format!("bytes {first}-{}/{}", end - 1, plain.len());
            assert_eq!(answer.headers()["content-range"], range.as_str());
            let bytes = answer.bytes().await.expect("a body");
            assert!(bytes == plain[first..end], "bytes {first} to {last} differ");
        }
    }
    let answer = site.range("large", plain.len(), plain.len() + 5).await;
    assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(answer.headers()["content-range"], format!("bytes */{}", plain.len()).as_str());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_compressed_and_its_ranges_read_through_the_tail() {
    let site = TestSite::start().await;
    let plain: Vec<u8> =
        b"a line that repeats, and compresses well. ".iter().copied().cycle().take(3 * MIB + 9).collect();
    assert_eq!(site.post("text", plain.clone()).await.status(), StatusCode::CREATED);
    assert!(site.get("text").await.bytes().await.expect("a body") == plain);
    let range = site.range("text", MIB - 5, 2 * MIB + 5).await.bytes().await.expect("a body");
    assert!(range == plain[MIB - 5..=2 * MIB + 5]);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_made_replaced_listed_and_deleted_as_the_interface_says() {
    let site = TestSite::start().await;
    let url = |id: &str| site.file_url(id);
    let list: Value = site
        .http
        .get(site.rest("/api/v1/files"))
        .bearer_auth(TOKEN)
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    assert_eq!(list["files"].as_array().map(Vec::len), Some(0), "no file yet is an empty list");
    let missing = site.http.put(url("a/b c")).bearer_auth(TOKEN).body("x").send().await.expect("an answer");
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    for id in ["a/b c", "a/c", "b", "ü"] {
        assert_eq!(site.post(id, id.to_owned()).await.status(), StatusCode::CREATED);
    }
    let twice = site.post("b", "again").await;
    assert_eq!(twice.status(), StatusCode::CONFLICT);
    let error: Value = twice.json().await.expect("JSON");
    assert_eq!(error["error"]["code"], "AlreadyExists");
    let replaced =
        site.http.put(url("a/b c")).bearer_auth(TOKEN).body("new bytes").send().await.expect("an answer");
    assert_eq!(replaced.status(), StatusCode::OK);
    assert_eq!(site.get("a/b c").await.text().await.expect("text"), "new bytes");
    assert_eq!(site.count(b"v/").await, 1, "what was replaced is kept until it is confirmed");
    assert_eq!(site.count(b"g/").await, 1, "and its blob is marked dead");

    let mut after = None::<String>;
    let mut ids = Vec::new();
    loop {
        let after_query = after.map(|after| {
            format!(
                "&after={}",
                percent_encoding::utf8_percent_encode(&after, percent_encoding::NON_ALPHANUMERIC)
            )
        });
        let path = format!("/api/files?limit=3{}", after_query.unwrap_or_default());
        let request = site.http.get(site.rest(&path)).bearer_auth(TOKEN);
        let page: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        let files = page["files"].as_array().expect("a list").clone();
        ids.extend(files.iter().map(|file| file["id"].as_str().expect("an id").to_owned()));
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(ids, ["a/b c", "a/c", "b", "ü"]);

    let head = site.http.head(url("b")).bearer_auth(TOKEN).send().await.expect("an answer");
    assert_eq!(head.headers()["content-length"], "1");
    let deleted = site.http.delete(url("b")).bearer_auth(TOKEN).send().await.expect("an answer");
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    assert_eq!(site.get("b").await.status(), StatusCode::NOT_FOUND);
    let again = site.http.delete(url("b")).bearer_auth(TOKEN).send().await.expect("an answer");
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_without_the_right_token_but_health() {
    let site = TestSite::start().await;
    for token in [None, Some("wrong")] {
        let mut request = site.http.get(site.file_url("x"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        let error: Value = answer.json().await.expect("JSON");
        assert_eq!(error["error"]["code"], "Unauthorized");
    }
    for path in ["/live", "/ready", "/health", "/lease", "/metrics"] {
        let answer = site.http.get(site.rest(path)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
    let health: Value =
        site.http.get(site.rest("/health")).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(health["status"], "ok", "{health}");
    assert_eq!(health["checks"].as_array().map(Vec::len), Some(6));
    site.stop().await;
}

/// Jane may read, in the site's own namespace and in `shop`; nobody can be asked about Joe.
struct OfAnother;

#[async_trait]
impl Reviewer for OfAnother {
    async fn identify(&self, token: &str) -> Result<Option<User>, String> {
        match token {
            "jane" => Ok(Some(user("jane"))),
            "joe" => Err("the API server is away".to_owned()),
            _ => Ok(None),
        }
    }

    async fn allows(&self, user: &User, access: Access, namespace: &str) -> Result<bool, String> {
        let reads = access == Access { verb: Verb::Get, resource: Resource::FileObjects };
        Ok(user.name == "jane" && reads && ["default", "shop"].contains(&namespace))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_somebody_else_reaches_what_its_holder_may() {
    let others = Others { reviewer: Some(Arc::new(OfAnother)), ..Others::default() };
    let authority = Arc::new(SingleSite { keeper: KeeperNumber(1) });
    let site = TestSite::start_beside(Limits::default(), authority, others, |catalog| catalog).await;
    assert_eq!(site.post("a", "bytes").await.status(), StatusCode::CREATED);
    let answer = async |method: Method, token: &str| {
        let request = site.http.request(method, site.file_url("a")).bearer_auth(token).body("other");
        request.send().await.expect("an answer")
    };
    assert_eq!(answer(Method::GET, "jane").await.text().await.expect("a body"), "bytes");
    for method in [Method::PUT, Method::DELETE] {
        let denied = answer(method, "jane").await;
        assert_eq!(denied.status(), StatusCode::FORBIDDEN);
        let error: Value = denied.json().await.expect("JSON");
        let said = error["error"]["message"].as_str().unwrap_or_default();
        assert!(said.contains("jane may not") && said.contains("fileobjects.files.diptych.dev"), "{said}");
    }
    assert_eq!(answer(Method::GET, "joe").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer(Method::GET, "eve").await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(site.get("a").await.text().await.expect("a body"), "bytes");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_reached_by_those_who_may_in_the_namespace_that_owns_it() {
    let others = Others { reviewer: Some(Arc::new(OfAnother)), ..Others::default() };
    let authority = Arc::new(SingleSite { keeper: KeeperNumber(1) });
    let site = TestSite::start_beside(Limits::default(), authority, others, |catalog| catalog).await;
    // As the operator stores FileObjects: with the site's own token, for their namespaces.
    let ask = async |method: Method, bucket: &str, token: &str, namespace: Option<&str>| {
        let new = method == Method::POST;
        let path = if new { format!("?bucket={bucket}&id=a") } else { format!("/a?bucket={bucket}") };
        let mut request = site.http.request(method, site.rest(&format!("/api/v1/files{path}")));
        if let Some(namespace) = namespace {
            request = request.header("x-diptych-namespace", namespace);
        }
        request.bearer_auth(token).body("bytes").send().await.expect("an answer").status()
    };
    for (bucket, namespace) in [("of-shop", "shop"), ("of-bank", "bank")] {
        assert_eq!(ask(Method::POST, bucket, TOKEN, None).await, StatusCode::NOT_FOUND, "nobody made it");
        assert_eq!(ask(Method::POST, bucket, TOKEN, Some(namespace)).await, StatusCode::CREATED);
        assert_eq!(
            ask(Method::GET, bucket, TOKEN, None).await,
            StatusCode::NOT_FOUND,
            "it is not the site's"
        );
    }
    assert_eq!(ask(Method::GET, "of-shop", "jane", None).await, StatusCode::OK);
    assert_eq!(ask(Method::GET, "of-bank", "jane", None).await, StatusCode::FORBIDDEN);
    assert_eq!(ask(Method::GET, "of-bank", "jane", Some("bank")).await, StatusCode::FORBIDDEN, "not for her");
    // Another namespace touches nothing of theirs.
    assert_eq!(ask(Method::DELETE, "of-bank", TOKEN, Some("shop")).await, StatusCode::NOT_FOUND);
    assert_eq!(ask(Method::PUT, "of-bank", TOKEN, Some("shop")).await, StatusCode::NOT_FOUND);
    assert_eq!(ask(Method::POST, "of-bank", TOKEN, Some("shop")).await, StatusCode::CONFLICT);
    assert_eq!(ask(Method::GET, "of-bank", TOKEN, Some("bank")).await, StatusCode::OK);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_1025_bytes_is_refused_and_one_of_1024_is_stored() {
    let site = TestSite::start().await;
    let answer = site.post(&"k".repeat(1025), "x").await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let error: Value = answer.json().await.expect("JSON");
    assert_eq!(error["error"]["code"], "KeyTooLongError");
    assert_eq!(site.post(&"k".repeat(1024), "x").await.status(), StatusCode::CREATED);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_of_one_key_one_wins_whole_and_all_versions_are_kept() {
    let site = TestSite::start().await;
    assert_eq!(site.post("contended", "first").await.status(), StatusCode::CREATED);
    let puts = (0..40_u64).map(|number| {
        let body = noise(1000 + number as usize, number + 1);
        let request = site.http.put(site.file_url("contended")).bearer_auth(TOKEN).body(body);
        async move { request.send().await.expect("an answer").status() }
    });
    let answers = futures::future::join_all(puts).await;
    assert!(answers.iter().all(|status| *status == StatusCode::OK), "{answers:?}");
    let read = site.get("contended").await.bytes().await.expect("a body");
    assert!((0..40_u64).any(|number| read == noise(1000 + number as usize, number + 1)));
    assert_eq!(site.count(b"v/").await, 40, "each replaced version once");
    site.stop().await;
}

/// Another site that takes every write, and has or lacks what is read.
struct Beside {
    has: AtomicBool,
}

#[async_trait]
impl PeerConfirmation for Beside {
    async fn confirmed(&self, _: Position, _: &[ExtentId], _: Option<Duration>) -> Option<u8> {
        Some(6)
    }

    async fn settled(&self, _: &Key, _: Position, _: &[ExtentId], _: Option<Duration>) -> bool {
        self.has.load(Ordering::SeqCst)
    }

    async fn all_settled(&self, heads: &[Key], _: Position, _: Option<Duration>) -> bool {
        heads.is_empty() || self.has.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failover_could_take_back_is_not_read_with_both_sites() {
    let beside = Arc::new(Beside { has: AtomicBool::new(true) });
    let authority = Arc::new(SingleSite { keeper: KeeperNumber(1) });
    let peer = Some(Arc::clone(&beside) as Arc<dyn PeerConfirmation>);
    let others = Others { peer, ..Others::default() };
    let site = TestSite::start_beside(Limits::default(), authority, others, |catalog| catalog).await;
    assert_eq!(site.post("here", "bytes").await.status(), StatusCode::CREATED);
    assert_eq!(site.get("here").await.status(), StatusCode::OK);
    beside.has.store(false, Ordering::SeqCst);
    // That there is none may be as new as an object.
    for id in ["here", "nowhere"] {
        let answer = site.get(id).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{id}");
        assert!(answer.headers().contains_key("retry-after"));
        let document: Value = answer.json().await.expect("JSON");
        assert_eq!(document["error"]["code"], "SlowDown");
    }
    let list = async || {
        let request = site.http.get(site.rest("/api/v1/files")).bearer_auth(TOKEN);
        request.send().await.expect("an answer").status()
    };
    assert_eq!(list().await, StatusCode::SERVICE_UNAVAILABLE, "it names what a failover could take back");
    beside.has.store(true, Ordering::SeqCst);
    assert_eq!(list().await, StatusCode::OK);
    site.stop().await;
}
