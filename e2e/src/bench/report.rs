//! What was measured, as a table and as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::Goal;
use super::load::Outcome;

/// Whose figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Diptych.
    Ours,
    /// MinIO.
    Minio,
}

impl Side {
    /// For a person.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "diptych",
            Self::Minio => "minio",
        }
    }
}

/// One figure of one store.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// What the client said.
    #[serde(flatten)]
    pub(super) load: Outcome,
    /// All processes of the store together, at most.
    pub(super) memory_mib: u64,
}

/// A row of the table: both stores' figures of each round.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    op: &'static str,
    goal: Goal,
    ours: Vec<Measured>,
    minio: Vec<Measured>,
}

/// All rows.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    rows: Vec<Line>,
}

impl Report {
    /// Adds a figure of a round.
    pub(super) fn note(&mut self, name: &str, op: &'static str, goal: Goal, side: Side, measured: Measured) {
        let known = self.rows.iter().position(|line| line.name == name && line.op == op);
        let at = known.unwrap_or_else(|| {
            self.rows.push(Line { name: name.to_owned(), op, goal, ours: Vec::new(), minio: Vec::new() });
            self.rows.len() - 1
        });
        let line = &mut self.rows[at];
        match side {
            Side::Ours => line.ours.push(measured),
            Side::Minio => line.minio.push(measured),
        }
    }

    /// As Markdown: medians over the rounds, and the ratio of the medians.
    pub(super) fn render(&self) -> String {
        let mut text = String::from(
            "| | Diptych /s | MinIO /s | ratio | at least / aim | p99 ms, Diptych / MinIO | memory MiB, Diptych / MinIO |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for line in &self.rows {
            let ours = Medians::of(&line.ours);
            let minio = Medians::of(&line.minio);
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {} {} | {:.1} | {:.1} | {:.2} | {} / {} | {:.2} / {:.2} | {:.0} / {:.0} |",
                line.op,
                line.name,
                ours.ops_per_s,
                minio.ops_per_s,
                ours.ops_per_s / minio.ops_per_s,
                line.goal.at_least,
                line.goal.aim,
                ours.p99_ms,
                minio.p99_ms,
                ours.memory_mib,
                minio.memory_mib,
            );
        }
        text
    }
}

/// Over the rounds.
struct Medians {
    ops_per_s: f64,
    p99_ms: f64,
    memory_mib: f64,
}

impl Medians {
    fn of(rounds: &[Measured]) -> Self {
        let median = |of: fn(&Measured) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Self {
            ops_per_s: median(|round| round.load.ops_per_s),
            p99_ms: median(|round| round.load.p99_ms),
            memory_mib: median(|round| f64::from(u32::try_from(round.memory_mib).unwrap_or(u32::MAX))),
        }
    }
}
