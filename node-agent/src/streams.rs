//! Rows that are written in pieces: all rows of one extent on this node, in the order of their appends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use diptych_core::ids::{InstanceId, Stamp};
use diptych_core::layout::SHARD;
use diptych_core::records::Holds;
use diptych_store::{NewRow, Purpose, Writer};
use diptych_wire::agent::{AgentError, Append, Begin, BeginReply, Seal, StreamId};
use diptych_wire::identity::Identity;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::device::Slot;
use crate::rows::{fresh_instance, invalid, purpose_of, row_end, row_len};

/// Streams at once: each holds reserved room on its devices.
const STREAMS: usize = 512;
/// For an append whose predecessor has not come yet.
const TURN: Duration = Duration::from_secs(15);

/// One row on its way to a device.
struct OpenRow {
    slot: Arc<Slot>,
    writer: Result<Writer, AgentError>,
}

/// Rows of one extent that are being written. Dropped unsealed they are given up.
pub(crate) struct OpenRows {
    needed: u8,
    holds: Holds,
    stamp: Stamp,
    rows: Vec<Option<OpenRow>>,
    /// By row: why it could not be begun.
    pub(crate) refused: Vec<Option<AgentError>>,
}

impl OpenRows {
    /// FENCING: each device admits the stamp before it reserves room.
    pub(crate) async fn begin(agent: &Agent, begin: &Begin, purpose: Purpose) -> Self {
        let purpose = purpose_of(begin.holds, purpose);
        let begun = begin.rows.iter().map(|row| async move {
            let slot = agent.writable(row.device)?;
            let (stamp, reserve) = (begin.stamp, u64::from(row.reserve));
            let new = NewRow {
                kind: begin.holds.kind(),
                extent: begin.extent,
                row: row.row,
                instance: fresh_instance(),
                needed: begin.needed,
                coding: 0,
                shard_bytes: SHARD as u32,
                epoch: begin.birth_epoch,
                hlc: begin.birth_hlc,
                first_position: begin.holds.first_position(),
            };
            let writer = slot
                .with(move |device| {
                    device.admit(stamp)?;
                    device.begin(&new, reserve, purpose)
                })
                .await?;
            Ok(OpenRow { slot, writer: Ok(writer) })
        });
        let begun: Vec<Result<OpenRow, AgentError>> = futures::future::join_all(begun).await;
        let refused = begun.iter().map(|row| row.as_ref().err().cloned()).collect();
        Self {
            needed: begin.needed,
            holds: begin.holds,
            stamp: begin.stamp,
            rows: begun.into_iter().map(Result::ok).collect(),
            refused,
        }
    }

    /// Rows that may still become durable.
    pub(crate) fn alive(&self) -> usize {
        self.rows.iter().flatten().filter(|row| row.writer.is_ok()).count()
    }

    /// Why a row failed so far, if one did.
    pub(crate) fn failure(&self) -> Option<AgentError> {
        let failed = self.rows.iter().flatten().filter_map(|row| row.writer.as_ref().err());
        self.refused.iter().flatten().chain(failed).next().cloned()
    }

    /// Appends pieces, each to its row; gives the rows that failed now. A failed row takes nothing more.
    pub(crate) async fn append(
        &mut self,
        pieces: Vec<(u16, Bytes)>,
    ) -> Result<Vec<(u16, AgentError)>, AgentError> {
        let mut rows = std::mem::take(&mut self.rows);
        let work = move || {
            let failed = append_all(&mut rows, pieces);
            (rows, failed)
        };
        let done = tokio::task::spawn_blocking(work).await;
        let (rows, failed) = done.map_err(|error| AgentError::Internal { reason: error.to_string() })?;
        self.rows = rows;
        Ok(failed)
    }

    /// Makes the rows durable; by row, its instance.
    ///
    /// FENCING: the stamp must pass again: a newer one may have come since the rows were begun.
    pub(crate) async fn seal(
        self,
        agent: &Agent,
        extent_len: u32,
        extent_hash: [u8; 32],
    ) -> Result<Vec<Result<InstanceId, AgentError>>, AgentError> {
        agent.fence.not_stale(self.stamp)?;
        let len = u64::from(row_len(self.needed, extent_len)?);
        let end = row_end(extent_len, extent_hash, self.holds);
        let Self { rows, refused, stamp, .. } = self;
        let sealed = rows.into_iter().zip(refused).map(|(row, refused)| {
            let end = end.clone();
            async move {
                let Some(OpenRow { slot, writer }) = row else {
                    return Err(refused.unwrap_or(AgentError::NoSuchStream));
                };
                let writer = writer?;
                if writer.written() != len {
                    return Err(invalid(format!("{} bytes came of a row of {len}", writer.written())));
                }
                let device = slot.device()?;
                let pending = slot.with(move |device| {
                    device.admit(stamp)?;
                    writer.seal(&end)
                });
                let pending = pending.await?;
                slot.checked(&device, pending.await).map(|sealed| sealed.instance)
            }
        });
        Ok(futures::future::join_all(sealed).await)
    }
}

