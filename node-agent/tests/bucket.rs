//! An agent whose device is in a bucket, against a store that speaks S3 by HTTP, lists two objects a page, and can be away.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use diptych_core::ids::DeviceId;
use diptych_node_agent::bucket::BucketStore;
use diptych_node_agent::{AgentOptions, DeviceOption, RunningAgent, StartError, start};
use diptych_wire::agent::{AgentError, DeviceState};
use diptych_wire::client::{AgentClient, ClientOptions, Endpoint};
use diptych_wire::identity::Role;
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH, RANGE};
use http::{HeaderMap, Method, StatusCode};
use support::{Site, at, content, credentials, extent_id, facts, place, rows_of, stamp, until, whole};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct FakeStore {
    objects: Mutex<BTreeMap<String, Bytes>>,
    away: AtomicBool,
}

fn document(status: StatusCode, code: &str) -> Response {
    (status, format!("<Error><Code>{code}</Code></Error>")).into_response()
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", blake3::hash(bytes).to_hex())
}

impl FakeStore {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.objects.lock().expect("nobody panicked")
    }

    fn put(&self, key: &str, headers: &HeaderMap, body: Bytes) -> Response {
        let mut objects = self.objects();
        let known = objects.get(key).map(|bytes| etag(bytes));
        let wanted = headers.get(IF_MATCH).map(|value| value.to_str().expect("text").to_owned());
        let taken = headers.contains_key(IF_NONE_MATCH) && known.is_some();
        if taken || (wanted.is_some() && wanted != known) {
            return document(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let written = [(ETAG, etag(&body))];
        objects.insert(key.to_owned(), body);
        written.into_response()
    }

    fn get(&self, key: &str, headers: &HeaderMap) -> Response {
        let Some(bytes) = self.objects().get(key).cloned() else {
            return document(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let tag = [(ETAG, etag(&bytes))];
        let Some(range) = headers.get(RANGE) else { return (tag, bytes).into_response() };
        let range = range.to_str().expect("text").strip_prefix("bytes=").expect("of bytes");
        let (first, last) = range.split_once('-').expect("a range");
        let (first, last): (usize, usize) =
            (first.parse().expect("a number"), last.parse().expect("a number"));
        (StatusCode::PARTIAL_CONTENT, tag, bytes.slice(first..bytes.len().min(last + 1))).into_response()
    }

    fn list(&self, query: &BTreeMap<&str, String>) -> Response {
        let objects = self.objects();
        let from = query.get("continuation-token").cloned().unwrap_or_default();
        let mut listed = objects.iter().filter(|(key, _)| key.starts_with(&query["prefix"]) && **key >= from);
        let page: Vec<_> = listed.by_ref().take(2).collect();
        let mut contents = String::new();
        for (key, bytes) in page {
            let size = bytes.len();
            write!(contents, "<Contents><Key>{key}</Key><Size>{size}</Size></Contents>").expect("a string");
        }
        let next = listed.next().map_or_else(
            || "<IsTruncated>false</IsTruncated>".to_owned(),
            |(key, _)| {
                format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{key}</NextContinuationToken>")
            },
        );
        let namespace = "http://s3.amazonaws.com/doc/2006-03-01/";
        format!("<ListBucketResult xmlns=\"{namespace}\">{next}{contents}</ListBucketResult>").into_response()
    }
}

async fn answer(State(store): State<Arc<FakeStore>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.expect("a body");
    if store.away.load(Ordering::Relaxed) {
        return document(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
    }
    let words = parts.uri.query().expect("it is signed").split('&');
    let query: BTreeMap<&str, String> = words
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name, value.replace("%2F", "/")))
        .collect();
    assert!(query.contains_key("X-Amz-Signature"), "it is signed");
    let key = parts.uri.path().strip_prefix("/margin").expect("of the bucket").trim_start_matches('/');
    match parts.method {
        Method::PUT => store.put(key, &parts.headers, body),
        Method::DELETE => {
            store.objects().remove(key);
            StatusCode::NO_CONTENT.into_response()
        }
        _ if query.contains_key("list-type") => store.list(&query),
        _ => store.get(key, &parts.headers),
    }
}

/// A store, and its address.
async fn serve() -> (Arc<FakeStore>, String) {
    let store = Arc::new(FakeStore::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let router = Router::new().fallback(answer).with_state(Arc::clone(&store));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (store, endpoint)
}

/// An agent with one device, in the bucket.
struct Agent {
    client: AgentClient,
    stop: CancellationToken,
    running: RunningAgent,
}

fn options(site: &Site, folder: &Path, path: &str, endpoint: &str) -> AgentOptions {
    std::fs::create_dir_all(folder).expect("a folder");
    let device = DeviceOption { path: path.into(), device: Some(DeviceId(0)), capacity: None };
    let credentials = credentials(&site.authority, "east", Role::Agent, "n0");
    let mut options = AgentOptions::new(credentials, vec![device]);
    options.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    options.socket = Some(folder.join("agent.sock"));
    options.look = Duration::from_millis(50);
    options.bucket_store = Some(BucketStore {
        endpoint: endpoint.to_owned(),
        region: "us-east-1".to_owned(),
        access_key: "key".to_owned(),
        secret_key: "secret".to_owned(),
        authority: None,
    });
    options
}

impl Agent {
    async fn start(site: &Site, machine: &str, endpoint: &str) -> Self {
        let folder = site.folder.path().join(machine);
        let stop = CancellationToken::new();
        let options = options(site, &folder, "s3://margin/nodes/n0", endpoint);
        let running = start(options, stop.clone()).await.expect("the agent starts");
        let address = running.address().expect("it listens").to_string();
        let (site_name, node) = ("east".parse().expect("a name"), "n0".parse().expect("a name"));
        let endpoint = Endpoint { site: site_name, node, address, socket: None };
        let operator = credentials(&site.authority, "east", Role::Operator, "op");
        let client = AgentClient::new(endpoint, &operator, ClientOptions::default()).expect("a client");
        client.raise(stamp(1, 1)).await.expect("the epoch is heard");
        Self { client, stop, running }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.stopped().await;
    }

    async fn state(&self) -> DeviceState {
        self.client.status().await.expect("an answer").devices.remove(0).state
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_a_bucket_outlive_their_agent_and_a_second_one_waits_for_its_end() {
    let site = Site::start(0).await;
    let (store, endpoint) = serve().await;
    let first = Agent::start(&site, "one", &endpoint).await;
    assert_eq!(first.state().await, DeviceState::Ok);
    let bytes = content(1, 3_000_000);
    let facts = facts(extent_id(1), 2, &bytes);
    let rows = rows_of(2, &bytes, 2);
    let mut placed = Vec::new();
    for row in 0..2_u8 {
        placed.push(place(&first.client, &facts, 0, row, &rows[usize::from(row)]).await);
    }
    let second = Agent::start(&site, "two", &endpoint).await;
    let DeviceState::Failed(reason) = second.state().await else { panic!("two agents have one bucket") };
    assert!(reason.contains("s3://margin/nodes/n0 is held by agent n0"), "{reason}");
    first.stop().await;
    until("the bucket is the second one's", || async { second.state().await == DeviceState::Ok }).await;
    let mut part = whole(at(facts.extent, 0, 1, Some(placed[1])), 1_000);
    part.offset = 1_200_000;
    assert_eq!(second.client.read(part).await.expect("it is there"), rows[1][1_200_000..1_201_000]);
    let verified = second.client.verify(at(facts.extent, 0, 0, None)).await.expect("it is whole");
    assert_eq!(verified.row_len, rows[0].len() as u64);
    let page = second.client.inventory(DeviceId(0), None, None, 10).await.expect("a page");
    let listed: Vec<_> = page.records.iter().map(|record| record.instance).collect();
    assert_eq!(listed, placed);
    let deleted = second.client.delete(stamp(1, 1), vec![at(facts.extent, 0, 0, Some(placed[0]))]).await;
    assert_eq!(deleted.expect("an answer"), [Ok(())]);
    let left: Vec<String> = store.objects().keys().cloned().collect();
    assert_eq!(left.len(), 2, "the device record and a row: {left:?}");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_rots_in_its_bucket_is_found_by_scrub_and_a_store_that_is_away_is_named() {
    let site = Site::start(0).await;
    let (store, endpoint) = serve().await;
    let agent = Agent::start(&site, "one", &endpoint).await;
    let bytes = content(2, 200_000);
    let facts = facts(extent_id(2), 2, &bytes);
    let row = rows_of(2, &bytes, 1).remove(0);
    let instance = place(&agent.client, &facts, 0, 0, &row).await;
    let key = store.objects().keys().find(|key| key.contains("/rows/")).cloned().expect("an object");
    let sound = store.objects()[&key].clone();
    let mut rotten = sound.to_vec();
    rotten[70_000] ^= 1;
    store.objects().insert(key.clone(), rotten.into());
    agent.client.scrub(None, true, Duration::from_secs(20)).await.expect("it ends");
    let findings = agent.client.status().await.expect("an answer").devices.remove(0).findings;
    assert_eq!(findings.iter().map(|finding| finding.instance).collect::<Vec<_>>(), [instance]);
    store.objects().insert(key, sound);
    let read = whole(at(facts.extent, 0, 0, Some(instance)), row.len());
    assert_eq!(agent.client.read(read).await.expect("it was put right"), row);

    store.away.store(true, Ordering::Relaxed);
    let read = whole(at(facts.extent, 0, 0, Some(instance)), row.len());
    let error = agent.client.read(read).await.expect_err("the store is away");
    let Some(AgentError::DeviceFailed { reason, .. }) = error.agent() else { panic!("{error}") };
    assert!(reason.contains("503 Service Unavailable, SlowDown"), "{reason}");
    store.away.store(false, Ordering::Relaxed);
    assert_eq!(agent.state().await, DeviceState::Ok, "that was no reason to give it up");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_without_a_store_or_a_bucket_is_refused_before_anything_is_asked() {
    let site = Site::start(0).await;
    for (path, expected) in [
        ("s3:///n0", "s3://BUCKET/PREFIX is needed"),
        ("s3://margin/n0", "say of which store, by --bucket-endpoint"),
    ] {
        let mut options = options(&site, &site.folder.path().join("one"), path, "http://127.0.0.1:1");
        if path != "s3:///n0" {
            options.bucket_store = None;
        }
        let refused = start(options, CancellationToken::new()).await;
        let Err(error @ StartError::Place(_)) = refused else { panic!("{path} was taken") };
        assert!(error.to_string().contains(expected), "{error}");
    }
}
