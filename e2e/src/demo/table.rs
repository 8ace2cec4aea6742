//! Steps of a demo, with what was seen and how long each took.

use std::fmt::Write;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

struct Row {
    name: String,
    seen: String,
    passed: bool,
    took: Duration,
}

/// The table that a demo prints at its end.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Runs a step; what it returns is shown beside its time. An error names the step.
    pub async fn step<T>(&mut self, name: &str, run: impl Future<Output = Result<(T, String)>>) -> Result<T> {
        println!("… {name}");
        let begun = Instant::now();
        let outcome = run.await;
        let took = begun.elapsed();
        match outcome {
            Ok((value, seen)) => {
                println!("  {seen} ({:.2} s)", took.as_secs_f64());
                self.rows.push(Row { name: name.to_owned(), seen, passed: true, took });
                Ok(value)
            }
            Err(error) => {
                let seen = format!("FAILED: {error:#}");
                println!("  {seen} ({:.2} s)", took.as_secs_f64());
                self.rows.push(Row { name: name.to_owned(), seen, passed: false, took });
                Err(error).with_context(|| format!("step \"{name}\""))
            }
        }
    }

    /// How many steps there were.
    pub fn steps(&self) -> usize {
        self.rows.len()
    }

    /// How many of them failed.
    pub fn failed(&self) -> usize {
        self.rows.iter().filter(|row| !row.passed).count()
    }

    /// As Markdown.
    pub fn render(&self) -> String {
        let mut text = String::from("| step | seen | seconds |\n|---|---|---|\n");
        for Row { name, seen, took, .. } in &self.rows {
            // A line of the table is one line.
            let seen = seen.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
            // Writing to a string does not fail.
            let _ = writeln!(text, "| {name} | {seen} | {:.2} |", took.as_secs_f64());
        }
        text
    }
}