fn append_all(rows: &mut [Option<OpenRow>], pieces: Vec<(u16, Bytes)>) -> Vec<(u16, AgentError)> {
    let mut failed = Vec::new();
    for (index, bytes) in pieces {
        let Some(Some(row)) = rows.get_mut(usize::from(index)) else {
            failed.push((index, invalid("no row with this index was begun")));
            continue;
        };
        let appended = match (&mut row.writer, row.slot.device()) {
            (Ok(writer), Ok(device)) => row.slot.checked(&device, writer.append(&bytes)),
            (Ok(_), Err(error)) => Err(error),
            (Err(error), _) => Err(error.clone()),
        };
        if let Err(error) = appended {
            failed.push((index, error.clone()));
            if let Ok(writer) = std::mem::replace(&mut row.writer, Err(error)) {
                writer.abandon();
            }
        }
    }
    failed
}

struct Stream {
    owner: Identity,
    state: tokio::sync::Mutex<StreamState>,
    moved: Notify,
}

struct StreamState {
    rows: Option<OpenRows>,
    next: u32,
    touched: Instant,
}

/// Streams that gateways and siblings have begun here.
#[derive(Default)]
pub(crate) struct Streams {
    open: Mutex<HashMap<StreamId, Arc<Stream>>>,
}

impl Streams {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<StreamId, Arc<Stream>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: StreamId, owner: &Identity) -> Result<Arc<Stream>, AgentError> {
        self.lock().get(&id).filter(|stream| stream.owner == *owner).cloned().ok_or(AgentError::NoSuchStream)
    }

    /// Streams that are open.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Gives up what has been idle for too long: its sender has gone.
    pub(crate) fn sweep(&self, idle: Duration) {
        self.lock().retain(|id, stream| {
            // One that is locked is in use.
            let stale = stream.state.try_lock().is_ok_and(|state| state.touched.elapsed() > idle);
            if stale {
                tracing::warn!(stream = id.0, owner = %stream.owner, "stream given up: nothing came any more");
            }
            !stale
        });
    }
}

impl Agent {
    pub(crate) async fn begin(
        &self,
        owner: &Identity,
        begin: Begin,
        purpose: Purpose,
    ) -> Result<BeginReply, AgentError> {
        self.fence.pass(begin.stamp, Some(begin.map_generation))?;
        row_len(begin.needed, 1)?;
        if self.streams.count() >= STREAMS {
            return Err(AgentError::Busy);
        }
        let rows = OpenRows::begin(self, &begin, purpose).await;
        let answers = rows.refused.iter().map(|refused| refused.clone().map_or(Ok(()), Err)).collect();
        let stream = StreamId(rand::random());
        let state = StreamState { rows: Some(rows), next: 0, touched: Instant::now() };
        let open =
            Stream { owner: owner.clone(), state: tokio::sync::Mutex::new(state), moved: Notify::new() };
        self.streams.lock().insert(stream, Arc::new(open));
        Ok(BeginReply { stream, rows: answers })
    }

    pub(crate) async fn append(
        &self,
        owner: &Identity,
        append: Append,
        mut payload: Bytes,
    ) -> Result<Vec<(u16, AgentError)>, AgentError> {
        if append.pieces.iter().map(|(_, len)| *len as usize).sum::<usize>() != payload.len() {
            return Err(invalid("the payload is not as long as the pieces together"));
        }
        let stream = self.streams.find(append.stream, owner)?;
        let pieces =
            append.pieces.iter().map(|(index, len)| (*index, payload.split_to(*len as usize))).collect();
        let mut state = turn(&stream, append.sequence).await?;
        let rows = state.rows.as_mut().ok_or(AgentError::NoSuchStream)?;
        let failed = rows.append(pieces).await;
        state.next += 1;
        state.touched = Instant::now();
        drop(state);
        stream.moved.notify_waiters();
        failed
    }

    pub(crate) async fn seal(
        &self,
        owner: &Identity,
        seal: Seal,
    ) -> Result<Vec<Result<InstanceId, AgentError>>, AgentError> {
        let stream = self.streams.find(seal.stream, owner)?;
        let rows = turn(&stream, seal.appends).await?.rows.take().ok_or(AgentError::NoSuchStream)?;
        self.streams.lock().remove(&seal.stream);
        rows.seal(self, seal.extent_len, seal.extent_hash).await
    }

    pub(crate) async fn abandon(&self, owner: &Identity, id: StreamId) -> Result<(), AgentError> {
        let stream = self.streams.find(id, owner)?;
        self.streams.lock().remove(&id);
        drop(stream.state.lock().await.rows.take());
        stream.moved.notify_waiters();
        Ok(())
    }
}

/// Waits until all before number `sequence` has been appended. Frames of one connection are handled side by side, so
/// one may come to its lock before its predecessor.
async fn turn(
    stream: &Stream,
    sequence: u32,
) -> Result<tokio::sync::MutexGuard<'_, StreamState>, AgentError> {
    let deadline = Instant::now() + TURN;
    loop {
        let moved = stream.moved.notified();
        tokio::pin!(moved);
        // From here on a move is noticed, so none is lost between the look and the wait.
        moved.as_mut().enable();
        let state = stream.state.lock().await;
        if state.rows.is_none() {
            return Err(AgentError::NoSuchStream);
        }
        if state.next == sequence {
            return Ok(state);
        }
        if state.next > sequence {
            return Err(invalid(format!("piece {sequence} came twice")));
        }
        drop(state);
        if tokio::time::timeout_at(deadline, moved).await.is_err() {
            return Err(invalid(format!("piece {sequence} came without its predecessor")));
        }
    }
}
