//! What was measured, as tables and as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::load::Outcome;

/// What a ratio has to reach, and what it is meant to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Goal {
    /// Less is a defect.
    pub(super) at_least: f64,
    /// What we are after.
    pub(super) aim: f64,
}

/// One figure.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// What the client said.
    #[serde(flatten)]
    pub(super) load: Outcome,
    /// All processes of the store together, at most.
    pub(super) memory_mib: u64,
}

/// Two that are measured beside each other: the first is divided by the second.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    title: &'static str,
    columns: [&'static str; 2],
    rows: Vec<Line>,
}

/// A row of a table: both columns' figures of each round.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    goal: Option<Goal>,
    figures: [Vec<Measured>; 2],
}

impl Table {
    /// Without rows.
    pub(super) const fn new(title: &'static str, columns: [&'static str; 2]) -> Self {
        Self { title, columns, rows: Vec::new() }
    }

    /// Adds a figure of a round, and tells a person.
    pub(super) fn note(&mut self, name: String, goal: Option<Goal>, column: usize, measured: Measured) {
        let Measured { load, memory_mib } = &measured;
        super::say(&format!(
            "{:12} {name:20} {:9.1}/s {:8.1} MiB/s p50 {:7.2} ms p99 {:7.2} ms {memory_mib:5} MiB",
            self.columns[column], load.ops_per_s, load.mib_per_s, load.p50_ms, load.p99_ms,
        ));
        let known = self.rows.iter().position(|line| line.name == name);
        let at = known.unwrap_or_else(|| {
            self.rows.push(Line { name, goal, figures: [Vec::new(), Vec::new()] });
            self.rows.len() - 1
        });
        self.rows[at].figures[column].push(measured);
    }

    /// Whether nothing was measured.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As Markdown: medians over the rounds, and the ratio of the medians.
    pub(super) fn render(&self) -> String {
        let [first, second] = self.columns;
        let mut text = format!(
            "{}\n\n| | {first} /s | {second} /s | ratio | at least / aim | p99 ms, {first} / {second} | memory MiB, {first} / {second} |\n\
             |---|---|---|---|---|---|---|\n",
            self.title
        );
        for line in &self.rows {
            let [first, second] = [0, 1].map(|column| Medians::of(&line.figures[column]));
            let goal =
                line.goal.map_or_else(|| "-".to_owned(), |goal| format!("{} / {}", goal.at_least, goal.aim));
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {goal} | {} / {} | {} / {} |",
                line.name,
                shown(first.ops_per_s, 1),
                shown(second.ops_per_s, 1),
                shown(first.ops_per_s / second.ops_per_s, 2),
                shown(first.p99_ms, 2),
                shown(second.p99_ms, 2),
                shown(first.memory_mib, 0),
                shown(second.memory_mib, 0),
            );
        }
        text
    }
}

/// What was not measured is not made up.
fn shown(value: f64, digits: usize) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.digits$}") }
}

/// Over the rounds; NaN where there is none.
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
