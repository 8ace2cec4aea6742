//! One connection to an agent, with many requests in flight.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::CallError;
use crate::agent::{AgentError, Call};
use crate::descriptors::{Outlet, Received};
use crate::frame::{Frame, FrameReader, Outgoing};
use crate::send::{Queued, send_all};

/// Requests that may wait to be written; more wait in the callers.
const QUEUE: usize = 128;

/// An answer as it came, and what came with it.
#[derive(Debug)]
struct Answer {
    frame: Frame,
    descriptor: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// None once the connection is closed: nobody may wait any more.
    answers: Option<HashMap<u64, oneshot::Sender<Answer>>>,
    /// Why it was closed.
    reason: String,
}

type Shared = Arc<Mutex<Waiting>>;

/// Ends its tasks when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    node: String,
    queue: mpsc::Sender<Queued<()>>,
    waiting: Shared,
    next_id: AtomicU64,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Connection {
    /// `received`: descriptors that come by `read`, where some may.
    pub(super) fn start(
        node: String,
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl Outlet + 'static,
        received: Option<Received>,
    ) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Mutex::new(Waiting {
            answers: Some(HashMap::new()),
            reason: "it was given up".to_owned(),
        }));
        let stop = CancellationToken::new();
        let (reader, closing, stopped) = (waiting.clone(), waiting.clone(), stop.clone());
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = receive(read, received, &reader) => ended,
                () = stopped.cancelled() => None,
            };
            close(&reader, ended);
            stopped.cancel();
        });
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                sent = send_all(queued, write) => if let Err(error) = sent {
                    close(&closing, Some(error.to_string()));
                },
                () = stopped.cancelled() => {}
            }
            stopped.cancel();
        });
        Self { node, queue, waiting, next_id: AtomicU64::new(1), _guard: stop.clone().drop_guard(), stop }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.stop.is_cancelled()
    }

    pub(super) fn close(&self, reason: &str) {
        close(&self.waiting, Some(reason.to_owned()));
        self.stop.cancel();
    }

    /// Cancelled when the connection ends, whoever ends it.
    pub(super) fn ended(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn call<C: Call>(
        &self,
        request: &C,
        payload: Vec<Bytes>,
        limit: Duration,
    ) -> Result<(C::Reply, Bytes), CallError> {
        let (reply, answer) = self.timed(request, payload, limit).await?;
        Ok((reply, answer.frame.payload))
    }

    /// As [`Connection::call`], for an answer that a descriptor goes with.
    pub(super) async fn borrow<C: Call>(
        &self,
        request: &C,
        limit: Duration,
    ) -> Result<(C::Reply, OwnedFd), CallError> {
        let (reply, answer) = self.timed(request, Vec::new(), limit).await?;
        let missing = || CallError::Protocol {
            node: self.node.clone(),
            reason: "no descriptor came with what was lent".to_owned(),
        };
        Ok((reply, answer.descriptor.ok_or_else(missing)?))
    }

    async fn timed<C: Call>(
        &self,
        request: &C,
        payload: Vec<Bytes>,
        limit: Duration,
    ) -> Result<(C::Reply, Answer), CallError> {
        let started = Instant::now();
        match tokio::time::timeout(limit, self.exchange(request, payload)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::TimedOut {
                node: self.node.clone(),
                op: C::OP.name(),
                after: started.elapsed(),
            }),
        }
    }

    async fn exchange<C: Call>(
        &self,
        request: &C,
        payload: Vec<Bytes>,
    ) -> Result<(C::Reply, Answer), CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = Outgoing::new(C::OP as u16, false, id, request, payload)
            .ok_or(CallError::TooLarge { node: self.node.clone(), op: C::OP.name() })?;
        let (answer, answered) = oneshot::channel();
        let _forget = self.wait_for(id, answer).ok_or_else(|| self.lost::<C>())?;
        self.queue.send(Queued::new(frame, ())).await.map_err(|_| self.lost::<C>())?;
        let answer = answered.await.map_err(|_| self.lost::<C>())?;
        let reply: Result<C::Reply, AgentError> = answer.frame.decode().map_err(|error| {
            self.close(&error.to_string());
            CallError::Protocol { node: self.node.clone(), reason: error.to_string() }
        })?;
        Ok((reply.map_err(CallError::Agent)?, answer))
    }

    fn wait_for(&self, id: u64, answer: oneshot::Sender<Answer>) -> Option<Forget<'_>> {
        lock(&self.waiting).answers.as_mut()?.insert(id, answer);
        Some(Forget { waiting: &self.waiting, id })
    }

    fn lost<C: Call>(&self) -> CallError {
        let reason = lock(&self.waiting).reason.clone();
        CallError::Disconnected { node: self.node.clone(), op: C::OP.name(), reason }
    }
}

/// Takes a request that nobody waits for any more out of the table.
struct Forget<'a> {
    waiting: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(answers) = lock(self.waiting).answers.as_mut() {
            answers.remove(&self.id);
        }
    }
}

fn lock(waiting: &Shared) -> std::sync::MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever waits learns it by its sender being dropped. The first reason stays.
fn close(waiting: &Shared, reason: Option<String>) {
    let mut waiting = lock(waiting);
    if waiting.answers.take().is_some()
        && let Some(reason) = reason
    {
        waiting.reason = reason;
    }
}

/// Hands answers out until the connection ends; says why it ended.
async fn receive(
    stream: impl AsyncRead + Unpin,
    received: Option<Received>,
    waiting: &Shared,
) -> Option<String> {
    let mut frames = FrameReader::new(stream);
    loop {
        match frames.next().await {
            Ok(Some(frame)) => {
                let descriptor = received.as_ref().filter(|_| frame.descriptor).and_then(Received::take);
                if frame.descriptor && descriptor.is_none() {
                    return Some("a descriptor was announced and did not come".to_owned());
                }
                let asked = lock(waiting).answers.as_mut().and_then(|answers| answers.remove(&frame.id));
                if let Some(asked) = asked {
                    // Whoever asked may have gone since.
                    let _ = asked.send(Answer { frame, descriptor });
                }
            }
            Ok(None) => return Some("the agent closed it".to_owned()),
            Err(crate::frame::FrameError::Io(error)) => return Some(error.to_string()),
            Err(error) => return Some(error.to_string()),
        }
    }
}
