//! The ledger: what was lost, kept aside or not done, and how it ended.

use diptych_core::keys;
use diptych_core::records::{LedgerEntry, Noted, Record, SettledAs};
use serde::{Deserialize, Serialize};

use super::Objects;
use super::conflicts::{begin_behind, buckets_of};
use crate::error::Result;

/// Entries of a page of a scan.
const PAGE: usize = 500;

/// An entry, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerLine {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Name of the bucket.
    pub bucket: String,
    /// The object's key.
    pub id: String,
    /// The version that it is about.
    pub version: Option<String>,
    /// `Lost`, `CameBack`, `DeleteNotDone`, `DiscardNotDone`, `MetadataNotDone`, `Conflict`, `Downgraded`, `Noted`.
    pub kind: String,
    /// The same as a sentence.
    pub what: String,
    /// Bytes of plaintext of a lost version.
    pub size: Option<u64>,
    /// The version that is head in place of a lost one.
    pub instead: Option<String>,
    /// Milliseconds since 1970 when a person accepted the loss.
    pub accepted_ms: Option<u64>,
    /// `Restored`, `KeptConflict`, `Discarded`, `Confirmed`; None: nothing has been decided.
    pub settled: Option<String>,
    /// Milliseconds since 1970 when it was.
    pub settled_ms: Option<u64>,
}

/// Some of them, the oldest term first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPage {
    /// They.
    pub entries: Vec<LedgerLine>,
    /// Where to go on; None: these are the last.
    pub next: Option<String>,
}

impl Objects {
    /// Up to `limit` entries about the buckets of a namespace, or one of them.
    pub async fn ledger(
        &self,
        namespace: &str,
        bucket: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<LedgerPage> {
        let view = self.context.view_for_client().await?;
        let names = buckets_of(view.as_ref(), namespace, bucket)?;
        let mut page = LedgerPage::default();
        let mut range = keys::ledger_entries();
        begin_behind(&mut range.start, after)?;
        loop {
            let scanned = view.scan(&range, PAGE)?;
            for (key, raw) in &scanned.entries {
                let entry = LedgerEntry::decode(raw)?;
                let Some(name) = names.get(&entry.bucket) else { continue };
                if page.entries.len() == limit {
                    page.next = Some(hex::encode(&key.0));
                    return Ok(page);
                }
                page.entries.push(line(name, &entry));
            }
            match scanned.next {
                Some(next) => range.start = next,
                None => return Ok(page),
            }
        }
    }
}

fn line(bucket: &str, entry: &LedgerEntry) -> LedgerLine {
    let (kind, what) = said(&entry.what);
    let (size, instead, accepted_ms) = match &entry.what {
        Noted::Lost { size, instead, accepted_ms } => (Some(*size), *instead, *accepted_ms),
        Noted::Sentence(_)
        | Noted::DeleteNotDone
        | Noted::DiscardNotDone
        | Noted::MetadataNotDone
        | Noted::Conflict
        | Noted::CameBack
        | Noted::Downgraded { .. } => (None, None, None),
    };
    let settled = entry.settled.map(|settled| match settled.outcome {
        SettledAs::Restored => "Restored",
        SettledAs::KeptConflict => "KeptConflict",
        SettledAs::Discarded => "Discarded",
        SettledAs::Confirmed => "Confirmed",
    });
    LedgerLine {
        at_ms: entry.at_ms,
        bucket: bucket.to_owned(),
        id: String::from_utf8_lossy(&entry.key).into_owned(),
        version: entry.version.map(|at| at.version.to_string()),
        kind: kind.to_owned(),
        what,
        size,
        instead: instead.map(|at| at.version.to_string()),
        accepted_ms,
        settled: settled.map(str::to_owned),
        settled_ms: entry.settled.map(|settled| settled.at_ms),
    }
}

fn said(what: &Noted) -> (&'static str, String) {
    match what {
        Noted::Sentence(sentence) => ("Noted", sentence.clone()),
        Noted::Lost { instead: Some(_), .. } => {
            ("Lost", "its bytes had not come when this site took over; the version before it is head again".to_owned())
        }
        Noted::Lost { instead: None, .. } => {
            ("Lost", "its bytes had not come when this site took over; there was nothing before it".to_owned())
        }
        Noted::DeleteNotDone => (
            "DeleteNotDone",
            "a delete that the newer term had not seen was not done: what it named is no longer head".to_owned(),
        ),
        Noted::MetadataNotDone => (
            "MetadataNotDone",
            "a change of metadata that the newer term had not seen was not done: what it named is no longer head"
                .to_owned(),
        ),
        Noted::DiscardNotDone => (
            "DiscardNotDone",
            "a delete by version id that the newer term had not seen was not done: the version is still there".to_owned(),
        ),
        Noted::Downgraded { .. } => (
            "Downgraded",
            "one site acknowledged it: the other one had not confirmed it in the time that its bucket says".to_owned(),
        ),
        Noted::CameBack => (
            "CameBack",
            "the newer term had not seen it and did not show it; it is in force again since the site that has it came back"
                .to_owned(),
        ),
        Noted::Conflict => (
            "Conflict",
            "the newer term had not seen it and had changed its key: it is kept as a conflict version for a person to restore or discard"
                .to_owned(),
        ),
    }
}
