//! The third voter, from a keeper's side: a record with compare-and-set.

use async_trait::async_trait;
use diptych_core::lease::{SwapResult, Token, WitnessRead, WitnessRecord};

/// A place for one record. No implementation tries anything again: an unclear answer is `Unknown`, and the state machine
/// reads for its own nonce.
#[async_trait]
pub trait Witness: Send + Sync + 'static {
    /// The record as it is.
    async fn read(&self) -> WitnessRead;

    /// Why it can't be used, for a person; None: it can, or it does not say.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Writes `record` if the record's token is `token` (None: if there is no record). `with_name`: flips the public name in
    /// the same call where the witness can.
    async fn swap(&self, token: Option<Token>, record: WitnessRecord, with_name: bool) -> SwapResult;
}
