//! An extent's bytes into its rows, stripe by stripe: work for the CPU, kept off the reactor by its callers.

use bytes::Bytes;
use diptych_core::erasure::Encoder;
use diptych_core::ids::Row;
use diptych_core::layout::StripeBuilder;

use crate::error::{GatewayError, Result};

/// One stripe's shard of each row, in order of the rows.
pub(crate) type Shards = Vec<Bytes>;

/// Codes one extent. Holds at most one stripe.
pub struct ExtentCoder {
    builder: StripeBuilder,
    encoder: Encoder,
    hasher: blake3::Hasher,
}

/// What is known of an extent once all its bytes are there.
#[derive(Debug, Clone)]
pub struct CodedExtent {
    /// The last stripe, if the one before was not the last.
    pub last: Option<Shards>,
    /// Bytes, the tail with them.
    pub length: u32,
    /// BLAKE3 of them.
    pub hash: [u8; 32],
}

impl ExtentCoder {
    /// For these rows of a code that needs `needed`.
    pub fn new(needed: u8, rows: &[Row]) -> Result<Self> {
        let encoder = Encoder::new(needed, rows.iter().copied())
            .map_err(|error| GatewayError::NotReady(format!("the coding plan can't be used: {error}")))?;
        Ok(Self { builder: StripeBuilder::new(needed), encoder, hasher: blake3::Hasher::new() })
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.builder.extent_len()
    }

    /// Takes bytes; gives the stripes that they filled.
    pub fn push(&mut self, mut bytes: &[u8]) -> Vec<Shards> {
        self.hasher.update(bytes);
        let mut stripes = Vec::new();
        while !bytes.is_empty() {
            if let Some(stripe) = self.builder.push(&mut bytes) {
                stripes.push(self.encoder.encode(&stripe));
            }
        }
        stripes
    }

    /// The end of the extent.
    pub fn finish(mut self) -> Result<CodedExtent> {
        let length = u32::try_from(self.builder.extent_len())
            .map_err(|_| GatewayError::Internal("an extent has more than 4 GiB".to_owned()))?;
        let last = self.builder.finish().map(|stripe| self.encoder.encode(&stripe));
        Ok(CodedExtent { last, length, hash: self.hasher.finalize().into() })
    }
}
