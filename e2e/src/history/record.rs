//! What is recorded: one JSON object a line, which e2e/history-checker reads. Times are nanoseconds of one monotonic clock, that of the
//! recorder's process.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "does", rename_all = "lowercase")]
pub(super) enum Action {
    /// Reads.
    Get,
    /// Writes whatever is there.
    Put { writes: u64 },
    /// Deletes, also what is not there.
    Delete,
    /// Writes if nothing is there.
    Create { writes: u64 },
    /// Writes if a certain value is there.
    Replace { expects: u64, writes: u64 },
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// It took effect.
    Ok,
    /// It found another state than it asked for, and wrote nothing.
    Refused,
    /// It surely did nothing.
    Failed,
    /// It may take effect at any moment after its call, or never.
    Unknown,
}

/// One request of one client.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Operation<'a> {
    /// Its key.
    pub register: &'a str,
    /// Who: one that goes on after an unknown outcome is another, as what it began may still be under way.
    pub client: u64,
    /// What.
    #[serde(flatten)]
    pub action: Action,
    /// What a get found; 0: no object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began.
    pub call: u64,
    /// When its end was known.
    pub r#return: u64,
}

/// A line.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Line<'a> {
    /// The first one.
    Run { acknowledge: &'a str, seed: u64 },
    /// A request.
    Operation(Operation<'a>),
    /// The lease changed hands: the term before was seen last at `after`, this one first at `at`. From `back` on the site that lost it may
    /// have been there again.
    Term { epoch: u64, site: &'a str, planned: bool, after: u64, at: u64, back: u64 },
    /// A value is kept as a conflict version.
    Conflict { register: &'a str, value: u64 },
    /// An entry of the ledger, and how it ended.
    Ledger { register: &'a str, entry: &'a str, settled: Option<&'a str> },
    /// Both sites had all of each other, and no client was under way.
    Settled { at: u64 },
}

/// Writes a history.
pub(super) struct Recorder {
    begun: Instant,
    file: Mutex<BufWriter<File>>,
    acknowledged: AtomicU64,
}

impl Recorder {
    /// Begins a file.
    pub(super) fn new(path: &Path, acknowledge: &str, seed: u64) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("{} can't be written", path.display()))?;
        let recorder = Self {
            begun: Instant::now(),
            file: Mutex::new(BufWriter::new(file)),
            acknowledged: AtomicU64::new(0),
        };
        recorder.line(&Line::Run { acknowledge, seed })?;
        Ok(recorder)
    }

    /// Nanoseconds since it began.
    pub(super) fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// Nanoseconds from its begin to some other time.
    pub(super) fn at(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Adds a line.
    pub(super) fn line(&self, line: &Line<'_>) -> Result<()> {
        if let Line::Operation(Operation { action, outcome: Outcome::Ok, .. }) = line
            && *action != Action::Get
        {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(file.write_all(&text)?)
    }

    /// Writes that were acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Everything is in the file.
    pub(super) fn flush(&self) -> Result<()> {
        Ok(self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()?)
    }
}
