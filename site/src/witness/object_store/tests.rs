use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use diptych_core::ids::{Epoch, KeeperNumber};
use diptych_core::lease::Nonce;
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{Method, StatusCode};
use tokio::net::TcpListener;

use super::*;

const CLUSTER: ClusterId = ClusterId([1; 16]);
const LIMIT: Duration = Duration::from_secs(20);

/// What a stand-in for a store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Fault {
    #[default]
    None,
    /// Conditions of writes are taken and not looked at.
    IgnoresConditions,
    /// Writes are applied, and answered 500.
    LosesAnswers,
    /// Something before the store refuses every write, in words of its own.
    Proxy,
    /// There is no bucket.
    NoBucket,
}

#[derive(Default)]
struct FakeStore {
    objects: Mutex<HashMap<String, (String, Bytes)>>,
    fault: Mutex<Fault>,
    writes: AtomicU64,
}

fn document(status: StatusCode, code: &str) -> Response {
    (status, format!("<Error><Code>{code}</Code></Error>")).into_response()
}

impl FakeStore {
    fn set(&self, fault: Fault) {
        *self.fault.lock().expect("nobody panicked") = fault;
    }

    fn put(&self, path: &str, headers: &http::HeaderMap, body: Bytes) -> Response {
        let fault = *self.fault.lock().expect("nobody panicked");
        if fault == Fault::Proxy {
            return (StatusCode::FORBIDDEN, "<html>forbidden</html>").into_response();
        }
        let mut objects = self.objects.lock().expect("nobody panicked");
        let known = objects.get(path).map(|(etag, _)| etag.as_str());
        let wanted = headers.get(IF_MATCH).map(|value| value.to_str().expect("text"));
        let refused = match (known, wanted) {
            (Some(known), Some(wanted)) => known != wanted,
            (None, Some(_)) => true,
            (known, None) => headers.contains_key(IF_NONE_MATCH) && known.is_some(),
        };
        if refused && fault != Fault::IgnoresConditions {
            return document(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let etag = format!("\"{}\"", self.writes.fetch_add(1, Ordering::Relaxed));
        objects.insert(path.to_owned(), (etag.clone(), body));
        if fault == Fault::LosesAnswers {
            return document(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        [(ETAG, etag)].into_response()
    }

    fn get(&self, path: &str) -> Response {
        if *self.fault.lock().expect("nobody panicked") == Fault::NoBucket {
            return document(StatusCode::NOT_FOUND, "NoSuchBucket");
        }
        match self.objects.lock().expect("nobody panicked").get(path) {
            Some((etag, body)) => ([(ETAG, etag.clone())], body.clone()).into_response(),
            None => document(StatusCode::NOT_FOUND, "NoSuchKey"),
        }
    }
}

async fn answer(State(store): State<Arc<FakeStore>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let path = parts.uri.path();
    assert!(parts.uri.query().is_some_and(|query| query.contains("X-Amz-Signature")), "it is signed");
    match parts.method {
        Method::PUT => store.put(path, &parts.headers, body),
        Method::DELETE => {
            store.objects.lock().expect("nobody panicked").remove(path);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => store.get(path),
    }
}

/// A store with this fault from the beginning, and its address.
async fn serve(fault: Fault) -> (Arc<FakeStore>, String) {
    let store = Arc::new(FakeStore::default());
    store.set(fault);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let router = Router::new().fallback(answer).with_state(Arc::clone(&store));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (store, endpoint)
}

fn of_cluster(endpoint: &str, cluster: ClusterId) -> ObjectStoreWitness {
    let config = ObjectStoreConfig {
        endpoint: endpoint.to_owned(),
        bucket: "witness".to_owned(),
        key: "lease".to_owned(),
        region: "us-east-1".to_owned(),
        access_key: "key".to_owned(),
        secret_key: "secret".to_owned(),
        authority: None,
    };
    ObjectStoreWitness::new(&config, cluster).expect("a witness")
}

/// Once it knows what store it has.
async fn tried(witness: ObjectStoreWitness) -> ObjectStoreWitness {
    let mut proof = witness.store.proof.subscribe();
    let tried = proof.wait_for(|proof| *proof != Proof::Untried);
    tokio::time::timeout(LIMIT, tried).await.expect("within the limit").expect("it is tried");
    witness
}

async fn witness(fault: Fault) -> (Arc<FakeStore>, ObjectStoreWitness) {
    let (store, endpoint) = serve(fault).await;
    (store, tried(of_cluster(&endpoint, CLUSTER)).await)
}

fn record(epoch: u64, site: &str, number: u64) -> WitnessRecord {
    let nonce = Nonce { seed: 7, keeper: KeeperNumber(1), number };
    WitnessRecord { epoch: Epoch(epoch), site: site.parse().expect("a name"), nonce }
}

fn token(swapped: SwapResult) -> Token {
    match swapped {
        SwapResult::Won { token } => token,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_swap_needs_the_token_of_what_stands_there_and_leaves_another() {
    let (store, witness) = witness(Fault::None).await;
    assert_eq!(witness.read().await, WitnessRead::Absent);
    let first = token(witness.swap(None, record(1, "east", 1), false).await);
    assert_eq!(witness.swap(None, record(1, "west", 1), false).await, SwapResult::Lost);
    let found = WitnessRead::Found { token: first.clone(), record: record(1, "east", 1) };
    assert_eq!(witness.read().await, found);
    let second = token(witness.swap(Some(first.clone()), record(1, "east", 2), false).await);
    assert_ne!(first, second);
    assert_eq!(witness.swap(Some(first), record(2, "west", 1), false).await, SwapResult::Lost);
    assert_eq!(witness.trouble(), None);
    let objects = store.objects.lock().expect("nobody panicked");
    assert_eq!(objects.len(), 1, "the trial left nothing: {:?}", objects.keys());
}

#[tokio::test]
async fn of_many_swaps_from_one_token_one_is_won() {
    let (_store, witness) = witness(Fault::None).await;
    let first = token(witness.swap(None, record(1, "east", 0), false).await);
    let swaps = (1..=16).map(|number| witness.swap(Some(first.clone()), record(2, "west", number), false));
    let won = futures::future::join_all(swaps).await;
    assert_eq!(won.iter().filter(|swap| matches!(swap, SwapResult::Won { .. })).count(), 1, "{won:?}");
    assert_eq!(won.iter().filter(|swap| **swap == SwapResult::Lost).count(), 15, "{won:?}");
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_no_witness() {
    let (store, witness) = witness(Fault::IgnoresConditions).await;
    let before = store.writes.load(Ordering::Relaxed);
    assert_eq!(witness.swap(None, record(1, "east", 1), false).await, SwapResult::Lost);
    assert_eq!(witness.read().await, WitnessRead::Failed);
    assert_eq!(store.writes.load(Ordering::Relaxed), before, "nothing was sent");
    let trouble = witness.trouble().expect("it is said");
    assert!(trouble.contains("ignores If-None-Match"), "{trouble}");
}

#[tokio::test]
async fn a_swap_whose_answer_is_lost_is_unknown_and_its_nonce_is_found() {
    let (store, witness) = witness(Fault::None).await;
    store.set(Fault::LosesAnswers);
    assert_eq!(witness.swap(None, record(1, "east", 1), false).await, SwapResult::Unknown);
    match witness.read().await {
        WitnessRead::Found { record: found, .. } => assert_eq!(found, record(1, "east", 1)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_in_words_that_are_not_the_stores_is_unknown() {
    let (store, witness) = witness(Fault::None).await;
    store.set(Fault::Proxy);
    assert_eq!(witness.swap(None, record(1, "east", 1), false).await, SwapResult::Unknown);
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_no_proof_that_there_is_no_record() {
    let (_store, witness) = witness(Fault::NoBucket).await;
    assert_eq!(witness.read().await, WitnessRead::Failed);
    let trouble = witness.trouble().expect("it is said");
    assert!(trouble.contains("NoSuchBucket"), "{trouble}");
}

#[tokio::test]
async fn a_record_of_another_cluster_is_named_and_not_overwritten() {
    let (_store, endpoint) = serve(Fault::None).await;
    let witness = tried(of_cluster(&endpoint, CLUSTER)).await;
    token(witness.swap(None, record(9, "east", 1), false).await);
    let other = tried(of_cluster(&endpoint, ClusterId([2; 16]))).await;
    assert_eq!(other.read().await, WitnessRead::Failed);
    let trouble = other.trouble().expect("it is said");
    assert!(trouble.contains(&CLUSTER.to_string()), "{trouble}");
    assert_eq!(other.swap(None, record(1, "east", 1), false).await, SwapResult::Lost);
}

#[tokio::test]
async fn a_store_that_can_not_be_reached_swaps_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let witness = of_cluster(&endpoint, CLUSTER);
    assert_eq!(witness.read().await, WitnessRead::Failed);
    assert_eq!(witness.swap(None, record(1, "east", 1), false).await, SwapResult::Lost);
    let trouble = witness.trouble().expect("it is said");
    assert!(!trouble.contains("X-Amz"), "a signed URL is nobody's business: {trouble}");
}
