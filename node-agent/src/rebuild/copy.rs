//! A row that moves: its own bytes are read where they are.
//!
//! It costs one row's reads instead of k, and what is known of the row does not change: each block's checksum is looked at when it
//! is read, and a row that lies about the extent lies on, until a read or a rebuild finds it out.

use diptych_core::ids::InstanceId;
use diptych_wire::agent::{AgentError, BeginRow, Rebuild};

use super::decode::{Failure, GROUP, RowReader};
use crate::agent::Agent;
use crate::pace::Pace;
use crate::rows::{invalid, row_len};

impl Agent {
    /// Copies the row where it is among the sources. None: it is not, or it can't be read.
    pub(super) async fn copied(&self, command: &Rebuild) -> Result<Option<InstanceId>, AgentError> {
        let Some(source) = command.sources.iter().find(|source| source.row == command.row) else {
            return Ok(None);
        };
        let reader = RowReader::new(self, &command.extent, source)?;
        match self.copy(command, &reader).await {
            Ok(instance) => Ok(Some(instance)),
            Err(Failure::Target(error)) => Err(error),
            Err(Failure::Row(_, error)) => {
                let (extent, row, node) = (command.extent.extent, command.row, &source.node);
                tracing::warn!(%extent, %row, %node, %error, "a row that shall move can't be read and is made anew");
                Ok(None)
            }
            Err(Failure::WrongHash) => Err(AgentError::WrongExtent),
        }
    }

    async fn copy(&self, command: &Rebuild, reader: &RowReader) -> Result<InstanceId, Failure> {
        let extent = &command.extent;
        let len = row_len(extent.needed, extent.length)?;
        let row = BeginRow { device: command.device, row: command.row, reserve: len };
        let mut target = self.target(command, row).await?;
        let mut pace = Pace::new(command.budget);
        let mut offset = 0;
        while let (true, None) = (offset < len, target.failure()) {
            let part = (len - offset).min(GROUP as u32);
            pace.spend(u64::from(part)).await;
            let bytes = reader.read(u64::from(offset), part).await.map_err(|error| Failure::Row(0, error))?;
            target.append(vec![(0, bytes)]).await?;
            offset += part;
        }
        if let Some(error) = target.failure() {
            return Err(error.into());
        }
        let mut sealed = target.seal(self, extent.length, extent.hash).await?;
        let instance = sealed.pop().unwrap_or_else(|| Err(invalid("no row was begun")))?;
        self.read_back(command, instance).await?;
        Ok(instance)
    }
}
