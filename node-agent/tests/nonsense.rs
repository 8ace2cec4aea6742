//! Requests that decode and make no sense, or nearly make it: each is answered by a reply or a typed refusal, none by a
//! panic, and the agent serves on.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use diptych_core::ids::{DeviceId, Epoch, Generation, Hlc, Row};
use diptych_core::records::{Holds, Position, Span};
use diptych_wire::agent::{
    Abandon, AgentError, Append, Begin, BeginReply, BeginRow, Call, Delete, Describe, Format, GetKeyring,
    Hello, Inventory, Metrics, PlaceRows, PutKeyring, Raise, Read, ReadItem, RowAt, RowHead, Scrub, Seal,
    SealedKeyring, Status, StreamId,
};
use diptych_wire::frame::{FrameReader, Outgoing};
use diptych_wire::identity::{Identity, Role};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{CLUSTER, MAP, Site, extent_id, facts, head, place, stamp, whole};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// A request to send, encoded when it is sent: streams get their numbers from the agent.
#[derive(Debug, Clone)]
enum Nonsense {
    PlaceRows(Vec<RowHead>, usize),
    Begin(u8, Vec<BeginRow>),
    Append(Vec<(u16, u32)>, usize),
    Seal(u32, u32),
    Abandon,
    Read(Vec<ReadItem>),
    Describe(RowAt),
    Delete(Vec<RowAt>),
    Inventory(DeviceId, u32),
    Scrub(Option<DeviceId>),
    PutKeyring(u64, Vec<u8>),
    Format(PathBuf, DeviceId),
    Look,
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 0..20_u32, 2 => 0..10_000_u32, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

/// Two are there.
fn device() -> impl Strategy<Value = DeviceId> {
    prop_oneof![4 => 0..2_u32, 1 => any::<u32>()].prop_map(DeviceId)
}

fn row_at() -> impl Strategy<Value = RowAt> {
    (device(), 0..3_u8, any::<u8>(), any::<Option<[u8; 8]>>()).prop_map(|(device, extent, row, instance)| {
        RowAt { device, extent: extent_id(extent), row: Row(row), instance: instance.map(Into::into) }
    })
}

fn holds() -> impl Strategy<Value = Holds> {
    let position =
        || any::<(u64, u64)>().prop_map(|(incarnation, revision)| Position { incarnation, revision });
    prop_oneof![
        3 => Just(Holds::Data),
        1 => (position(), position()).prop_map(|(after, upto)| Holds::Journal(Span { after, upto })),
        1 => position().prop_map(Holds::Checkpoint),
    ]
}

fn row_head() -> impl Strategy<Value = RowHead> {
    let begun = (row_at(), 0..20_u8, holds(), number(), prop::option::of(number()));
    begun.prop_map(|(at, needed, holds, extent_len, len)| {
        RowHead {
            device: at.device,
            extent: at.extent,
            row: at.row,
            needed,
            holds,
            extent_len,
            extent_hash: [7; 32],
            birth_epoch: Epoch(1),
            birth_hlc: Hlc(1),
            // Of a small extent, what is right.
            len: len.unwrap_or(extent_len.div_ceil(u32::from(needed.max(1)))),
        }
    })
}

fn nonsense() -> impl Strategy<Value = Nonsense> {
    let begun = (device(), any::<u8>(), number());
    let begun = begun.prop_map(|(device, row, reserve)| BeginRow { device, row: Row(row), reserve });
    let item = (row_at(), number(), number()).prop_map(|(at, offset, len)| ReadItem { at, offset, len });
    let some = 0..4_usize;
    prop_oneof![
        (prop::collection::vec(row_head(), some.clone()), 0..100_usize)
            .prop_map(|(rows, more)| Nonsense::PlaceRows(rows, more)),
        (0..20_u8, prop::collection::vec(begun, some.clone()))
            .prop_map(|(needed, rows)| Nonsense::Begin(needed, rows)),
        (prop::collection::vec((0..4_u16, 0..5_000_u32), some.clone()), 0..3_usize)
            .prop_map(|(pieces, more)| Nonsense::Append(pieces, more)),
        (0..2_u32, number()).prop_map(|(appends, extent_len)| Nonsense::Seal(appends, extent_len)),
        Just(Nonsense::Abandon),
        prop::collection::vec(item, some.clone()).prop_map(Nonsense::Read),
        row_at().prop_map(Nonsense::Describe),
        prop::collection::vec(row_at(), some).prop_map(Nonsense::Delete),
        (device(), number()).prop_map(|(device, limit)| Nonsense::Inventory(device, limit)),
        prop::option::of(device()).prop_map(Nonsense::Scrub),
        (any::<u64>(), prop::collection::vec(any::<u8>(), 0..50))
            .prop_map(|(number, bytes)| Nonsense::PutKeyring(number, bytes)),
        ("[/a-z.]{0,20}", device()).prop_map(|(path, device)| Nonsense::Format(path.into(), device)),
        Just(Nonsense::Look),
    ]
}

/// An operator's connection to an agent's socket.
struct Line {
    frames: FrameReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    /// Begun and not ended, as far as we know.
    stream: StreamId,
}

impl Line {
    async fn open(site: &Site) -> Self {
        let socket = UnixStream::connect(site.socket(0)).await.expect("it listens");
        let (read, write) = socket.into_split();
        let mut line = Self { frames: FrameReader::new(read), write, stream: StreamId(0) };
        let name = "op".to_owned();
        let sender =
            Identity { cluster: CLUSTER, site: "east".parse().expect("a name"), role: Role::Operator, name };
        line.ask(&Hello { cluster: CLUSTER, sender, expects: None }, 0)
            .await
            .expect("an operator is greeted");
        line.ask(&Raise { stamp: stamp(1, 1) }, 0).await.expect("the epoch is heard");
        line
    }

