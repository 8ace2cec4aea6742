//! The witness: one record, compare-and-set, a new token for each write.

use crate::lease::{SwapResult, Token, WitnessRead, WitnessRecord};

#[derive(Debug, Default)]
pub(super) struct Witness {
    pub(super) current: Option<(Token, WitnessRecord)>,
    pub(super) previous: Option<(Token, WitnessRecord)>,
    pub(super) writes: u64,
}

impl Witness {
    pub(super) fn read(&self, stale: bool) -> WitnessRead {
        let shown = if stale { &self.previous } else { &self.current };
        match shown.clone() {
            Some((token, record)) => WitnessRead::Found { token, record },
            None => WitnessRead::Absent,
        }
    }

    pub(super) fn swap(&mut self, expected: Option<&Token>, record: WitnessRecord) -> SwapResult {
        if self.current.as_ref().map(|current| &current.0) != expected {
            return SwapResult::Lost;
        }
        self.writes += 1;
        let token = Token(format!("t{}", self.writes));
        self.previous = self.current.replace((token.clone(), record));
        SwapResult::Won { token }
    }
}
