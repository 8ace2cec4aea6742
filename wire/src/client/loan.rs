//! Files that an agent on this machine lends, and where rows lie in them (docs/adr/0023).

use std::fs::File;
use std::time::{Duration, Instant};

use diptych_core::ids::DeviceId;
use tokio_util::sync::CancellationToken;

use super::{AgentClient, CallError};
use crate::agent::{AgentError, Lend, Locate, RowAt, RowPlace};

/// A loan ends after this: for no longer is a device read that its agent has closed, or the room of a segment kept that it has unlinked.
const LIFE: Duration = Duration::from_secs(10);

/// The file of a segment, lent for reading.
#[derive(Debug)]
pub struct Loan {
    file: File,
    given: Instant,
    connection_ended: CancellationToken,
}

impl Loan {
    /// The segment.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// When it was asked for.
    pub const fn given(&self) -> Instant {
        self.given
    }

    /// Whether it may be read: not for long, and no longer than the connection is open by which it came, which ends with the agent.
    pub fn is_good(&self) -> bool {
        self.given.elapsed() < LIFE && !self.connection_ended.is_cancelled()
    }
}

impl AgentClient {
    /// Where rows lie in the files of their devices; None: the device lends nothing. Fails where the agent is not on this machine.
    pub async fn locate(
        &self,
        items: Vec<RowAt>,
    ) -> Result<Vec<Result<Option<RowPlace>, AgentError>>, CallError> {
        let count = items.len();
        let connection = self.inner.lender.connection().await?;
        let (places, _) = connection.call(&Locate { items }, Vec::new(), self.inner.options.call).await?;
        self.counted(places, count)
    }

    /// Borrows the file of a segment. Fails where the agent is not on this machine.
    pub async fn borrow(&self, device: DeviceId, segment: u64) -> Result<Loan, CallError> {
        let connection = self.inner.lender.connection().await?;
        // Counted from when it was asked for.
        let (given, connection_ended) = (Instant::now(), connection.ended());
        let ((), file) = connection.borrow(&Lend { device, segment }, self.inner.options.call).await?;
        Ok(Loan { file: file.into(), given, connection_ended })
    }
}
