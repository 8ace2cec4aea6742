//! What goes between node-agents and those who ask them: frames, and the requests and answers in them.
//!
//! Input: an alteration 8; bytes that come at a time 1; then a stream of frames. The stream is also taken for one frame,
//! of which version, lengths and operation are made right.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use diptych_wire::agent::{
    Abandon, AgentError, Append, Begin, Call, Cross, Delete, Describe, Format, GetKeyring, Hello, Inventory,
    Lend, Locate, Metrics, Op, Ping, PlaceRows, PutKeyring, Raise, Read, Rebuild, Scrub, Seal, Status,
    Verify,
};
use diptych_wire::frame::{Frame, FrameError, FrameReader, HEADER, MAX_META, Outgoing};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, ReadBuf};

use crate::alteration::{Alteration, take};

/// What decodes encodes to what decodes the same, a frame is read the same in whatever pieces it comes, and a cut one
/// never.
pub fn holds(input: &[u8]) {
    let mut rest = input;
    let alteration = Alteration::take(&mut rest);
    let [piece] = take(&mut rest);
    read_all(rest, piece).0.iter().for_each(message_reads_back);
    let (bytes, expected) = repaired(rest);
    let (frames, ended) = read_all(&bytes, piece);
    ended.expect("a whole frame reads");
    assert_eq!(frames.iter().map(fields).collect::<Vec<_>>(), [fields(&expected)]);
    message_reads_back(&expected);

    let cut = alteration.cut(&bytes);
    let (frames, ended) = read_all(cut, piece);
    let noticed = matches!(ended, Err(FrameError::Cut)) || cut.is_empty();
    assert!(frames.is_empty() && noticed, "a cut frame reads");
}

/// What must come through of a frame.
fn fields(frame: &Frame) -> (u16, bool, u64, &[u8], &[u8]) {
    (frame.op, frame.answer, frame.id, &frame.meta, &frame.payload)
}

/// A frame of any operation, id, message and payload.
fn repaired(mut stream: &[u8]) -> (Vec<u8>, Frame) {
    let _length: [u8; 4] = take(&mut stream);
    let [number, _]: [u8; 2] = take(&mut stream);
    let [flags, _]: [u8; 2] = take(&mut stream);
    let id = u64::from_le_bytes(take(&mut stream));
    let meta_len = u32::from_le_bytes(take(&mut stream)) as usize;
    let op = Op::ALL[usize::from(number.wrapping_sub(1)) % Op::ALL.len()] as u16;
    let answer = flags & 1 != 0;
    let (meta, payload) = stream.split_at(meta_len.min(stream.len()).min(MAX_META));

    let mut bytes = Vec::with_capacity(HEADER + 4 + stream.len());
    bytes.extend_from_slice(&(4 + stream.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&op.to_le_bytes());
    bytes.extend_from_slice(&[u8::from(answer), 1]);
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&(meta.len() as u32).to_le_bytes());
    bytes.extend_from_slice(stream);
    let (meta, payload) = (meta.to_vec().into(), payload.to_vec().into());
    let expected = Frame { op, answer, descriptor: false, id, meta, payload };
    (bytes, expected)
}

/// A connection that brings `piece` bytes at a time, then ends.
struct Pieces<'b> {
    bytes: &'b [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.piece.min(self.bytes.len()).min(buffer.remaining());
        let (now, later) = self.bytes.split_at(len);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

/// Every frame of a stream, and how it ended.
fn read_all(bytes: &[u8], piece: u8) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut reader = FrameReader::new(Pieces { bytes, piece: usize::from(piece) + 1 });
    let mut frames = Vec::new();
    let ended = futures::executor::block_on(async {
        while let Some(frame) = reader.next().await? {
            frames.push(frame);
        }
        Ok(())
    });
    (frames, ended)
}

fn message_reads_back(frame: &Frame) {
    macro_rules! by_operation {
        ($($call:ident)*) => {
            match Op::from_number(frame.op) {
                $(Some(Op::$call) => call_reads_back::<$call>(frame),)*
                None => {}
            }
        };
    }
    by_operation! {
        Hello Ping Raise PlaceRows Begin Append Seal Abandon Read Describe Delete Inventory Status Scrub Rebuild Cross
        PutKeyring GetKeyring Format Metrics Verify Locate Lend
    }
}

fn call_reads_back<C: Call>(frame: &Frame) {
    if frame.answer {
        reads_back::<Result<C::Reply, AgentError>>(frame);
    } else {
        reads_back::<C>(frame);
    }
}

/// A message that decodes is sent on and decodes again, to what is encoded the same.
fn reads_back<T: Serialize + DeserializeOwned>(frame: &Frame) {
    let Ok(message) = frame.decode::<T>() else { return };
    let send = |message: &T| {
        let sent = Outgoing::new(frame.op, frame.answer, frame.id, message, vec![frame.payload.clone()]);
        sent.expect("it came in a frame, and its own form is no longer").head
    };
    let sent = send(&message);
    let (frames, ended) = read_all(&[&sent[..], &frame.payload].concat(), u8::MAX);
    assert!(frames.len() == 1 && ended.is_ok(), "what was sent is not one frame");
    assert_eq!(frames[0].payload, frame.payload);
    let again = frames[0].decode::<T>().expect("what was encoded decodes");
    assert_eq!(send(&again), sent, "a message changes on its way");
}
