//! Frames: a header of 16 bytes (length u32, operation u16, flags u16, id u64, little-endian), then the body: length of
//! the meta u32, the meta in postcard, and the payload, which fills the rest.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a header.
pub const HEADER: usize = 16;
/// Greatest body.
pub const MAX_BODY: usize = 8 << 20;
/// Greatest meta in a body.
pub const MAX_META: usize = 1 << 20;
/// Greatest payload that surely fits a frame beside its meta.
pub const MAX_PAYLOAD: usize = MAX_BODY - MAX_META;

/// Version of the protocol, in the high byte of the flags: another one is refused.
const VERSION: u16 = 1;
const ANSWER: u16 = 1;
const DESCRIPTOR: u16 = 2;
/// Room that is asked for at once while small frames come in.
const READ_AHEAD: usize = 64 << 10;

/// What came is no frame.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    /// It ended in the middle of a frame.
    #[error("the connection ended in the middle of a frame")]
    Cut,
    /// The header is not one of ours.
    #[error("what came is not a frame of this protocol: {0}")]
    Garbage(String),
}

/// A frame as it came.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Number of the operation.
    pub op: u16,
    /// It answers the request of the same id.
    pub answer: bool,
    /// A descriptor of an open file goes with it: over unix sockets only.
    pub descriptor: bool,
    /// Chosen by who asked.
    pub id: u64,
    /// In postcard.
    pub meta: Bytes,
    /// Bulk bytes.
    pub payload: Bytes,
}

impl Frame {
    /// Reads the meta.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        decode(&self.meta)
    }

    /// Bytes of meta and payload.
    pub fn len(&self) -> usize {
        self.meta.len() + self.payload.len()
    }

    /// There is neither meta nor payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads a meta. Bytes left over are garbage too.
pub fn decode<T: DeserializeOwned>(meta: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(meta) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(FrameError::Garbage(format!("{} bytes follow the message", rest.len()))),
        Err(error) => Err(FrameError::Garbage(format!("the message can't be read: {error}"))),
    }
}

/// A frame to send: its header and meta in one piece, then the payload's pieces as they are.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Header and meta.
    pub head: Bytes,
    /// Payload.
    pub payload: Vec<Bytes>,
}

impl Outgoing {
    /// Encodes a frame. None: it would be larger than `MAX_BODY`.
    pub fn new<T: Serialize>(op: u16, answer: bool, id: u64, meta: &T, payload: Vec<Bytes>) -> Option<Self> {
        let head = postcard::to_extend(meta, vec![0; HEADER + 4]).ok()?;
        Self::finish(op, if answer { ANSWER } else { 0 }, id, head, payload)
    }

    /// An answer whose meta is encoded already; `descriptor`: one goes with it.
    pub(crate) fn of_encoded(
        op: u16,
        id: u64,
        meta: &[u8],
        payload: Vec<Bytes>,
        descriptor: bool,
    ) -> Option<Self> {
        let mut head = Vec::with_capacity(HEADER + 4 + meta.len());
        head.resize(HEADER + 4, 0);
        head.extend_from_slice(meta);
        Self::finish(op, ANSWER | if descriptor { DESCRIPTOR } else { 0 }, id, head, payload)
    }

    fn finish(op: u16, flags: u16, id: u64, mut head: Vec<u8>, payload: Vec<Bytes>) -> Option<Self> {
        let meta_len = head.len() - HEADER - 4;
        let body = 4 + meta_len + payload.iter().map(Bytes::len).sum::<usize>();
        if meta_len > MAX_META || body > MAX_BODY {
            return None;
        }
        let mut header = &mut head[..HEADER + 4];
        header.put_u32_le(u32::try_from(body).ok()?);
        header.put_u16_le(op);
        header.put_u16_le(VERSION << 8 | flags);
        header.put_u64_le(id);
        header.put_u32_le(u32::try_from(meta_len).ok()?);
        Some(Self { head: head.into(), payload })
    }

    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.iter().map(Bytes::len).sum::<usize>()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }
}

