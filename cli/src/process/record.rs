//! The lease's record beside the public name: the third choice of witness.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diptych_cloudflare::client::{Error, RecordId};
use diptych_cloudflare::witness::{
    LeaseRecord, NameFlip, Nonce as RecordNonce, RecordWitness as Calls, Swap, WitnessError,
};
use diptych_core::ids::KeeperNumber;
use diptych_core::lease::{Millis, Nonce, SwapResult, Token, WitnessRead, WitnessRecord};
use diptych_site::keeper::witness::Witness;
use diptych_site::name::NameTrouble;
use diptych_wire::http::chain;

use super::name::CloudflareName;

/// The lease's record beside the public name. A name that is records itself is flipped in the batch that swaps it.
pub(super) struct RecordWitness {
    name: Arc<CloudflareName>,
}

impl RecordWitness {
    pub(super) fn new(name: Arc<CloudflareName>) -> Self {
        Self { name }
    }

    async fn calls(&self) -> Result<Calls, NameTrouble> {
        let zone = self.name.zone().await?;
        let target = self.name.target();
        Ok(Calls::new(self.name.client().clone(), zone, &target.hostname, target.owner.clone()))
    }
}

/// Keeper and count fit 32 bits each for as long as a cluster lives.
fn to_record(record: &WitnessRecord) -> LeaseRecord {
    let Nonce { seed, keeper, number } = record.nonce;
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&seed.to_be_bytes());
    nonce[8..12].copy_from_slice(&(keeper.0 as u32).to_be_bytes());
    nonce[12..].copy_from_slice(&(number as u32).to_be_bytes());
    LeaseRecord { epoch: record.epoch, site: record.site.clone(), nonce: RecordNonce(nonce) }
}

fn from_record(record: LeaseRecord) -> WitnessRecord {
    let number = |range: std::ops::Range<usize>| {
        record.nonce.0[range].iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte))
    };
    let nonce = Nonce { seed: number(0..8), keeper: KeeperNumber(number(8..12)), number: number(12..16) };
    WitnessRecord { epoch: record.epoch, site: record.site, nonce }
}

fn limited(error: &WitnessError) -> Option<Millis> {
    match error {
        WitnessError::Call(Error::RateLimited { retry_after, .. }) => Some(millis(*retry_after)),
        _ => None,
    }
}

const fn millis(length: Duration) -> Millis {
    Millis(length.as_millis() as u64)
}

fn unread(limited: Option<Millis>) -> WitnessRead {
    limited.map_or(WitnessRead::Failed, |retry_after| WitnessRead::RateLimited { retry_after })
}

#[async_trait]
impl Witness for RecordWitness {
    async fn read(&self) -> WitnessRead {
        let calls = match self.calls().await {
            Ok(calls) => calls,
            Err(trouble) => {
                tracing::warn!(reason = trouble.message, "the witness can't be read");
                return unread(trouble.retry_after.map(millis));
            }
        };
        match calls.read().await {
            Ok(Some(held)) => {
                WitnessRead::Found { token: Token(held.token.0), record: from_record(held.record) }
            }
            Ok(None) => WitnessRead::Absent,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the witness can't be read");
                unread(limited(&error))
            }
        }
    }

    async fn swap(&self, token: Option<Token>, record: WitnessRecord, with_name: bool) -> SwapResult {
        let Ok(calls) = self.calls().await else { return SwapResult::Lost };
        let token = token.map(|token| RecordId(token.0));
        let flip = with_name.then(|| self.name.records()).flatten();
        match calls.swap(token.as_ref(), &to_record(&record), flip).await {
            Ok(Swap::Won { token, name }) => {
                if let NameFlip::Failed(error) = name {
                    tracing::warn!(
                        error = chain(&error),
                        "the name was not flipped with the swap; it is tried by itself"
                    );
                }
                SwapResult::Won { token: Token(token.0) }
            }
            Ok(Swap::Lost) => SwapResult::Lost,
            Err(error) => {
                tracing::warn!(error = chain(&error), "a swap of the witness's record failed");
                // FENCING (one valid holder): what may have been applied is never taken for lost.
                match limited(&error) {
                    Some(retry_after) => SwapResult::RateLimited { retry_after },
                    None if error.may_be_applied() => SwapResult::Unknown,
                    None => SwapResult::Lost,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use diptych_core::ids::Epoch;

    use super::*;

    #[test]
    fn a_record_reads_back_with_its_nonce() {
        let nonce = Nonce { seed: 0xdead_beef_0123_4567, keeper: KeeperNumber(7), number: 99 };
        let record = WitnessRecord { epoch: Epoch(3), site: "west".parse().unwrap(), nonce };
        assert_eq!(from_record(to_record(&record)), record);
    }
}