    /// What the agent answers to a request with so many bytes of payload.
    async fn ask<C: Call>(&mut self, request: &C, payload: usize) -> Result<C::Reply, AgentError> {
        let payload = vec![Bytes::from(vec![5; payload])];
        let sent = Outgoing::new(C::OP as u16, false, 1, request, payload).expect("it fits a frame");
        self.write.write_all(&sent.head).await.expect("the agent takes it");
        for piece in &sent.payload {
            self.write.write_all(piece).await.expect("the agent takes it");
        }
        let answer = tokio::time::timeout(Duration::from_secs(30), self.frames.next()).await;
        let answer = answer.expect("an answer").expect("a frame").expect("the connection stays");
        assert_eq!((answer.op, answer.answer), (C::OP as u16, true));
        let answer: Result<C::Reply, AgentError> = answer.decode().expect("an answer to what was asked");
        let failed = answer.as_ref().err().filter(|error| matches!(error, AgentError::Internal { .. }));
        assert!(failed.is_none(), "{failed:?}");
        answer
    }

    async fn send(&mut self, nonsense: &Nonsense) {
        let (stamp, map_generation, stream) = (stamp(1, 1), MAP, self.stream);
        match nonsense.clone() {
            Nonsense::PlaceRows(rows, more) => {
                let fits: usize = rows.iter().map(|row| row.len as usize).sum();
                let payload = if fits < 1 << 20 && more % 2 == 0 { fits } else { more };
                drop(self.ask(&PlaceRows { stamp, map_generation, rows }, payload).await);
            }
            Nonsense::Begin(needed, rows) => {
                let extent = facts(extent_id(1), needed, b"x");
                let begin: Begin = extent.begin(stamp, map_generation, rows);
                if let Ok(BeginReply { stream, .. }) = self.ask(&begin, 0).await {
                    self.stream = stream;
                }
            }
            Nonsense::Append(pieces, more) => {
                let payload = pieces.iter().map(|(_, len)| *len as usize).sum::<usize>() + more / 2;
                drop(self.ask(&Append { stream, sequence: 0, pieces }, payload).await);
            }
            Nonsense::Seal(appends, extent_len) => {
                // One that is ahead of its appends is waited for.
                let appends = if stream.0 == 0 { appends } else { 0 };
                drop(self.ask(&Seal { stream, appends, extent_len, extent_hash: [7; 32] }, 0).await);
            }
            Nonsense::Abandon => drop(self.ask(&Abandon { stream }, 0).await),
            Nonsense::Read(items) => drop(self.ask(&Read { items }, 0).await),
            Nonsense::Describe(at) => drop(self.ask(&Describe { at }, 0).await),
            Nonsense::Delete(items) => drop(self.ask(&Delete { stamp, items }, 0).await),
            Nonsense::Inventory(device, limit) => {
                drop(self.ask(&Inventory { device, after: None, kind: None, limit }, 0).await);
            }
            Nonsense::Scrub(device) => drop(self.ask(&Scrub { device, now: true }, 0).await),
            Nonsense::PutKeyring(number, sealed) => {
                let keyring = SealedKeyring { generation: Generation(number), sealed };
                drop(self.ask(&PutKeyring { stamp, keyring }, 0).await);
            }
            Nonsense::Format(path, device) => drop(self.ask(&Format { stamp, path, device }, 0).await),
            Nonsense::Look => {
                drop(self.ask(&GetKeyring {}, 0).await);
                drop(self.ask(&Metrics {}, 0).await);
                self.ask(&Status {}, 0).await.expect("it has a status");
            }
        }
    }
}

#[test]
fn whatever_is_asked_is_answered_and_the_agent_serves_on() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let site = runtime.block_on(Site::start(1));
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let asked = prop::collection::vec(nonsense(), 1..40);
    let tried = runner.run(&asked, |asked| {
        runtime.block_on(async {
            let mut line = Line::open(&site).await;
            for nonsense in &asked {
                line.send(nonsense).await;
            }
        });
        Ok(())
    });
    if let Err(failure) = tried {
        panic!("{failure}");
    }
    runtime.block_on(async {
        let facts = facts(extent_id(9), 1, b"still there");
        let operator = site.operator(0);
        let instance = place(&operator, &facts, 0, 0, b"still there").await;
        let at = support::at(facts.extent, 0, 0, Some(instance));
        assert_eq!(operator.read(whole(at, 11)).await.expect("it reads"), b"still there"[..]);
        assert_eq!(operator.describe(at).await.expect("it is there").head, head(&facts, 0, 0, 11));
    });
}
