//! Seeds of the agent protocol: a request and an answer of each operation.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use diptych_core::ids::{
    ClusterId, DeviceId, Epoch, ExtentId, Generation, Hlc, InstanceId, KeeperNumber, NodeName, Row, SiteName,
    Stamp,
};
use diptych_core::records::{ExtentKind, Holds};
use diptych_wire::agent::{
    Abandon, AgentError, AgentStatus, Append, Begin, BeginReply, BeginRow, Call, Cross, CrossTarget,
    CrossedRow, Delete, Describe, DeviceFacts, DeviceKeyring, DeviceState, DeviceTakes, Door, ExtentFacts,
    FarNode, Finding, Format, GetKeyring, Hello, HelloReply, Inventory, InventoryPage, InventoryRecord, Lend,
    Locate, Metrics, Ping, PlaceRows, PutKeyring, Raise, Read, ReadItem, Rebuild, Rebuilt, RowAt, RowFacts,
    RowPlace, Scrub, ScrubProgress, Seal, SealedKeyring, Source, Status, StreamId, Verified, Verify,
};
use diptych_wire::frame::Outgoing;
use diptych_wire::identity::{Identity, Role};

use super::Seed;

const EXTENT: ExtentId = ExtentId([1; 16]);
const DEVICE: DeviceId = DeviceId(7);
const INSTANCE: InstanceId = InstanceId([2; 8]);
const STAMP: Stamp = Stamp { epoch: Epoch(3), keeper: KeeperNumber(4) };
const MAP: Generation = Generation(5);
const AT: RowAt = RowAt { device: DEVICE, extent: EXTENT, row: Row(0), instance: Some(INSTANCE) };
const STREAM: StreamId = StreamId(6);
const FACTS: ExtentFacts = ExtentFacts {
    extent: EXTENT,
    needed: 4,
    holds: Holds::Data,
    length: 12,
    hash: [8; 32],
    birth_epoch: Epoch(3),
    birth_hlc: Hlc(1 << 20),
};

