//! Confirmation: what etcd says is the newest revision, asked once for all who wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_core::records::Position;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::client::Etcd;
use crate::CatalogError;
use crate::disk::{Disk, unavailable};

type Answer = Result<Position, CatalogError>;

/// Asks etcd; one question at a time.
#[derive(Debug)]
pub(super) struct Confirmer {
    waiting: mpsc::UnboundedSender<oneshot::Sender<Answer>>,
    last: watch::Receiver<Option<(Instant, Position)>>,
}

impl Confirmer {
    /// Ends when it is dropped.
    pub(super) fn start(etcd: Etcd, disk: Arc<Disk>, restart: Arc<Notify>) -> Self {
        let (waiting, waiters) = mpsc::unbounded_channel();
        let (answered, last) = watch::channel(None);
        tokio::spawn(Asker { etcd, disk, restart, answered }.run(waiters));
        Self { waiting, last }
    }

    /// What was the newest position when it was asked for last, if that is no longer ago than `within`.
    pub(super) fn last(&self, within: Duration) -> Option<Position> {
        let last = *self.last.borrow();
        last.filter(|(asked, _)| asked.elapsed() < within).map(|(_, position)| position)
    }

    /// The newest position of etcd, confirmed after this was called.
    pub(super) async fn confirm(&self) -> Answer {
        let (answer, answered) = oneshot::channel();
        let closed = || unavailable("it was closed");
        self.waiting.send(answer).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

struct Asker {
    etcd: Etcd,
    disk: Arc<Disk>,
    restart: Arc<Notify>,
    answered: watch::Sender<Option<(Instant, Position)>>,
}

impl Asker {
    async fn run(self, mut waiters: mpsc::UnboundedReceiver<oneshot::Sender<Answer>>) {
        while let Some(first) = waiters.recv().await {
            // FENCING: the question is sent after all whom it answers came; who comes later waits for the next.
            let mut asking = vec![first];
            while let Ok(next) = waiters.try_recv() {
                asking.push(next);
            }
            let answer = self.ask().await;
            for waiter in asking {
                let _: Result<(), Answer> = waiter.send(answer.clone());
            }
        }
    }

    async fn ask(&self) -> Answer {
        let known = self.disk.tip()?;
        let asked = Instant::now();
        let confirmed = self.etcd.confirm().await?;
        // FENCING: an etcd that was restored under a running process must not have the mirror pass for its contents.
        if confirmed.incarnation == known.incarnation && confirmed.revision < known.revision {
            self.restart.notify_one();
            return Err(unavailable(format!(
                "etcd is at revision {}, its mirror had {} from it: it was restored, the mirror begins anew",
                confirmed.revision, known.revision
            )));
        }
        self.answered.send_replace(Some((asked, confirmed)));
        Ok(confirmed)
    }
}
