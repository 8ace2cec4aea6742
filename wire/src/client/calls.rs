//! The calls of an agent, one typed method each.

use std::time::Duration;

use bytes::Bytes;
use diptych_core::ids::{DeviceId, ExtentId, Generation, InstanceId, Row, Stamp};
use diptych_core::records::ExtentKind;

use super::{AgentClient, CallError, RowStream};
use crate::agent::{
    AgentError, AgentStatus, Begin, Call, Cross, CrossedRow, Delete, Describe, DeviceKeyring, Format,
    GetKeyring, Inventory, InventoryPage, Metrics, Ping, PlaceRows, PutKeyring, Raise, Read, ReadItem,
    Rebuild, Rebuilt, RowAt, RowFacts, RowHead, Scrub, SealedKeyring, Status, Verified, Verify,
};

/// Bulk bytes that a list of rows, a status or a text may have.
const LISTING: usize = 1 << 20;

impl AgentClient {
    /// Whether the agent is there.
    pub async fn ping(&self) -> Result<(), CallError> {
        self.ask(&Ping {}, 0, self.inner.options.call).await
    }

    /// Tells the agent its site's epoch. From now on lower stamps are refused.
    pub async fn raise(&self, stamp: Stamp) -> Result<(), CallError> {
        self.ask(&Raise { stamp }, 0, self.inner.options.bulk).await
    }

    /// Writes whole rows; by row, its instance once it is durable. All of them must fit one frame.
    pub async fn place_rows(
        &self,
        stamp: Stamp,
        map_generation: Generation,
        rows: Vec<(RowHead, Bytes)>,
    ) -> Result<Vec<Result<InstanceId, AgentError>>, CallError> {
        let (rows, payload): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let count = rows.len();
        let request = PlaceRows { stamp, map_generation, rows };
        let placed = self.call(&request, payload, 0, self.inner.options.bulk).await?.0;
        self.counted(placed, count)
    }

    /// Begins to write rows of one extent in pieces; by row, whether it was begun.
    pub async fn begin(&self, begin: &Begin) -> Result<(RowStream, Vec<Result<(), AgentError>>), CallError> {
        RowStream::begin(self, begin).await
    }

    /// Reads a range of a row: exactly so many bytes, or an error.
    pub async fn read(&self, item: ReadItem) -> Result<Bytes, CallError> {
        let mut read = self.read_many(vec![item]).await?;
        read.pop()
            .map_or_else(|| Err(self.wrong("no answer to a range")), |bytes| bytes.map_err(CallError::Agent))
    }

    /// Reads ranges of rows in one frame: at most `frame::MAX_PAYLOAD` bytes together.
    pub async fn read_many(&self, items: Vec<ReadItem>) -> Result<Vec<Result<Bytes, AgentError>>, CallError> {
        let wanted: usize = items.iter().map(|item| item.len as usize).sum();
        let request = Read { items };
        let (lengths, mut payload) = self.call(&request, vec![], wanted, self.inner.options.bulk).await?;
        let lengths = self.counted(lengths, request.items.len())?;
        let mut read = Vec::with_capacity(lengths.len());
        for (length, item) in lengths.into_iter().zip(&request.items) {
            read.push(match length {
                Ok(length) if length == item.len && length as usize <= payload.len() => {
                    Ok(payload.split_to(length as usize))
                }
                Ok(_) => return Err(self.wrong("a range has another length than was asked for")),
                Err(error) => Err(error),
            });
        }
        Ok(read)
    }

    /// What a row is.
    pub async fn describe(&self, at: RowAt) -> Result<RowFacts, CallError> {
        self.ask(&Describe { at }, 0, self.inner.options.call).await
    }

    /// Reads a whole row from its device and checks it.
    pub async fn verify(&self, at: RowAt) -> Result<Verified, CallError> {
        self.ask(&Verify { at }, 0, self.inner.options.bulk).await
    }

    /// Deletes rows; `NotFound` is as good as done.
    pub async fn delete(
        &self,
        stamp: Stamp,
        items: Vec<RowAt>,
    ) -> Result<Vec<Result<(), AgentError>>, CallError> {
        let count = items.len();
        let deleted = self.ask(&Delete { stamp, items }, 0, self.inner.options.bulk).await?;
        self.counted(deleted, count)
    }

    /// A page of a device's records, in order of extent, row and instance; `kind`: only of extents that hold that.
    pub async fn inventory(
        &self,
        device: DeviceId,
        after: Option<(ExtentId, Row, InstanceId)>,
        kind: Option<ExtentKind>,
        limit: u32,
    ) -> Result<InventoryPage, CallError> {
        self.ask(&Inventory { device, after, kind, limit }, LISTING, self.inner.options.bulk).await
    }

    /// State of the agent and its devices.
    pub async fn status(&self) -> Result<AgentStatus, CallError> {
        self.ask(&Status {}, 0, self.inner.options.call).await
    }

    /// Scrubs one device or all. With `now` it waits for the end, `limit` at most.
    pub async fn scrub(&self, device: Option<DeviceId>, now: bool, limit: Duration) -> Result<(), CallError> {
        self.ask(&Scrub { device, now }, 0, limit).await
    }

    /// Has a lost row made from others and read back from the device; names sources that were wrong.
    pub async fn rebuild(&self, rebuild: &Rebuild, limit: Duration) -> Result<Rebuilt, CallError> {
        self.ask(rebuild, 0, limit).await
    }

    /// Has an extent fetched from the other site and this site's rows made; where they are.
    pub async fn cross(&self, cross: &Cross, limit: Duration) -> Result<Vec<CrossedRow>, CallError> {
        self.ask(cross, 0, limit).await
    }

    /// Keeps a keyring on every device.
    pub async fn put_keyring(&self, stamp: Stamp, keyring: SealedKeyring) -> Result<(), CallError> {
        self.ask(&PutKeyring { stamp, keyring }, 0, self.inner.options.bulk).await
    }

    /// The keyring of each device in use, read from the device.
    pub async fn get_keyrings(&self) -> Result<Vec<DeviceKeyring>, CallError> {
        self.ask(&GetKeyring {}, 0, self.inner.options.call).await
    }

    /// Makes an empty folder a device.
    pub async fn format(&self, format: &Format) -> Result<(), CallError> {
        self.ask(format, 0, self.inner.options.bulk).await
    }

    /// Counters and gauges, as Prometheus text.
    pub async fn metrics(&self) -> Result<String, CallError> {
        self.ask(&Metrics {}, LISTING, self.inner.options.call).await
    }

    /// A call without bulk bytes.
    async fn ask<C: Call>(&self, request: &C, answer: usize, limit: Duration) -> Result<C::Reply, CallError> {
        let (reply, _) = self.call(request, vec![], answer, limit).await?;
        Ok(reply)
    }

    pub(super) fn counted<T>(&self, answers: Vec<T>, asked: usize) -> Result<Vec<T>, CallError> {
        if answers.len() == asked { Ok(answers) } else { Err(self.wrong("not one answer for each item")) }
    }

    pub(super) fn wrong(&self, reason: &str) -> CallError {
        CallError::Protocol { node: self.inner.endpoint.node.to_string(), reason: reason.to_owned() }
    }
}
