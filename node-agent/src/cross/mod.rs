//! Bringing an extent over from the other site: its bytes come once, its hash is checked, this site's rows are made
//! from them without any key, and sealed only then.

mod fetch;
mod sink;
mod whole;

use bytes::Bytes;
use diptych_core::erasure::Encoder;
use diptych_core::layout::{Stripe, StripeBuilder};
use diptych_wire::agent::{AgentError, Cross, CrossedRow};

use crate::agent::Agent;
use crate::pace::Pace;
use crate::rows::{invalid, row_len};
use fetch::Fetch;
use sink::Sinks;

impl Agent {
    /// FENCING: a row is sealed only after the extent's hash was checked, and answered only once it is durable; the
    /// placement and the removal of the `n/` key rest on this answer.
    pub(crate) async fn cross(&self, command: Cross) -> Result<Vec<CrossedRow>, AgentError> {
        self.fence.pass(command.stamp, Some(command.map_generation))?;
        let extent = &command.extent;
        let reserve = row_len(extent.needed, extent.length)?;
        if command.targets.len() < usize::from(extent.needed) {
            return Err(invalid(format!("{} rows would not make the site whole", command.targets.len())));
        }
        let _place = self.tasks.acquire().await.map_err(|_| AgentError::ShuttingDown)?;
        let encoder = Encoder::new(extent.needed, command.targets.iter().map(|target| target.row))
            .map_err(|error| invalid(error.to_string()))?;
        let mut fetch = Fetch::new(&self.siblings, extent, &command.doors)?;
        let mut pace = Pace::new(command.budget);
        let mut work =
            Work { hasher: blake3::Hasher::new(), builder: StripeBuilder::new(extent.needed), encoder };
        let mut way = if extent.length <= whole::WHOLE {
            whole::enough(self, &command).await?;
            Way::Whole(Vec::new())
        } else {
            Way::Streams(Sinks::begin(self, &command, reserve).await?)
        };
        while let Some(bytes) = fetch.next().await? {
            pace.spend(bytes.len() as u64).await;
            let (back, stripes) = blocking(move || work.take(&bytes)).await?;
            work = back;
            for shards in stripes {
                way.append(shards).await?;
            }
        }
        if work.hasher.finalize().as_bytes() != &extent.hash {
            tracing::error!(extent = %extent.extent, "the other site's bytes do not have the extent's hash");
            return Err(AgentError::WrongExtent);
        }
        if let Some(last) = work.builder.finish() {
            way.append(work.encoder.encode(&last)).await?;
        }
        match way {
            Way::Whole(stripes) => whole::place(self, &command, stripes).await,
            Way::Streams(sinks) => sinks.seal(self, &command).await,
        }
    }
}

/// Where the shards of stripes go.
enum Way {
    /// Kept until the hash was checked.
    Whole(Vec<Vec<Bytes>>),
    /// To the devices as they come.
    Streams(Sinks),
}

impl Way {
    async fn append(&mut self, shards: Vec<Bytes>) -> Result<(), AgentError> {
        match self {
            Self::Whole(stripes) => stripes.push(shards),
            Self::Streams(sinks) => sinks.append(shards).await?,
        }
        Ok(())
    }
}

/// What is kept between two pieces of the extent.
struct Work {
    hasher: blake3::Hasher,
    builder: StripeBuilder,
    encoder: Encoder,
}

impl Work {
    /// Hashes a piece and codes the stripes that it filled.
    fn take(mut self, bytes: &Bytes) -> (Self, Vec<Vec<Bytes>>) {
        self.hasher.update(bytes);
        let mut stripes: Vec<Stripe> = Vec::new();
        let mut input = &bytes[..];
        while !input.is_empty() {
            stripes.extend(self.builder.push(&mut input));
        }
        let rows = stripes.iter().map(|stripe| self.encoder.encode(stripe)).collect();
        (self, rows)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AgentError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| AgentError::Internal { reason: error.to_string() })
}
