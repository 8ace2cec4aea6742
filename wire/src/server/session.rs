//! One connection of a server: greeting, then requests side by side.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::AsyncRead;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{Answer, Handler, Peer, Request, Server, Transport, count};
use crate::agent::{AgentError, Hello, Op};
use crate::descriptors::Outlet;
use crate::frame::{Frame, FrameError, FrameReader, Outgoing};
use crate::identity::Identity;
use crate::send::{Queued, send_all};

type Queue = mpsc::Sender<Queued<Option<OwnedSemaphorePermit>>>;

impl<H: Handler> Server<H> {
    /// Serves one connection to its end. `certified` is the identity of its certificate.
    pub(super) async fn session(
        self: &Arc<Self>,
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl Outlet + 'static,
        certified: Option<Identity>,
        transport: Transport,
    ) {
        self.counters.open.fetch_add(1, Ordering::Relaxed);
        let (queue, queued) = mpsc::channel(self.options.requests.max(1));
        let broken = CancellationToken::new();
        let breaks = broken.clone();
        self.tasks.spawn(async move {
            if let Err(error) = send_all(queued, write).await {
                tracing::debug!(%error, "answers can't be sent any more");
            }
            breaks.cancel();
        });
        let mut frames = FrameReader::new(read);
        let ended = tokio::select! {
            ended = self.converse(&mut frames, &queue, certified, transport) => ended,
            () = broken.cancelled() => Ok(()),
            () = self.shutdown.cancelled() => Ok(()),
        };
        match ended {
            Ok(()) => {}
            Err(error @ FrameError::Garbage(_)) => {
                count(&self.counters.garbage);
                tracing::warn!(?transport, %error, "connection closed");
            }
            Err(error) => tracing::debug!(?transport, %error, "connection closed"),
        }
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
    }

    async fn converse<R: AsyncRead + Unpin>(
        self: &Arc<Self>,
        frames: &mut FrameReader<R>,
        queue: &Queue,
        certified: Option<Identity>,
        transport: Transport,
    ) -> Result<(), FrameError> {
        let Some(peer) = self.greeting(frames, queue, certified, transport).await? else {
            return Ok(());
        };
        let peer = Arc::new(peer);
        let places = Arc::new(Semaphore::new(self.options.requests.max(1)));
        while let Some(frame) = frames.next().await? {
            let op = Op::from_number(frame.op)
                .filter(|_| !frame.answer && !frame.descriptor)
                .ok_or_else(|| FrameError::Garbage(format!("operation {} is unknown", frame.op)))?;
            let Ok(place) = places.clone().acquire_owned().await else {
                return Ok(());
            };
            // A frame is never larger than the whole budget, else it would wait for ever.
            let bytes = frame.len().min(self.options.bytes) as u32;
            let Ok(room) = self.bytes.clone().acquire_many_owned(bytes).await else {
                return Ok(());
            };
            count(&self.counters.requests);
            let (server, peer, queue) = (self.clone(), peer.clone(), queue.clone());
            self.tasks.spawn(async move {
                let Frame { id, meta, payload, .. } = frame;
                let answer = server.handler.handle(&peer, Request { op, meta, payload }).await;
                drop(room);
                send(&queue, op, id, answer).await;
                drop(place);
            });
        }
        Ok(())
    }

    /// None: the peer was refused, or went.
    async fn greeting<R: AsyncRead + Unpin>(
        &self,
        frames: &mut FrameReader<R>,
        queue: &Queue,
        certified: Option<Identity>,
        transport: Transport,
    ) -> Result<Option<Peer>, FrameError> {
        let Ok(first) = tokio::time::timeout(self.options.greeting, frames.next()).await else {
            self.refuse(&format!("{transport:?}"), "no greeting in time");
            return Ok(None);
        };
        let Some(frame) = first? else {
            return Ok(None);
        };
        if Op::from_number(frame.op) != Some(Op::Hello) || frame.answer {
            return Err(FrameError::Garbage("the first frame is no greeting".to_owned()));
        }
        let hello: Hello = frame.decode()?;
        let said = hello.sender.clone();
        let peer = Peer { identity: certified.unwrap_or_else(|| said.clone()), transport };
        let greeted = if peer.identity == said && said.cluster == hello.cluster {
            self.handler.greet(&peer, &hello).await
        } else {
            Err(AgentError::Denied { who: peer.identity.to_string(), op: format!("speak as {said}") })
        };
        send(queue, Op::Hello, frame.id, Answer::of(&greeted, Vec::new())).await;
        match greeted {
            Ok(_) => Ok(Some(peer)),
            Err(error) => {
                self.refuse(&peer.identity.to_string(), &error.to_string());
                Ok(None)
            }
        }
    }
}

async fn send(queue: &Queue, op: Op, id: u64, answer: Answer) {
    let Answer { meta, payload, descriptor, hold } = answer;
    let whole = Outgoing::of_encoded(op as u16, id, &meta, payload, descriptor.is_some());
    let queued = if let Some(frame) = whole {
        Some(Queued { frame, descriptor, hold })
    } else {
        let failed: Result<(), _> =
            Err(AgentError::Invalid { reason: "the answer is larger than a frame".to_owned() });
        Outgoing::new(op as u16, true, id, &failed, Vec::new()).map(|frame| Queued::new(frame, hold))
    };
    if let Some(queued) = queued {
        // If the connection has ended, nobody waits for it.
        let _ = queue.send(queued).await;
    }
}
