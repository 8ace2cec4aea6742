//! Extents that come over from the other site, through a door that is a real HTTPS listener.

mod support;

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use diptych_core::ids::{DeviceId, Row};
use diptych_wire::agent::{AgentError, Cross, CrossTarget, Door};
use diptych_wire::client::CallError;
use diptych_wire::http::{BoxError, HttpBody, empty, serve};
use diptych_wire::identity::{Expected, Role};
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use support::{CLUSTER, MAP, Site, at, content, credentials, extent_id, facts, rows_of, stamp, whole};

const LIMIT: Duration = Duration::from_secs(30);
const PIECE: usize = 300_000;

/// What a door does.
#[derive(Clone)]
struct DoorPlan {
    bytes: Vec<u8>,
    status: Option<StatusCode>,
    /// The first answers break after so many bytes.
    breaks: usize,
    break_after: usize,
}

struct OpenDoor {
    door: Door,
    /// First bytes that were asked for.
    asked: Arc<Mutex<Vec<usize>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn open_door(site: &Site, of: &str, plan: DoorPlan) -> OpenDoor {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let who = credentials(&site.authority, of, Role::Gateway, "gw");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, answers) = (asked.clone(), Arc::new(AtomicUsize::new(0)));
    let service = tower::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let range = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
        let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let start: usize = start.expect("a range from somewhere on");
        seen.lock().expect("no panic").push(start);
        let breaks = answers.fetch_add(1, Ordering::Relaxed) < plan.breaks;
        let answer = answer(&plan, start, breaks);
        async move { Ok::<_, Infallible>(answer) }
    });
    let task = tokio::spawn(async move {
        serve(listener, &who, Expected::any_of(CLUSTER), service).await.expect("it serves");
    });
    OpenDoor { door: Door { address, site: "west".parse().expect("a name") }, asked, task }
}

fn answer(plan: &DoorPlan, start: usize, breaks: bool) -> Response<HttpBody> {
    if let Some(status) = plan.status {
        return Response::builder().status(status).body(empty()).expect("an answer");
    }
    let end = if breaks { (start + plan.break_after).min(plan.bytes.len()) } else { plan.bytes.len() };
    let mut frames: Vec<Result<Frame<Bytes>, BoxError>> = plan.bytes[start..end]
        .chunks(PIECE)
        .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    if breaks {
        frames.push(Err("the line is cut".into()));
    }
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{}", plan.bytes.len() - 1, plan.bytes.len()))
        .body(StreamBody::new(futures::stream::iter(frames)).boxed_unsync())
        .expect("an answer")
}

fn plan(bytes: &[u8]) -> DoorPlan {
    DoorPlan { bytes: bytes.to_vec(), status: None, breaks: 0, break_after: 0 }
}

/// Rows 4 and 5 to node 0, which is asked, 6 and 7 to node 1.
fn command(site: &Site, bytes: &[u8], doors: &[&OpenDoor]) -> Cross {
    let target = |row: u8| {
        let node = usize::from(row - 4) / 2;
        CrossTarget {
            row: Row(row),
            node: site.agents[node].name.parse().expect("a name"),
            address: (node > 0).then(|| site.agents[node].address.to_string()),
            device: DeviceId(u32::from(row - 4)),
        }
    };
    Cross {
        stamp: stamp(1, 1),
        map_generation: MAP,
        extent: facts(extent_id(1), 4, bytes),
        doors: doors.iter().map(|open| open.door.clone()).collect(),
        targets: (4..8).map(target).collect(),
        budget: None,
    }
}

async fn cross(site: &Site, command: &Cross) -> Result<Vec<diptych_wire::agent::CrossedRow>, CallError> {
    site.operator(0).cross(command, LIMIT).await
}

async fn records(site: &Site) -> usize {
    let mut records = 0;
    for device in 0..4u32 {
        let client = site.gateway(device as usize / 2);
        records += client.inventory(DeviceId(device), None, None, 10).await.expect("a page").records.len();
    }
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extent_crosses_over_a_line_that_is_cut_and_its_rows_are_right_on_both_nodes() {
    let site = Site::start(2).await;
    site.raise_all().await;
    let bytes = content(1, (7 << 20) + 123);
    let plan = DoorPlan { breaks: 2, break_after: 2_000_000, ..plan(&bytes) };
    let open = open_door(&site, "west", plan).await;
    let command = command(&site, &bytes, &[&open]);
    let crossed = cross(&site, &command).await.expect("it crosses");
    let wanted = rows_of(4, &bytes, 8);
    assert_eq!(crossed.len(), 4);
    for row in crossed {
        let wanted = &wanted[usize::from(row.row.0)];
        let item = whole(at(extent_id(1), row.device.0, row.row.0, Some(row.instance)), wanted.len());
        let read = site.gateway(row.device.0 as usize / 2).read(item).await.expect("it is there");
        assert!(read == *wanted, "row {}", row.row);
    }
    let asked = open.asked.lock().expect("no panic").clone();
    assert_eq!(asked.len(), 3);
    assert!(
        asked.is_sorted() && asked[1] > 0 && asked[2] > asked[1],
        "it went on where it was cut: {asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_do_not_have_the_hash_are_sealed_nowhere() {
    let site = Site::start(2).await;
    site.raise_all().await;
    let bytes = content(1, 3 << 20);
    let mut other = bytes.clone();
    other[1 << 20] ^= 1;
    let open = open_door(&site, "west", plan(&other)).await;
    let error = cross(&site, &command(&site, &bytes, &[&open])).await.expect_err("it is another extent");
    assert_eq!(error.agent(), Some(&AgentError::WrongExtent));
    assert_eq!(records(&site).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extent_that_is_gone_is_told_at_once() {
    let site = Site::start(2).await;
    site.raise_all().await;
    let bytes = content(1, 1000);
    let gone = DoorPlan { status: Some(StatusCode::GONE), ..plan(&bytes) };
    let open = open_door(&site, "west", gone).await;
    let error = cross(&site, &command(&site, &bytes, &[&open])).await.expect_err("it is gone");
    assert_eq!(error.agent(), Some(&AgentError::Gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_is_somebody_elses_gives_way_to_the_next_one() {
    let site = Site::start(2).await;
    site.raise_all().await;
    let bytes = content(1, 50_000);
    let wrong = open_door(&site, "east", plan(&bytes)).await;
    let right = open_door(&site, "west", plan(&bytes)).await;
    let crossed = cross(&site, &command(&site, &bytes, &[&wrong, &right])).await.expect("it crosses");
    assert_eq!(crossed.len(), 4);
    assert!(wrong.asked.lock().expect("no panic").is_empty(), "nothing is asked of the wrong one");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_sibling_away_too_few_rows_are_an_error_and_nothing_is_sealed() {
    let mut site = Site::start(2).await;
    site.raise_all().await;
    let bytes = content(1, 50_000);
    let open = open_door(&site, "west", plan(&bytes)).await;
    let command = command(&site, &bytes, &[&open]);
    site.stop(1).await;
    let error = cross(&site, &command).await.expect_err("two rows of four");
    let told = matches!(error.agent(), Some(AgentError::InsufficientRows { present: 2, needed: 4, .. }));
    assert!(told, "{error}");
    let page = site.gateway(0).inventory(DeviceId(0), None, None, 10).await.expect("a page");
    assert!(page.records.is_empty());
}
