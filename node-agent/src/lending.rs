//! Rows that a gateway on this machine reads by itself: where they lie, and the files that they lie in (docs/adr/0023).

use std::os::fd::OwnedFd;

use diptych_wire::agent::{AgentError, Lend, Locate, RowAt, RowPlace};

use crate::agent::Agent;
use crate::rows::invalid;

/// Rows that one request may ask for.
const MOST: usize = 256;

impl Agent {
    pub(crate) async fn locate(
        &self,
        request: Locate,
    ) -> Result<Vec<Result<Option<RowPlace>, AgentError>>, AgentError> {
        if request.items.len() > MOST {
            return Err(invalid(format!("{} rows in one request, {MOST} can be", request.items.len())));
        }
        let located = request.items.into_iter().map(|at| self.locate_one(at));
        Ok(futures::future::join_all(located).await)
    }

    async fn locate_one(&self, at: RowAt) -> Result<Option<RowPlace>, AgentError> {
        let RowAt { device, extent, row, instance } = at;
        let instance =
            instance.ok_or_else(|| invalid("a row that is read where it lies needs its instance"))?;
        let slot = self.devices.find(device)?;
        let place = slot.with(move |device| device.row_place(extent, row, Some(instance))).await?;
        Ok(place.map(|place| RowPlace { segment: place.segment, offset: place.offset, len: place.row_bytes }))
    }

    /// The agent does not remember what it lent: whoever has it reads no longer than docs/adr/0023 says.
    pub(crate) async fn lend(&self, request: Lend) -> Result<OwnedFd, AgentError> {
        let Lend { device, segment } = request;
        let slot = self.devices.find(device)?;
        let lent = slot.with(move |device| device.lend(segment)).await?;
        lent.ok_or(AgentError::NotFound)
    }
}
