//! What a writer is promised by its bucket, and told in its receipt, where both sites acknowledge.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{Others, TOKEN, TestSite, eventually, noise};
use crate::multipart::{Client, KEY, MIB, SIGNED_FOR, etag, header};
use async_trait::async_trait;
use bytes::Bytes;
use diptych_core::ids::{Epoch, ExtentId, KeeperNumber};
use diptych_core::keys::Key;
use diptych_core::lease::{BootTime, SubLease};
use diptych_core::records::Position;
use diptych_gateway::authority::{Authority, Role, SingleSite};
use diptych_gateway::objects::{BucketDocument, LedgerPage};
use diptych_gateway::{Limits, PeerConfirmation};
use reqwest::{Method, Response, StatusCode};
use rusty_s3::S3Action;
use serde_json::{Value, json};
use tokio::sync::watch;

const RECEIPT: &str = "x-diptych-receipt";
const ONE_SITE: &str = "epoch=1; east=6/6; west=0/6; exposed=yes";
const DOWNGRADED: &str = "epoch=1; east=6/6; west=0/6; exposed=yes; downgraded=yes";

/// Another site that has five of six rows, or is away and confirms nothing.
#[derive(Default)]
struct West {
    is_away: AtomicBool,
    /// Times that were waited for it; None: as long as the cluster declares.
    waited: Mutex<Vec<Option<Duration>>>,
    /// It answers when this says so.
    held: Option<watch::Receiver<bool>>,
    /// The right to acknowledge, which runs out while it is waited.
    right: Option<Arc<AtomicBool>>,
}

#[async_trait]
impl PeerConfirmation for West {
    async fn confirmed(&self, _: Position, _: &[ExtentId], within: Option<Duration>) -> Option<u8> {
        self.waited.lock().expect("no panic").push(within);
        if let Some(mut held) = self.held.clone() {
            held.wait_for(|held| !held).await.expect("the test goes on");
        }
        if let Some(right) = &self.right {
            right.store(false, Ordering::SeqCst);
        }
        (!self.is_away.load(Ordering::SeqCst)).then_some(5)
    }

    async fn settled(&self, _: &Key, _: Position, _: &[ExtentId], _: Option<Duration>) -> bool {
        !self.is_away.load(Ordering::SeqCst)
    }

    async fn all_settled(&self, heads: &[Key], _: Position, _: Option<Duration>) -> bool {
        heads.is_empty() || !self.is_away.load(Ordering::SeqCst)
    }
}

/// East, with bucket `files`, and what it hears of west.
struct Promising {
    site: TestSite,
    west: Arc<West>,
}

impl Promising {
    async fn start() -> Self {
        Self::start_with(West::default(), Arc::new(SingleSite { keeper: KeeperNumber(1) })).await
    }

    async fn start_with(west: West, authority: Arc<dyn Authority>) -> Self {
        let west = Arc::new(west);
        let peer = Some(Arc::clone(&west) as Arc<dyn PeerConfirmation>);
        let others = Others { peer, ..Others::default() };
        let site = TestSite::start_beside(Limits::default(), authority, others, |catalog| catalog).await;
        site.plan_for_two_sites().await;
        Self { site, west }
    }

