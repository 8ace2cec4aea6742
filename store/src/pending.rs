//! The answer of a group commit, to be awaited or waited for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::StoreError;

/// Comes true when the device's committer has synced the disk and then the index; never before.
///
/// Dropping it does not undo the write: the outcome is then unknown to the caller.
#[derive(Debug)]
#[must_use = "until it answers, nothing is known to be durable"]
pub struct Pending<T> {
    answer: oneshot::Receiver<Result<T, StoreError>>,
}

impl<T> Pending<T> {
    pub(crate) fn new() -> (Answer<T>, Self) {
        let (sender, answer) = oneshot::channel();
        (Answer(sender), Self { answer })
    }

    /// Waits on this thread.
    ///
    /// # Panics
    /// On a thread that runs async tasks: await it there.
    pub fn wait(self) -> Result<T, StoreError> {
        self.answer.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| answer.unwrap_or(Err(StoreError::Closed)))
    }
}

/// The committer's end of a [`Pending`].
#[derive(Debug)]
pub(crate) struct Answer<T>(oneshot::Sender<Result<T, StoreError>>);

impl<T> Answer<T> {
    /// Nobody may be waiting any more, which is fine.
    pub(crate) fn give(self, outcome: Result<T, StoreError>) {
        drop(self.0.send(outcome));
    }
}
