//! What one device takes.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use diptych_core::latency::LatencyHistogram;

/// With fewer measurements nothing is known.
const LEAST: u32 = 32;
/// Looks for which rows of a device go in frames of their own, once it was late: 20 s.
const APART_FOR: u32 = 40;

/// What a device is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Ranges of rows.
    Read,
    /// Rows that are to be durable.
    Write,
}

/// How many bytes of one row go with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// As few as the connection for small requests carries.
    Small,
    /// Up to a shard.
    Shard,
    /// More.
    Bulk,
}

impl Size {
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Shard, Self::Bulk];

    pub(crate) fn of(bytes: usize) -> Self {
        if bytes <= diptych_wire::client::SMALL {
            Self::Small
        } else if bytes <= diptych_core::layout::SHARD {
            Self::Shard
        } else {
            Self::Bulk
        }
    }
}

/// Durations of one operation on bytes of one size.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    histogram: LatencyHistogram,
    /// Microseconds as of the last look; 0: too little is known.
    p90: AtomicU64,
    p99: AtomicU64,
    expected: AtomicU64,
}

impl Meter {
    pub(crate) fn record(&self, took: Duration) {
        self.histogram.record(took);
    }

    /// As of the last look. None: too little is known.
    pub(crate) fn p90(&self) -> Option<Duration> {
        known(&self.p90)
    }

    /// As of the last look. None: too little is known.
    pub(crate) fn p99(&self) -> Option<Duration> {
        known(&self.p99)
    }

    /// What nearly no answer should take, as of the last look. None: too little is known.
    pub(crate) fn expected(&self) -> Option<Duration> {
        known(&self.expected)
    }

    pub(super) fn expect(&self, expected: Option<Duration>) {
        self.expected.store(micros(expected), Ordering::Relaxed);
    }

    pub(super) fn look(&self, halve: bool) {
        if halve {
            self.histogram.halve();
        }
        let found = self.histogram.quantiles(LEAST);
        self.p90.store(micros(found.map(|found| found.p90)), Ordering::Relaxed);
        self.p99.store(micros(found.map(|found| found.p99)), Ordering::Relaxed);
    }
}

fn micros(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |duration| duration.as_micros() as u64)
}

fn known(micros: &AtomicU64) -> Option<Duration> {
    Some(micros.load(Ordering::Relaxed)).filter(|micros| *micros > 0).map(Duration::from_micros)
}

/// What one device takes, as this gateway sees it. Of rows of several devices in one frame each takes as long as the slowest.
#[derive(Debug, Default)]
pub(crate) struct DeviceLatency {
    reads: [Meter; Size::ALL.len()],
    writes: [Meter; Size::ALL.len()],
    slow: AtomicBool,
    apart: AtomicU32,
}

impl DeviceLatency {
    pub(crate) fn meter(&self, operation: Operation, size: Size) -> &Meter {
        match operation {
            Operation::Read => &self.reads[size as usize],
            Operation::Write => &self.writes[size as usize],
        }
    }

    /// Whether enough was measured of reads and of writes.
    pub(crate) fn is_known(&self) -> bool {
        let any = |meters: &[Meter]| meters.iter().any(|meter| meter.p99().is_some());
        any(&self.reads) && any(&self.writes)
    }

    /// Whether reads go around it where enough other rows are there. Nothing is measured then, what was is forgotten, and it is tried
    /// again.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    pub(super) fn set_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
    }

    /// A row was not durable in time, on it or on another device of the same frame.
    pub(crate) fn note_late(&self) {
        self.apart.store(APART_FOR, Ordering::Relaxed);
    }

    /// Whether its rows go in frames of their own, so that it is known who is late.
    pub(crate) fn goes_apart(&self) -> bool {
        self.apart.load(Ordering::Relaxed) > 0 || self.is_slow()
    }

    pub(super) fn look(&self, halve: bool) {
        self.reads.iter().chain(&self.writes).for_each(|meter| meter.look(halve));
        self.apart.store(self.apart.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
}
