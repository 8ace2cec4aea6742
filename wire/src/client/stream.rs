//! Writing rows in pieces: all rows of one extent on one node, a window of unanswered appends, one seal.

use std::sync::Arc;

use bytes::Bytes;
use diptych_core::ids::InstanceId;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::{AgentClient, CallError};
use crate::agent::{Abandon, AgentError, Append, Begin, Seal, StreamId};

/// Rows that are being written. Dropped without a seal it is given up: the agent forgets what came.
#[derive(Debug)]
pub struct RowStream {
    client: AgentClient,
    connection: Arc<Connection>,
    stream: StreamId,
    appends: u32,
    unanswered: JoinSet<Result<Vec<(u16, AgentError)>, CallError>>,
    failed: Vec<Option<AgentError>>,
    open: bool,
}

impl RowStream {
    pub(super) async fn begin(
        client: &AgentClient,
        begin: &Begin,
    ) -> Result<(Self, Vec<Result<(), AgentError>>), CallError> {
        // One connection for all of a stream: its appends arrive in order.
        let connection = client.bulk_lane().connection().await?;
        let (reply, _) = connection.call(begin, vec![], client.inner.options.bulk).await?;
        let stream = Self {
            client: client.clone(),
            connection,
            stream: reply.stream,
            appends: 0,
            unanswered: JoinSet::new(),
            failed: reply.rows.iter().map(|row| row.as_ref().err().cloned()).collect(),
            open: true,
        };
        if reply.rows.len() == begin.rows.len() {
            Ok((stream, reply.rows))
        } else {
            Err(client.wrong("not one answer for each row"))
        }
    }

    /// By row: why it failed, if it did. Its bytes need not be sent any more.
    pub fn failed(&self) -> &[Option<AgentError>] {
        &self.failed
    }

    /// Sends the next bytes of rows (by their index at the beginning); all must fit one frame. Waits only while the
    /// window is full. An error ends the stream; rows that fail alone are in `failed`.
    pub async fn append(&mut self, pieces: Vec<(u16, Bytes)>) -> Result<(), CallError> {
        while self.unanswered.len() >= self.client.inner.options.window.max(1) {
            self.answered().await?;
        }
        let failed = |index: u16| self.failed.get(usize::from(index)).is_none_or(Option::is_some);
        let pieces: Vec<_> = pieces.into_iter().filter(|(index, _)| !failed(*index)).collect();
        if pieces.is_empty() {
            return Ok(());
        }
        let lengths = pieces.iter().map(|(index, bytes)| (*index, bytes.len() as u32)).collect();
        let payload = pieces.into_iter().map(|(_, bytes)| bytes).collect();
        let request = Append { stream: self.stream, sequence: self.appends, pieces: lengths };
        let (connection, limit) = (self.connection.clone(), self.client.inner.options.bulk);
        self.unanswered.spawn(async move { Ok(connection.call(&request, payload, limit).await?.0) });
        self.appends += 1;
        Ok(())
    }

    /// Waits for all appends, then makes the rows durable; by row, its instance.
    pub async fn seal(
        mut self,
        extent_len: u32,
        extent_hash: [u8; 32],
    ) -> Result<Vec<Result<InstanceId, AgentError>>, CallError> {
        while !self.unanswered.is_empty() {
            self.answered().await?;
        }
        let request = Seal { stream: self.stream, appends: self.appends, extent_len, extent_hash };
        let (sealed, _) = self.connection.call(&request, vec![], self.client.inner.options.bulk).await?;
        self.open = false;
        self.client.counted(sealed, self.failed.len())
    }

    /// Gives the rows up.
    pub async fn abandon(mut self) -> Result<(), CallError> {
        self.open = false;
        self.unanswered.abort_all();
        let request = Abandon { stream: self.stream };
        let answered = self.connection.call(&request, vec![], self.client.inner.options.call).await;
        answered.map(|((), _)| ())
    }

    async fn answered(&mut self) -> Result<(), CallError> {
        let Some(joined) = self.unanswered.join_next().await else {
            return Ok(());
        };
        let failures = joined.map_err(|error| self.client.wrong(&error.to_string()))??;
        for (index, error) in failures {
            if let Some(failed) = self.failed.get_mut(usize::from(index)) {
                failed.get_or_insert(error);
            }
        }
        Ok(())
    }
}

impl Drop for RowStream {
    fn drop(&mut self) {
        if self.open && self.connection.is_open() {
            let (connection, request) = (self.connection.clone(), Abandon { stream: self.stream });
            let limit = self.client.inner.options.call;
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                // If it does not arrive, the agent gives the stream up by itself after a while.
                runtime.spawn(async move { connection.call(&request, vec![], limit).await.map(|_| ()) });
            }
        }
    }
}
