//! Retention: what nobody deletes or replaces until its time is over by all clocks, in S3 and in REST.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use diptych_catalog::{Around, Batch, Catalog, CatalogError, Change, Committed, Write};
use diptych_core::ids::KeeperNumber;
use diptych_core::keys;
use diptych_core::records::{Head, HeadBody, Kept, Record};
use diptych_core::retention::RetainUntil;
use diptych_gateway::Limits;
use diptych_gateway::authority::SingleSite;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::common::{TOKEN, TestSite};
use crate::multipart::{Client as Uploads, etag};
use crate::s3::Client;

const LATER: &str = "2124-05-06T07:08:09Z";
const LATEST: &str = "2125-05-06T07:08:09Z";
const LATER_MS: u64 = 4_870_652_889_000;
const LOCK: [(&str, &str); 2] =
    [("x-amz-object-lock-mode", "COMPLIANCE"), ("x-amz-object-lock-retain-until-date", LATER)];

async fn text(answer: Response) -> String {
    answer.text().await.expect("text")
}

fn header(answer: &Response, name: &str) -> Option<String> {
    Some(answer.headers().get(name)?.to_str().expect("text").to_owned())
}

/// The answer says who is refused, and until when.
async fn refused(answer: Response) {
    let status = answer.status();
    let said = text(answer).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
    assert!(said.contains("AccessDenied") && said.contains(LATER), "{said}");
}