pub(super) fn seeds() -> Vec<Seed> {
    let begin = FACTS.begin(STAMP, MAP, vec![BeginRow { device: DEVICE, row: Row(0), reserve: 4096 }]);
    let head = FACTS.head(DEVICE, Row(0), 3);
    let facts = RowFacts { instance: INSTANCE, head: head.clone(), quarantined: false };
    let target = CrossTarget { row: Row(5), node: node(), address: None, device: DEVICE };
    let cross = Cross {
        stamp: STAMP,
        map_generation: MAP,
        extent: FACTS,
        doors: vec![Door { address: "west:8443".to_owned(), site: site() }],
        targets: vec![target],
        budget: Some(1 << 20),
    };
    let rebuild = Rebuild {
        stamp: STAMP,
        map_generation: MAP,
        extent: FACTS,
        row: Row(1),
        device: DEVICE,
        far: Some(FarNode { address: "o1:8446".to_owned(), site: site(), node: node(), map_generation: MAP }),
        sources: vec![source()],
        budget: None,
    };
    let hello = Hello { cluster: ClusterId([9; 16]), sender: identity(), expects: Some(node()) };
    let keyring = SealedKeyring { generation: MAP, sealed: b"sealed".to_vec() };
    let place = PlaceRows { stamp: STAMP, map_generation: MAP, rows: vec![head] };
    let seal = Seal { stream: STREAM, appends: 1, extent_len: 12, extent_hash: [8; 32] };
    let inventory =
        Inventory { device: DEVICE, after: Some((EXTENT, Row(0), INSTANCE)), kind: None, limit: 10 };
    let format = Format { stamp: STAMP, path: PathBuf::from("/d0"), device: DEVICE };
    let refused = Err(AgentError::StaleStamp { have: STAMP });
    [
        pair(&hello, hello_reply()),
        pair(&Ping {}, ()),
        pair(&Raise { stamp: STAMP }, ()),
        pair(&place, vec![Ok(INSTANCE), Err(AgentError::DeviceFull { device: DEVICE })]),
        pair::<Begin>(&begin, BeginReply { stream: STREAM, rows: vec![Ok(()), refused] }),
        pair(
            &Append { stream: STREAM, sequence: 0, pieces: vec![(0, 3)] },
            vec![(0, AgentError::NoSuchStream)],
        ),
        pair(&seal, vec![Ok(INSTANCE)]),
        pair(&Abandon { stream: STREAM }, ()),
        pair(
            &Read { items: vec![ReadItem { at: AT, offset: 0, len: 3 }] },
            vec![Ok(3), Err(AgentError::NotFound)],
        ),
        pair(&Describe { at: AT }, facts),
        pair(&Delete { stamp: STAMP, items: vec![AT] }, vec![Ok(())]),
        pair(&inventory, InventoryPage { records: vec![record()], last: true }),
        pair(&Status {}, status()),
        pair(&Scrub { device: Some(DEVICE), now: true }, ()),
        pair(&rebuild, Rebuilt { instance: INSTANCE, liars: vec![source()] }),
        pair(&cross, vec![CrossedRow { row: Row(5), device: DEVICE, instance: INSTANCE }]),
        pair(&PutKeyring { stamp: STAMP, keyring: keyring.clone() }, ()),
        pair(&GetKeyring {}, vec![DeviceKeyring { device: DEVICE, keyring: Some(keyring) }]),
        pair(&format, ()),
        pair(&Metrics {}, "rows 1\n".to_owned()),
        pair(&Verify { at: AT }, Verified { row_len: 3, extent_hash: [8; 32] }),
        pair(
            &Locate { items: vec![AT, AT, AT] },
            vec![
                Ok(Some(RowPlace { segment: 1, offset: 8192, len: 3 })),
                Ok(None),
                Err(AgentError::NotFound),
            ],
        ),
        pair(&Lend { device: DEVICE, segment: 1 }, ()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A request and its answer.
fn pair<C: Call>(request: &C, reply: C::Reply) -> [Seed; 2] {
    let op = C::OP;
    let frame = |answer, head: Option<Outgoing>| {
        let Outgoing { head, payload } = head.expect("it fits a frame");
        let what = if answer { "answer" } else { "request" };
        // Nothing altered; the stream comes in pieces of 256.
        let bytes = [&[0; 8], &[255][..], &head, &payload.concat()].concat();
        Seed { target: "agent_protocol", name: format!("{}_{what}", op.name()), bytes }
    };
    let payload = || vec![Bytes::from_static(b"row")];
    let answer: Result<C::Reply, AgentError> = Ok(reply);
    [
        frame(false, Outgoing::new(op as u16, false, 1, request, payload())),
        frame(true, Outgoing::new(op as u16, true, 1, &answer, payload())),
    ]
}

fn site() -> SiteName {
    "east".parse().expect("a name")
}

fn node() -> NodeName {
    "n0".parse().expect("a name")
}

fn identity() -> Identity {
    Identity { cluster: ClusterId([9; 16]), site: site(), role: Role::Gateway, name: "gw-0".to_owned() }
}

fn source() -> Source {
    let address = Some("n1:7000".to_owned());
    Source { address, site: site(), node: node(), device: DEVICE, row: Row(2), instance: INSTANCE }
}

fn record() -> InventoryRecord {
    let (extent, row, instance, kind) = (EXTENT, Row(0), INSTANCE, ExtentKind::Data);
    InventoryRecord { extent, row, instance, kind, record_bytes: 640, quarantined: true, verified_ms: 0 }
}

fn device() -> DeviceFacts {
    DeviceFacts {
        device: Some(DEVICE),
        path: PathBuf::from("/d0"),
        state: DeviceState::Failed("input/output error".to_owned()),
        capacity: 1 << 30,
        used: 1 << 20,
        rows: 9,
        generation: Generation(1),
        takes: DeviceTakes { read: Some(Duration::from_millis(2)), write: None },
        scrub: ScrubProgress { running: true, rows: 1, bytes: 640, finished_ms: 0 },
        findings: vec![Finding {
            extent: EXTENT,
            row: Row(0),
            instance: INSTANCE,
            reason: "block 0".to_owned(),
        }],
    }
}

fn hello_reply() -> HelloReply {
    let version = "0.1.0".to_owned();
    HelloReply { site: site(), node: node(), version, stamp: STAMP, ready: true, devices: vec![device()] }
}

fn status() -> AgentStatus {
    let version = "0.1.0".to_owned();
    AgentStatus { site: site(), node: node(), version, stamp: STAMP, ready: false, devices: vec![device()] }
}