/// Cuts frames out of a byte stream. Payloads are slices of the receive buffer, whose room is used again once they
/// are all dropped.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame. None: the connection ended between two frames.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if !self.fill(HEADER).await? {
            return Ok(None);
        }
        let mut header = &self.buffer[..HEADER];
        let body = header.get_u32_le() as usize;
        let op = header.get_u16_le();
        let flags = header.get_u16_le();
        let id = header.get_u64_le();
        check_header(body, flags)?;
        if !self.fill(HEADER + body).await? {
            return Err(FrameError::Cut);
        }
        self.buffer.advance(HEADER);
        let mut body = self.buffer.split_to(body).freeze();
        let meta_len = body.get_u32_le() as usize;
        if meta_len > MAX_META || meta_len > body.len() {
            return Err(FrameError::Garbage(format!(
                "a message of {meta_len} bytes in a body of {}",
                body.len()
            )));
        }
        let meta = body.split_to(meta_len);
        let (answer, descriptor) = (flags & ANSWER != 0, flags & DESCRIPTOR != 0);
        Ok(Some(Frame { op, answer, descriptor, id, meta, payload: body }))
    }

    /// Until `len` bytes are in the buffer. False: the stream ended before the first.
    async fn fill(&mut self, len: usize) -> Result<bool, FrameError> {
        while self.buffer.len() < len {
            let missing = len - self.buffer.len();
            self.buffer.reserve(missing.max(if len == HEADER { READ_AHEAD } else { 0 }));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(false) } else { Err(FrameError::Cut) };
            }
        }
        Ok(true)
    }
}

fn check_header(body: usize, flags: u16) -> Result<(), FrameError> {
    if flags >> 8 != VERSION || flags & 0xff & !(ANSWER | DESCRIPTOR) != 0 {
        return Err(FrameError::Garbage(format!(
            "version and flags are {flags:#06x}, known is version {VERSION}"
        )));
    }
    if !(4..=MAX_BODY).contains(&body) {
        return Err(FrameError::Garbage(format!("a body of {body} bytes, allowed are 4 to {MAX_BODY}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut reader = FrameReader::new(bytes);
            let mut frames = Vec::new();
            while let Some(frame) = reader.next().await? {
                frames.push(frame);
            }
            Ok(frames)
        })
    }

    fn wire(frame: &Outgoing) -> Vec<u8> {
        let mut bytes = frame.head.to_vec();
        frame.payload.iter().for_each(|piece| bytes.extend_from_slice(piece));
        bytes
    }

    #[test]
    fn a_line_of_http_is_refused_as_garbage() {
        let error = read_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect_err("that is no frame");
        assert!(matches!(error, FrameError::Garbage(_)), "{error}");
    }

    #[test]
    fn a_frame_above_the_limit_is_neither_sent_nor_taken() {
        let payload = vec![Bytes::from(vec![0; MAX_BODY])];
        assert!(Outgoing::new(1, false, 1, &(), payload).is_none());
        let mut bytes = wire(&Outgoing::new(1, false, 1, &(), vec![]).expect("it fits"));
        bytes[..4].copy_from_slice(&(MAX_BODY as u32 + 1).to_le_bytes());
        assert!(matches!(read_all(&bytes), Err(FrameError::Garbage(_))));
    }

    #[test]
    fn bytes_after_a_message_are_garbage() {
        assert!(decode::<u8>(&[1, 2]).is_err());
    }

    proptest! {
        #[test]
        fn frames_read_back_as_sent(
            sent in prop::collection::vec((any::<u16>(), any::<bool>(), any::<u64>(), ".{0,40}", prop::collection::vec(any::<u8>(), 0..3000)), 0..8)
        ) {
            let mut bytes = Vec::new();
            for (op, answer, id, meta, payload) in &sent {
                let pieces = payload.chunks(700).map(Bytes::copy_from_slice).collect();
                bytes.extend(wire(&Outgoing::new(*op, *answer, *id, meta, pieces).expect("it fits")));
            }
            let frames = read_all(&bytes).expect("all are frames");
            prop_assert_eq!(frames.len(), sent.len());
            for (frame, (op, answer, id, meta, payload)) in frames.iter().zip(&sent) {
                prop_assert_eq!((frame.op, frame.answer, frame.id), (*op, *answer, *id));
                prop_assert_eq!(&frame.decode::<String>().expect("the meta reads"), meta);
                prop_assert_eq!(&frame.payload[..], &payload[..]);
            }
        }

        #[test]
        fn a_cut_stream_never_yields_a_frame(cut in 1usize..40) {
            let bytes = wire(&Outgoing::new(9, false, 3, &7u64, vec![Bytes::from_static(&[5; 64])]).expect("it fits"));
            let short = &bytes[..bytes.len() - cut];
            prop_assert!(matches!(read_all(short), Err(FrameError::Cut)));
        }

        #[test]
        fn random_bytes_never_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_all(&bytes);
        }
    }
}