async fn versioning(client: &Client<'_>, status: &str) {
    let body = format!(
        "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>{status}</Status></VersioningConfiguration>"
    );
    let answer = client.ask(Method::PUT, "", &[("versioning", "")], body).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

async fn retain(client: &Client<'_>, key: &str, until: &str) -> Response {
    let body = format!(
        "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>COMPLIANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
    );
    client.ask(Method::PUT, key, &[("retention", "")], body).await
}

/// The record of the only head.
async fn head(site: &TestSite) -> (keys::Key, Head) {
    let view = site.catalog.view().await.expect("a view");
    let (key, raw) = view.scan(&keys::prefix_range(b"h/"), 1).expect("it reads").entries.remove(0);
    (key, Head::decode(&raw).expect("a head"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_retained_is_neither_deleted_nor_replaced_by_s3_and_only_for_longer() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    assert_eq!(client.put_with("key", &LOCK, "kept").await.status(), StatusCode::OK);
    assert_eq!(client.put("other", "other").await.status(), StatusCode::OK);
    for method in [Method::GET, Method::HEAD] {
        let shown = client.ask(method, "key", &[], "").await;
        assert_eq!(header(&shown, "x-amz-object-lock-mode").as_deref(), Some("COMPLIANCE"));
        let until = header(&shown, "x-amz-object-lock-retain-until-date").expect("a date");
        assert!(until.starts_with("2124-05-06T07:08:09"), "{until}");
    }
    let refuses_all = async || {
        refused(client.put("key", "small").await).await;
        refused(client.put("key", vec![7; 3 << 20]).await).await;
        refused(client.copy("/bucket/other", "key").await).await;
        refused(client.delete("key").await).await;
        refused(client.ask(Method::DELETE, "key", &[("versionId", "null")], "").await).await;
        let several = client.delete_many(&[("key", None), ("other 2", None)]).await;
        assert!(several.contains("AccessDenied") && several.contains(LATER), "{several}");
        assert_eq!(text(client.get("key").await).await, "kept");
    };
    refuses_all().await;
    assert_eq!(site.count(b"v/").await, 0);

    // What is said of it may change, and the time may move away.
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    let tagged = client.ask(Method::PUT, "key", &[("tagging", "")], tags).await;
    assert_eq!(tagged.status(), StatusCode::OK);
    refuses_all().await;
    refused(retain(&client, "key", "2100-01-01T00:00:00Z").await).await;
    assert_eq!(retain(&client, "key", LATER).await.status(), StatusCode::OK, "the same again");
    assert_eq!(retain(&client, "key", LATEST).await.status(), StatusCode::OK);
    let shown = text(client.ask(Method::GET, "key", &[("retention", "")], "").await).await;
    assert!(shown.contains("<Mode>COMPLIANCE</Mode>") && shown.contains("2125-05-06T07:08:09"), "{shown}");

    let none = client.ask(Method::GET, "other", &[("retention", "")], "").await;
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
    assert!(text(none).await.contains("NoSuchObjectLockConfiguration"));
    assert_eq!(retain(&client, "other", "2020-01-01T00:00:00Z").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(retain(&client, "other", LATER).await.status(), StatusCode::OK);
    refused(client.delete("other").await).await;
    let bucket = client.ask(Method::DELETE, "", &[], "").await;
    assert_eq!(bucket.status(), StatusCode::CONFLICT);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_versions_a_retained_one_is_covered_and_stays() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    versioning(&client, "Suspended").await;
    assert_eq!(client.put_with("key", &LOCK, "kept").await.status(), StatusCode::OK);
    refused(client.put("key", "takes its place").await).await;
    refused(client.delete("key").await).await;
    versioning(&client, "Enabled").await;
    let second = client.put_with("key", &LOCK, "kept, too").await;
    assert_eq!(second.status(), StatusCode::OK);
    let second = header(&second, "x-amz-version-id").expect("an id");
    let marker = client.delete("key").await;
    assert_eq!(marker.status(), StatusCode::NO_CONTENT, "a marker takes nothing away");
    let marker = header(&marker, "x-amz-version-id").expect("an id");
    for id in ["null", &second] {
        refused(client.ask(Method::DELETE, "key", &[("versionId", id)], "").await).await;
    }
    let several = client.delete_many(&[("key", Some(second.as_str())), ("key", Some(marker.as_str()))]).await;
    assert!(several.contains("AccessDenied"), "{several}");
    assert_eq!(text(client.get("key").await).await, "kept, too", "the marker is gone, and nothing else");
    // One without an id would take the place of that which lies below.
    versioning(&client, "Suspended").await;
    refused(client.put("key", "takes its place").await).await;
    let null = client.ask(Method::GET, "key", &[("versionId", "null")], "").await;
    assert_eq!(text(null).await, "kept");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_parts_is_retained_from_its_completion_on() {
    let site = TestSite::start().await;
    let client = Uploads::new(&site).await;
    let upload = client.begin(&LOCK).await.expect("an upload");
    let part = client.part(&upload, 1, &[], b"bytes".to_vec()).await;
    client.complete(&upload, &[], &[(etag(&part), String::new())]).await.expect("it is complete");
    assert_eq!(client.header("x-amz-object-lock-mode").await.as_deref(), Some("COMPLIANCE"));
    // Another one can't take its place, and is not lost by trying.
    let upload = client.begin(&[]).await.expect("an upload");
    let part = client.part(&upload, 1, &[], b"other".to_vec()).await;
    for _ in 0..2 {
        let refused = client.complete(&upload, &[], &[(etag(&part), String::new())]).await;
        assert_eq!(refused.expect_err("it is refused"), "AccessDenied");
    }
    assert_eq!(head(&site).await.1.retained_until, Some(RetainUntil(LATER_MS)));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_retains_refuses_and_says_until_when() {
    let site = TestSite::start().await;
    let ask = async |method: Method, retain: Option<&str>, body: Value| {
        let mut request = site.http.request(method, site.file_url("file")).bearer_auth(TOKEN);
        if let Some(until) = retain {
            request = request.header("x-diptych-retain-until", until);
        }
        let answer = request.body(body.to_string()).send().await.expect("an answer");
        let status = answer.status();
        (status, serde_json::from_slice::<Value>(&answer.bytes().await.expect("a body")).unwrap_or_default())
    };
    assert_eq!(site.post("file", "first").await.status(), StatusCode::CREATED);
    for nonsense in ["tomorrow", "2020-01-01T00:00:00Z"] {
        assert_eq!(ask(Method::PUT, Some(nonsense), json!(1)).await.0, StatusCode::BAD_REQUEST);
    }
    let (status, stored) = ask(Method::PUT, Some(LATER), json!("kept")).await;
    assert_eq!((status, &stored["retained_until"]), (StatusCode::OK, &json!(LATER)));
    let shown = site.get("file").await;
    assert_eq!(header(&shown, "x-diptych-retain-until").as_deref(), Some(LATER));
    for method in [Method::PUT, Method::DELETE] {
        let (status, said) = ask(method, None, json!("more")).await;
        assert_eq!((status, &said["error"]["code"]), (StatusCode::FORBIDDEN, &json!("AccessDenied")));
        assert_eq!(said["error"]["retained_until"], LATER);
    }
    let (status, said) = ask(Method::PATCH, None, json!({"retain_until": LATEST})).await;
    assert_eq!((status, &said["retained_until"]), (StatusCode::OK, &json!(LATEST)));
    assert_eq!(ask(Method::PATCH, None, json!({"retain_until": LATER})).await.0, StatusCode::FORBIDDEN);
    assert_eq!(ask(Method::PATCH, None, json!({"until": LATER})).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(text(site.get("file").await).await, "\"kept\"");
    site.stop().await;
}

/// Says in the keeper's status what time it is.
async fn keeper_says(site: &TestSite, seen_ms: u64) {
    let status = json!({"seen_ms": seen_ms}).to_string();
    site.put_keys(vec![(keys::site_status(&site.site), status.into())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_is_over_when_the_keepers_clock_says_so_too() {
    let site = TestSite::start().await;
    let client = Client::with_bucket(&site, "bucket").await;
    assert_eq!(client.put_with("key", &LOCK, "kept").await.status(), StatusCode::OK);
    // As if this gateway's clock were years ahead.
    let (key, found) = head(&site).await;
    let until = RetainUntil(1_000_000_000_000);
    let over = Head { retained_until: Some(until), ..found };
    site.put_keys(vec![(key, over.encode().into())]).await;
    assert_eq!(client.delete("key").await.status(), StatusCode::FORBIDDEN, "the keeper has said nothing");
    keeper_says(&site, until.0 - 1).await;
    assert_eq!(client.delete("key").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(text(client.get("key").await).await, "kept");
    keeper_says(&site, until.0).await;
    assert_eq!(client.put("key", "next").await.status(), StatusCode::OK);
    assert_eq!(client.delete("key").await.status(), StatusCode::NO_CONTENT);
    site.stop().await;
}

/// Another gateway, that is faster once: as this one's delete of a head comes, it has that head retained.
struct Faster {
    inner: Arc<dyn Catalog>,
    left: Semaphore,
}

impl Faster {
    async fn retain_first(&self, key: &keys::Key) {
        let view = self.inner.view().await.expect("a view");
        let Some(raw) = view.get(key).expect("it reads") else { return };
        drop(view);
        let head = Head::decode(&raw).expect("a head");
        let retained = Head { retained_until: Some(RetainUntil(LATER_MS)), ..head };
        let write = Write::Put(key.clone(), Bytes::from(retained.encode()));
        self.inner.commit(Batch::one(None, Change::blind(vec![write]))).await.expect("it commits");
    }
}

#[async_trait]
impl Around for Faster {
    fn inner(&self) -> &Arc<dyn Catalog> {
        &self.inner
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, CatalogError> {
        let deleted = batch.changes.iter().flat_map(|change| &change.writes).find_map(|write| match write {
            Write::Put(key, value) if key.0.starts_with(b"h/") => {
                let head = Head::decode(value).expect("a head");
                (head.body == HeadBody::Tombstone).then(|| key.clone())
            }
            _ => None,
        });
        if let Some(key) = deleted
            && let Ok(once) = self.left.try_acquire()
        {
            once.forget();
            self.retain_first(&key).await;
        }
        self.inner.commit(batch).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_gateways_the_one_that_deletes_loses_against_the_one_that_retained_first() {
    let single = Arc::new(SingleSite { keeper: KeeperNumber(1) });
    for by_id in [false, true] {
        let wrap = |inner| Arc::new(Faster { inner, left: Semaphore::new(1) }) as Arc<dyn Catalog>;
        let site = TestSite::start_on(Limits::default(), single.clone(), wrap).await;
        let client = Client::with_bucket(&site, "bucket").await;
        if by_id {
            versioning(&client, "Suspended").await;
        }
        assert_eq!(client.put("key", "kept").await.status(), StatusCode::OK);
        let named: &[(&str, &str)] = if by_id { &[("versionId", "null")] } else { &[] };
        refused(client.ask(Method::DELETE, "key", named, "").await).await;
        assert_eq!(text(client.get("key").await).await, "kept");
        assert_eq!((site.count(b"v/").await, site.count(b"g/").await), (0, 0), "no byte of it is dead");
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_version_that_is_retained_is_restored_or_waits_and_never_discarded() {
    let site = TestSite::start().await;
    assert_eq!(site.post("file", "head").await.status(), StatusCode::CREATED);
    let (key, found) = head(&site).await;
    let (bucket, object) = keys::object_of_head(&key).expect("a head");
    let kept = Head { retained_until: Some(RetainUntil(LATER_MS)), kept: Kept::No, ..found };
    let conflict = keys::conflict(bucket, &object, kept.at.version);
    site.delete_all(b"h/").await;
    site.put_keys(vec![(conflict, kept.encode().into())]).await;
    let url = site.rest(&format!("/api/v1/conflicts/{}?id=file", kept.at.version));
    let discarded = site.http.delete(&url).bearer_auth(TOKEN).send().await.expect("an answer");
    refused(discarded).await;
    assert_eq!((site.count(b"c/").await, site.count(b"y/").await), (1, 0), "nothing was decided");
    let restored = site.http.post(&url).bearer_auth(TOKEN).send().await.expect("an answer");
    assert_eq!(restored.status(), StatusCode::NO_CONTENT);
    let delete = site.http.delete(site.file_url("file")).bearer_auth(TOKEN).send().await;
    refused(delete.expect("an answer")).await;
    site.stop().await;
}