    fn away(&self, is_away: bool) {
        self.west.is_away.store(is_away, Ordering::SeqCst);
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Response {
        let request = self.site.http.request(method, self.site.rest(path)).bearer_auth(TOKEN);
        request.json(&body).send().await.expect("an answer")
    }

    async fn set(&self, bucket: &str, change: Value) -> BucketDocument {
        let answer = self.ask(Method::PATCH, &format!("/api/v1/buckets/{bucket}"), change).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.expect("a bucket")
    }

    /// Kind, key and end of the entries of the ledger.
    async fn ledger(&self) -> Vec<(String, String, Option<String>)> {
        let page = self.ask(Method::GET, "/api/v1/ledger", Value::Null).await;
        let page: LedgerPage = page.json().await.expect("a page");
        page.entries.into_iter().map(|entry| (entry.kind, entry.id, entry.settled)).collect()
    }
}

async fn code(answer: Response) -> (StatusCode, String) {
    let status = answer.status();
    let document: Value = answer.json().await.expect("JSON");
    (status, document["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn downgraded(key: &str) -> (String, String, Option<String>) {
    ("Downgraded".to_owned(), key.to_owned(), None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_the_other_site_does_not_confirm_is_refused_or_downgraded_as_its_bucket_says() {
    let east = Promising::start().await;
    assert_eq!(
        header(&east.site.post("first", "x").await, RECEIPT).as_deref(),
        Some("epoch=1; east=6/6; west=5/6; exposed=no")
    );
    east.away(true);
    let unknown = (StatusCode::SERVICE_UNAVAILABLE, "OutcomeUnknown".to_owned());
    assert_eq!(code(east.site.post("refused", "x").await).await, unknown);
    assert_eq!(east.ledger().await, [], "nothing was acknowledged");

    let set = east.set("files", json!({"acknowledge_timeout_ms": 150, "on_timeout": "Downgrade"})).await;
    assert_eq!(
        (set.acknowledge_timeout_ms, serde_json::to_value(set.on_timeout).expect("JSON")),
        (Some(150), json!("Downgrade"))
    );
    for (key, bytes) in [("small", noise(1000, 1)), ("large", noise(3 * MIB, 2))] {
        let answer = east.site.post(key, bytes.clone()).await;
        assert_eq!(
            (answer.status(), header(&answer, RECEIPT).as_deref()),
            (StatusCode::CREATED, Some(DOWNGRADED))
        );
        let document: Value = answer.json().await.expect("JSON");
        assert_eq!(
            (&document["receipt"]["exposed"], &document["receipt"]["downgraded"]),
            (&json!(true), &json!(true))
        );
        assert!(
            east.site.get(key).await.bytes().await.expect("a body") == bytes,
            "what was acknowledged is read"
        );
    }
    let waited = east.west.waited.lock().expect("no panic").clone();
    assert_eq!(waited, [None, None, Some(Duration::from_millis(150)), Some(Duration::from_millis(150))]);
    let gone = east
        .site
        .http
        .delete(east.site.file_url("small"))
        .bearer_auth(TOKEN)
        .send()
        .await
        .expect("an answer");
    assert_eq!(header(&gone, RECEIPT).as_deref(), Some("epoch=1; exposed=yes; downgraded=yes"));
    let mut ledger = east.ledger().await;
    ledger.sort();
    assert_eq!(ledger, [downgraded("large"), downgraded("small"), downgraded("small")]);

    east.away(false);
    assert_eq!(
        header(&east.site.post("whole", "x").await, RECEIPT).as_deref(),
        Some("epoch=1; east=6/6; west=5/6; exposed=no")
    );
    assert_eq!(east.ledger().await.len(), 3, "what both sites have is not in it");
    east.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_objects_of_one_moment_are_each_answered_as_their_own_bucket_says() {
    let east = Promising::start().await;
    let client = Client::new(&east.site).await;
    assert_eq!(east.site.post("first", "x").await.status(), StatusCode::CREATED);
    east.set("bucket", json!({"on_timeout": "Downgrade"})).await;
    east.away(true);
    let writes = (0..40).map(|number| {
        let bucket = if number % 2 == 0 { "bucket" } else { "files" };
        let url = east.site.rest(&format!("/api/v1/files?id={number}&bucket={bucket}"));
        let request = east.site.http.post(url).bearer_auth(TOKEN).body("x");
        async move { (bucket, request.send().await.expect("an answer")) }
    });
    for (bucket, answer) in futures::future::join_all(writes).await {
        let receipt = header(&answer, RECEIPT);
        let expected = match bucket {
            "bucket" => (StatusCode::CREATED, Some(DOWNGRADED)),
            _ => (StatusCode::SERVICE_UNAVAILABLE, None),
        };
        let status = answer.status();
        let said = answer.text().await.expect("text");
        assert_eq!((status, receipt.as_deref()), expected, "{bucket}: {said}");
    }
    assert_eq!(east.ledger().await.len(), 20, "one entry for each that was acknowledged");
    drop(client);
    east.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_copies_and_completed_uploads_have_receipts_too() {
    let east = Promising::start().await;
    let client = Client::new(&east.site).await;
    east.set("bucket", json!({"on_timeout": "Downgrade"})).await;
    for (is_away, whole) in [(false, "epoch=1; east=6/6; west=5/6; exposed=no"), (true, DOWNGRADED)] {
        east.away(is_away);
        let upload = client.begin(&[]).await.expect("an upload");
        let part = client.part(&upload, 1, &[], noise(MIB, 3)).await;
        assert_eq!(
            header(&part, RECEIPT).as_deref(),
            Some(ONE_SITE),
            "the other site is waited for with the whole"
        );
        let parts = etag(&part);
        let parts = [parts.trim_matches('"')].into_iter();
        let url = client.bucket.complete_multipart_upload(Some(&client.credentials), KEY, &upload, parts);
        let body = url.clone().body();
        let done = client.send(Method::POST, url.sign(SIGNED_FOR), &[], body.into()).await;
        assert_eq!((done.status(), header(&done, RECEIPT).as_deref()), (StatusCode::OK, Some(whole)));

        let source: (&'static str, &str) = ("x-amz-copy-source", "/bucket/key");
        let copy = client.bucket.put_object(Some(&client.credentials), "copy").sign(SIGNED_FOR);
        let copied = client.send(Method::PUT, copy, &[source], Bytes::new()).await;
        assert_eq!((copied.status(), header(&copied, RECEIPT).as_deref()), (StatusCode::OK, Some(whole)));

        let upload = client.begin(&[]).await.expect("an upload");
        let part = client.bucket.upload_part(Some(&client.credentials), KEY, 1, &upload).sign(SIGNED_FOR);
        let part = client.send(Method::PUT, part, &[source], Bytes::new()).await;
        assert_eq!((part.status(), header(&part, RECEIPT).as_deref()), (StatusCode::OK, Some(ONE_SITE)));

        let gone = client.bucket.delete_object(Some(&client.credentials), "copy").sign(SIGNED_FOR);
        let gone = client.send(Method::DELETE, gone, &[], Bytes::new()).await;
        let expected = if is_away { "epoch=1; exposed=yes; downgraded=yes" } else { "epoch=1; exposed=no" };
        assert_eq!(header(&gone, RECEIPT).as_deref(), Some(expected));
    }
    east.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_small_objects_at_one_moment_than_one_change_has_guards_for_are_all_stored() {
    let (hold, held) = watch::channel(true);
    let west = West { held: Some(held), ..West::default() };
    let east = Promising::start_with(west, Arc::new(SingleSite { keeper: KeeperNumber(1) })).await;
    let posts = futures::future::join_all((0..60).map(|number| {
        let site = &east.site;
        async move { site.post(&number.to_string(), "x").await.status() }
    }));
    let all_are_committed = async {
        eventually("all are committed", async || east.site.count(b"h/").await == 60).await;
        hold.send_replace(false);
    };
    let (statuses, ()) = tokio::join!(posts, all_are_committed);
    assert!(statuses.iter().all(|status| *status == StatusCode::CREATED), "{statuses:?}");
    east.site.stop().await;
}

/// Lends a sub-lease while the right stands.
struct Lent(Arc<AtomicBool>);

impl Authority for Lent {
    fn sub_lease(&self) -> Option<SubLease> {
        let stands = self.0.load(Ordering::SeqCst);
        stands.then_some(SubLease { epoch: Epoch(1), keeper: KeeperNumber(1), until: BootTime::NEVER })
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    fn role(&self) -> Role {
        Role::Active
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_whose_time_ran_out_while_it_waited_downgrades_nothing() {
    let right = Arc::new(AtomicBool::new(true));
    let west = West { is_away: true.into(), right: Some(Arc::clone(&right)), ..West::default() };
    let east = Promising::start_with(west, Arc::new(Lent(Arc::clone(&right)))).await;
    let unknown = (StatusCode::SERVICE_UNAVAILABLE, "OutcomeUnknown".to_owned());
    assert_eq!(code(east.site.post("first", "x").await).await, unknown);
    right.store(true, Ordering::SeqCst);
    east.set("files", json!({"on_timeout": "Downgrade"})).await;
    for bytes in [noise(1000, 1), noise(3 * MIB, 2)] {
        right.store(true, Ordering::SeqCst);
        assert_eq!(code(east.site.post(&bytes.len().to_string(), bytes).await).await, unknown);
    }
    east.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_cannot_be_kept_is_refused_in_words_and_what_is_left_out_stays() {
    let east = Promising::start().await;
    assert_eq!(east.site.post("first", "x").await.status(), StatusCode::CREATED);
    east.set("files", json!({"acknowledge_timeout_ms": 60_000})).await;
    let set = east.set("files", json!({"on_timeout": "Downgrade"})).await;
    assert_eq!(set.acknowledge_timeout_ms, Some(60_000));
    let path = "/api/v1/buckets/files";
    for (bad, word) in [
        (json!({"acknowledge_timeout_ms": 99}), "100 to 60000 are allowed"),
        (json!({"acknowledge_timeout_ms": 1_u64 << 40}), "100 to 60000 are allowed"),
        (json!({"acknowledge_timeout_ms": "2s"}), "invalid type"),
        (json!({"on_timeout": "Shrug"}), "`Refuse` or `Downgrade`"),
        (json!({"on_time_out": "Refuse"}), "unknown field"),
        (json!("k".repeat(5 << 10)), "length limit"),
    ] {
        let answer = east.ask(Method::PATCH, path, bad.clone()).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{bad}");
        let error: Value = answer.json().await.expect("JSON");
        let message = error["error"]["message"].as_str().expect("text");
        assert!(message.contains(word), "{bad}: {message}");
    }
    let missing = east.ask(Method::PATCH, "/api/v1/buckets/nothing", json!({})).await;
    assert_eq!(code(missing).await, (StatusCode::NOT_FOUND, "NoSuchBucket".to_owned()));
    let shown: BucketDocument =
        east.ask(Method::GET, path, Value::Null).await.json().await.expect("a bucket");
    assert_eq!(shown, set);
    let reset = east.set("files", json!({"acknowledge_timeout_ms": null})).await;
    assert_eq!((reset.acknowledge_timeout_ms, reset.on_timeout), (None, set.on_timeout));
    let list: Value = east.ask(Method::GET, "/api/v1/buckets", Value::Null).await.json().await.expect("JSON");
    assert_eq!(list["buckets"], json!([reset]));
    east.site.stop().await;
}
