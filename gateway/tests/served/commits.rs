//! What is acknowledged, and what is not: the right to write lapses, the catalog's answer gets lost.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{TOKEN, TestSite, eventually, noise};
use async_trait::async_trait;
use bytes::Bytes;
use diptych_catalog::{Around, Batch, Catalog, CatalogError, Change, Committed, Write};
use diptych_core::ids::{Epoch, Hlc, KeeperNumber, VersionId};
use diptych_core::keys;
use diptych_core::lease::{BootTime, SubLease};
use diptych_core::records::{CodingPlan, Extent, ExtentState, Head, HeadBody, Record, VersionRef};
use diptych_gateway::Limits;
use diptych_gateway::authority::{Authority, Role, SingleSite};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

/// Lends a sub-lease for a number of looks.
struct ForLooks(AtomicI64);

impl Authority for ForLooks {
    fn sub_lease(&self) -> Option<SubLease> {
        let left = self.0.fetch_sub(1, Ordering::SeqCst) > 0;
        left.then_some(SubLease { epoch: Epoch(1), keeper: KeeperNumber(1), until: BootTime::NEVER })
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    fn role(&self) -> Role {
        Role::Passive
    }
}

async fn code(answer: reqwest::Response) -> (StatusCode, String) {
    let status = answer.status();
    let document: Value = answer.json().await.expect("JSON");
    (status, document["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sub_lease_nothing_is_written_and_clients_are_told_to_come_again() {
    let site =
        TestSite::start_on(Limits::default(), Arc::new(ForLooks(AtomicI64::new(0))), |catalog| catalog).await;
    let answer = site.post("file", "x").await;
    assert_eq!(answer.headers()["retry-after"], "1");
    assert_eq!(code(answer).await, (StatusCode::SERVICE_UNAVAILABLE, "SlowDown".to_owned()));
    let lease = site.http.get(site.rest("/lease")).send().await.expect("an answer");
    assert_eq!(lease.status(), StatusCode::SERVICE_UNAVAILABLE);
    let document: Value = lease.json().await.expect("JSON");
    assert_eq!(document["role"], "passive");
    assert_eq!(site.count(b"h/").await, 0);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_lapses_between_commit_and_answer_is_an_unknown_outcome() {
    // Counts down with each look, whoever looks: the last ones of some attempt fall between its commit and its answer.
    let looks = Arc::new(ForLooks(AtomicI64::new(i64::MAX)));
    let site = TestSite::start_on(Limits::default(), looks.clone(), |catalog| catalog).await;
    assert_eq!(site.post("first", "x").await.status(), StatusCode::CREATED);
    let mut unknown = 0;
    for left in 1..12 {
        let id = format!("file {left}");
        looks.0.store(left, Ordering::SeqCst);
        let (status, code) = code(site.post(&id, "x").await).await;
        looks.0.store(i64::MAX, Ordering::SeqCst);
        let there = site.get(&id).await.status() == StatusCode::OK;
        match code.as_str() {
            "SlowDown" => assert!(!there, "refused before the commit: nothing is there"),
            "OutcomeUnknown" => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                assert!(there, "it was committed, and only not acknowledged");
                unknown += 1;
            }
            other => assert_eq!((status, other), (StatusCode::CREATED, "")),
        }
    }
    assert!(unknown > 0, "no attempt lapsed between commit and answer");
    site.stop().await;
}

/// What happens to commits of heads.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    /// Done, but the answer gets lost.
    DoneUnanswered,
    /// Done, the answer gets lost, and another writer replaces the head at once.
    DoneAndReplaced,
    /// Not done, and the answer gets lost.
    Lost,
}

struct Unreliable {
    inner: Arc<dyn Catalog>,
    fate: Arc<Mutex<Fate>>,
    commits: Arc<AtomicUsize>,
}

impl Unreliable {
    async fn replace_head(&self, head_key: &keys::Key) {
        let view = self.inner.view().await.expect("a view");
        let raw = view.get(head_key).expect("it reads").expect("it was done");
        drop(view);
        let head = Head::decode(&raw).expect("a head");
        let (bucket, object) = keys::object_of_head(head_key).expect("a head's key");
        let at = VersionRef { epoch: Epoch(1), hlc: Hlc(head.at.hlc.0 + 1), version: VersionId([9; 16]) };
        let next = Head::new(at, Some(head.at), HeadBody::Tombstone);
        let older = keys::older_version(bucket, &object, head.at.epoch, head.at.hlc);
        let writes = vec![Write::Put(head_key.clone(), Bytes::from(next.encode())), Write::Put(older, raw)];
        self.inner.commit(Batch::one(None, Change::blind(writes))).await.expect("it commits");
    }
}

#[async_trait]
impl Around for Unreliable {
    fn inner(&self) -> &Arc<dyn Catalog> {
        &self.inner
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, CatalogError> {
        let writes = batch.changes.iter().flat_map(|change| &change.writes);
        let head = writes.map(Write::key).find(|key| key.0.starts_with(b"h/")).cloned();
        let Some(head) = head else { return self.inner.commit(batch).await };
        self.commits.fetch_add(1, Ordering::SeqCst);
        let fate = std::mem::replace(&mut *self.fate.lock().expect("not poisoned"), Fate::Answered);
        match fate {
            Fate::Answered => return self.inner.commit(batch).await,
            Fate::Lost => {}
            Fate::DoneUnanswered => drop(self.inner.commit(batch).await?),
            Fate::DoneAndReplaced => {
                self.inner.commit(batch).await?;
                self.replace_head(&head).await;
            }
        }
        Err(CatalogError::Unclear { reason: "the test lost the answer".to_owned() })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_catalog_that_gets_lost_is_resolved_by_reading() {
    let (fate, commits) = (Arc::new(Mutex::new(Fate::Answered)), Arc::new(AtomicUsize::new(0)));
    let (given_fate, given_commits) = (fate.clone(), commits.clone());
    let wrap =
        |inner| Arc::new(Unreliable { inner, fate: given_fate, commits: given_commits }) as Arc<dyn Catalog>;
    let single = Arc::new(SingleSite { keeper: KeeperNumber(1) });
    let site = TestSite::start_on(Limits::default(), single, wrap).await;
    assert_eq!(site.post("first", "x").await.status(), StatusCode::CREATED);
    let cases = [(Fate::DoneUnanswered, 1), (Fate::Lost, 2), (Fate::DoneAndReplaced, 1)];
    for (case, expected) in cases {
        for size in [100, 2 << 20] {
            let id = format!("{case:?} {size}");
            let plain = noise(size, 4);
            let before = commits.load(Ordering::SeqCst);
            *fate.lock().expect("not poisoned") = case;
            let answer = site.post(&id, plain.clone()).await;
            assert_eq!(answer.status(), StatusCode::CREATED, "{id}: {}", answer.text().await.expect("text"));
            assert_eq!(commits.load(Ordering::SeqCst) - before, expected, "{id}: commits of its head");
            let read = site.get(&id).await;
            match case {
                // The other writer's delete stays: what it replaced is not brought back.
                Fate::DoneAndReplaced => assert_eq!(read.status(), StatusCode::NOT_FOUND),
                Fate::Answered | Fate::DoneUnanswered | Fate::Lost => {
                    assert!(read.bytes().await.expect("a body") == plain, "{id} differs");
                }
            }
        }
    }
    site.stop().await;
}

/// An upload whose body comes as it is sent to the channel; it ends when the channel is dropped.
fn slow_post(
    site: &TestSite,
    id: &str,
) -> (Sender<Result<Bytes, std::io::Error>>, JoinHandle<reqwest::Result<reqwest::Response>>) {
    let (pieces, stream) = tokio::sync::mpsc::channel(1);
    let stream = futures::stream::unfold(stream, |mut stream| async move {
        let piece = stream.recv().await?;
        Some((piece, stream))
    });
    let request = site.http.post(site.rest(&format!("/api/v1/files?id={id}"))).bearer_auth(TOKEN);
    (pieces, tokio::spawn(request.body(reqwest::Body::wrap_stream(stream)).send()))
}

/// k of each extent that the catalog knows.
async fn needed(site: &TestSite) -> Vec<u8> {
    let view = site.catalog.view().await.expect("a view");
    let all = view.scan(&keys::extents(), 1_000).expect("it reads").entries;
    all.iter().map(|(_, raw)| Extent::decode(raw).expect("it reads").needed).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_keeps_the_coding_that_it_began_with() {
    let site = TestSite::start().await;
    let body = noise(3 << 20, 1);
    let (pieces, upload) = slow_post(&site, "long");
    let (first, rest) = body.split_at(2 << 20);
    pieces.send(Ok(Bytes::copy_from_slice(first))).await.expect("it is read");
    let read = || site.gateway().context().metrics().bytes_in.get();
    eventually("its first chunk is read", async || read() >= 1 << 20).await;
    let plan = CodingPlan { needed: 2, rows: vec![(site.site.clone(), 4)] };
    site.put_keys(vec![(keys::plan(2), plan.encode().into())]).await;
    site.gateway().context().refresh_now().await.expect("it reads");
    pieces.send(Ok(Bytes::copy_from_slice(rest))).await.expect("it is read");
    drop(pieces);
    let answer = upload.await.expect("it ends").expect("an answer");
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(needed(&site).await, [4]);
    assert!(site.get("long").await.bytes().await.expect("a body") == body, "what was stored comes back");

    assert_eq!(site.post("next", "by the next coding").await.status(), StatusCode::CREATED);
    let mut needed = needed(&site).await;
    needed.sort_unstable();
    assert_eq!(needed, [2, 4]);
    assert_eq!(site.get("next").await.text().await.expect("a body"), "by the next coding");
    site.stop().await;
}

/// By state: how many extents the catalog knows.
async fn extents(site: &TestSite) -> (usize, usize) {
    let view = site.catalog.view().await.expect("a view");
    let all = view.scan(&keys::extents(), 1_000).expect("it reads").entries;
    let states: Vec<ExtentState> =
        all.iter().map(|(_, raw)| Extent::decode(raw).expect("it reads").state).collect();
    let condemned = states.iter().filter(|state| **state == ExtentState::Condemned).count();
    (states.len() - condemned, condemned)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_streamed_body_left_is_condemned_before_its_client_is_refused() {
    let limits = Limits { extent_open: Duration::ZERO, ..Limits::default() };
    let site = TestSite::start_with(limits).await;
    let body = noise(3 << 20, 1);
    let request = site.http.post(site.rest("/api/v1/files?id=sum")).bearer_auth(TOKEN);
    let wrong = request.header("content-md5", "XUFAKrxLKna5cZ2REBfFkg==").body(body.clone());
    let answer = wrong.send().await.expect("an answer");
    assert_eq!(code(answer).await, (StatusCode::BAD_REQUEST, "BadDigest".to_owned()));
    let (live, of_sum) = extents(&site).await;
    assert!(live == 0 && of_sum >= 3, "{live} live, {of_sum} condemned");

    let (pieces, late) = slow_post(&site, "same");
    for piece in body.chunks(256 << 10) {
        pieces.send(Ok(Bytes::copy_from_slice(piece))).await.expect("it is read");
    }
    eventually("its first extents are entered", async || extents(&site).await.0 > 0).await;
    assert_eq!(site.post("same", "first").await.status(), StatusCode::CREATED);
    drop(pieces);
    let answer = late.await.expect("it ends").expect("an answer");
    assert_eq!(code(answer).await, (StatusCode::CONFLICT, "AlreadyExists".to_owned()));
    let (live, condemned) = extents(&site).await;
    assert!(live == 1 && condemned >= of_sum + 3, "{live} live, {condemned} condemned");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extent_that_is_too_old_is_not_entered() {
    let limits = Limits { enter_within: Duration::ZERO, ..Limits::default() };
    let site = TestSite::start_with(limits).await;
    for (id, body) in [("small", noise(10, 1)), ("streamed", noise(1 << 20, 2))] {
        let answer = site.post(id, body).await;
        assert_eq!(code(answer).await, (StatusCode::SERVICE_UNAVAILABLE, "SlowDown".to_owned()), "{id}");
    }
    assert_eq!((site.count(b"x/").await, site.count(b"h/").await), (0, 0));
    site.stop().await;
}
