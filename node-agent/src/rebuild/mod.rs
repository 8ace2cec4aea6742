//! Making a lost row from k others, and finding out who lies.
//!
//! A row alone can't be checked against the extent's hash, so all data rows are decoded on the way, a few stripes at a
//! time, and hashed; the new row is sealed only if the hash comes out. If it does not, other sets of k rows are tried.

mod copy;
mod decode;

use std::collections::BTreeSet;

use diptych_core::erasure::combinations;
use diptych_core::ids::{InstanceId, Row};
use diptych_wire::agent::{AgentError, BeginRow, Rebuild, Rebuilt, RowAt, Source, Verify};

use crate::agent::Agent;
use crate::rows::{invalid, row_len};
use crate::siblings::sibling_error;
use crate::target::Target;
use decode::{Failure, RowReader, RowSet};

/// Sets of rows that are tried before the agent gives up.
const ATTEMPTS: usize = 64;

impl Agent {
    /// FENCING: stamp, then hash, then seal and sync, then read back from the device; only then the answer, on which
    /// the placement is changed and the old row deleted.
    pub(crate) async fn rebuild(&self, command: Rebuild) -> Result<Rebuilt, AgentError> {
        self.fence.pass(command.stamp, Some(command.map_generation))?;
        let extent = &command.extent;
        row_len(extent.needed, extent.length)?;
        let _place = self.tasks.acquire().await.map_err(|_| AgentError::ShuttingDown)?;
        if let Some(instance) = self.copied(&command).await? {
            return Ok(Rebuilt { instance, liars: Vec::new() });
        }
        let readers = self.readers(&command)?;
        let needed = usize::from(extent.needed);
        let mut lost = Lost::default();
        let mut wrong: Vec<Vec<usize>> = Vec::new();
        for set in combinations(readers.len(), needed).take(ATTEMPTS) {
            if set.iter().any(|index| lost.rows.contains(index)) {
                continue;
            }
            let chosen: Vec<&RowReader> = set.iter().map(|&index| &readers[index]).collect();
            match self.attempt(&command, &chosen).await {
                Ok(instance) => {
                    let liars = self.liars(&command, &readers, &set, &wrong, &lost).await;
                    return Ok(Rebuilt { instance, liars });
                }
                Err(Failure::WrongHash) => wrong.push(set),
                Err(Failure::Row(index, error)) => lost.add(set[index], &readers[set[index]].source, &error),
                Err(Failure::Target(error)) => return Err(error),
            }
        }
        if wrong.is_empty() {
            let present = (readers.len() - lost.rows.len()) as u8;
            return Err(AgentError::InsufficientRows {
                present,
                needed: extent.needed,
                reason: lost.reasons.join("; "),
            });
        }
        Err(AgentError::WrongExtent)
    }

    /// Readers of the sources, one for each row, in the order given.
    fn readers(&self, command: &Rebuild) -> Result<Vec<RowReader>, AgentError> {
        let mut rows: BTreeSet<Row> = [command.row].into();
        let sources = command.sources.iter().filter(|source| rows.insert(source.row));
        let readers: Vec<RowReader> =
            sources.map(|source| RowReader::new(self, &command.extent, source)).collect::<Result<_, _>>()?;
        let (present, needed) = (readers.len() as u8, command.extent.needed);
        if present < needed {
            let reason = "no more sources were named".to_owned();
            return Err(AgentError::InsufficientRows { present, needed, reason });
        }
        Ok(readers)
    }

    /// Makes the row from one set of k.
    async fn attempt(&self, command: &Rebuild, chosen: &[&RowReader]) -> Result<InstanceId, Failure> {
        let extent = &command.extent;
        let reserve = row_len(extent.needed, extent.length)?;
        let row = BeginRow { device: command.device, row: command.row, reserve };
        let mut target = self.target(command, row).await?;
        if let Some(error) = target.failure() {
            return Err(error.into());
        }
        let mut set = RowSet::new(extent, chosen, &[command.row], command.budget)?;
        while let Some(group) = set.next(true).await? {
            let made = group.made.into_iter().map(|bytes| (0, bytes)).collect();
            target.append(made).await?;
            if let Some(error) = target.failure() {
                return Err(error.into());
            }
        }
        if set.hash() != extent.hash {
            return Err(Failure::WrongHash);
        }
        let mut sealed = target.seal(self, extent.length, extent.hash).await?;
        let instance = sealed.pop().unwrap_or_else(|| Err(invalid("no row was begun")))?;
        self.read_back(command, instance).await?;
        Ok(instance)
    }

    /// The device that shall hold the row, of this agent or of an outside node's.
    async fn target(&self, command: &Rebuild, row: BeginRow) -> Result<Target, AgentError> {
        let (extent, stamp) = (&command.extent, command.stamp);
        match &command.far {
            None => Ok(Target::here(self, &extent.begin(stamp, command.map_generation, vec![row])).await),
            Some(far) => {
                let begin = extent.begin(stamp, far.map_generation, vec![row]);
                Target::there(self, (&far.site, &far.node, &far.address), &begin).await
            }
        }
    }

    /// What the *disk* has of the new row: every block, and the hash that it was sealed with.
    async fn read_back(&self, command: &Rebuild, instance: InstanceId) -> Result<(), AgentError> {
        let (extent, row, device) = (command.extent.extent, command.row, command.device);
        let at = RowAt { device, extent, row, instance: Some(instance) };
        let verified = match &command.far {
            None => self.verify(Verify { at }).await?,
            Some(far) => {
                let client = self.siblings.client(&far.site, &far.node, &far.address)?;
                client.verify(at).await.map_err(|error| sibling_error(&far.node, error))?
            }
        };
        let len = u64::from(row_len(command.extent.needed, command.extent.length)?);
        if verified.row_len == len && verified.extent_hash == command.extent.hash {
            return Ok(());
        }
        Err(AgentError::Rotten { device })
    }

    /// Rows of the sets that did not come out, which are not what the good set makes of them.
    async fn liars(
        &self,
        command: &Rebuild,
        readers: &[RowReader],
        good: &[usize],
        wrong: &[Vec<usize>],
        lost: &Lost,
    ) -> Vec<Source> {
        let suspects: BTreeSet<usize> = wrong.iter().flatten().copied().collect();
        let suspects =
            suspects.into_iter().filter(|index| !good.contains(index) && !lost.rows.contains(index));
        let mut liars = Vec::new();
        for suspect in suspects {
            let good: Vec<&RowReader> = good.iter().map(|&index| &readers[index]).collect();
            let reader = &readers[suspect];
            if let Ok(false) = reader.agrees(&command.extent, &good, command.budget).await {
                let Source { node, device, row, .. } = &reader.source;
                tracing::error!(
                    extent = %command.extent.extent, %row, %node, %device,
                    "a row is wrong although its checksums are right"
                );
                liars.push(reader.source.clone());
            }
        }
        liars
    }
}

/// Sources that could not be read.
#[derive(Default)]
struct Lost {
    rows: BTreeSet<usize>,
    reasons: Vec<String>,
}

impl Lost {
    fn add(&mut self, index: usize, source: &Source, error: &AgentError) {
        tracing::warn!(row = %source.row, node = %source.node, %error, "a row for a rebuild can't be read");
        if self.rows.insert(index) {
            self.reasons.push(format!("row {} on {}: {error}", source.row, source.node));
        }
    }
}

/// Where a source's row is.
pub(crate) fn place_of(extent: diptych_core::ids::ExtentId, source: &Source) -> RowAt {
    RowAt { device: source.device, extent, row: source.row, instance: Some(source.instance) }
}
