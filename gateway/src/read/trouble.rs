//! What is wrong with the rows of one extent, while it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use diptych_core::ids::Row;

/// Why rows were not used, by row.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    reasons: Mutex<BTreeMap<Row, String>>,
    waiting: Mutex<BTreeSet<Row>>,
}

impl Trouble {
    pub(super) fn note(&self, row: Row, reason: String) {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).insert(row, reason);
    }

    pub(super) fn reason(&self, row: Row) -> Option<String> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).get(&row).cloned()
    }

    pub(super) fn is_bad(&self, row: Row) -> bool {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&row)
    }

    pub(super) fn set_waiting(&self, rows: impl Iterator<Item = Row>, waiting: bool) {
        let mut set = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            if waiting {
                set.insert(row)
            } else {
                set.remove(&row)
            };
        }
    }

    pub(super) fn slow(&self) -> BTreeSet<Row> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn reasons(&self) -> BTreeMap<Row, String> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
