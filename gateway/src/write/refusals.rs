//! Why rows were not taken, for the answer to a write that fails of it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

/// More than so many tell a client nothing new.
const TOLD: usize = 4;

/// What nodes and devices said, each once.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeSet<String>>);

impl Refusals {
    /// Keeps what was said.
    pub(crate) fn note(&self, error: &impl Display) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(error.to_string());
    }

    /// The reason, and what was said.
    pub(crate) fn explain(&self, reason: String) -> String {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().take(TOLD).fold(reason, |reason, said| format!("{reason}; {said}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_stands_behind_the_reason_once() {
        let refusals = Refusals::default();
        refusals.note(&"device 3 is full");
        refusals.note(&"device 3 is full");
        assert_eq!(refusals.explain("too few".to_owned()), "too few; device 3 is full");
    }
}
