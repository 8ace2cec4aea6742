//! Runs the checker and says what it found.

use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use super::configurations::Bounds;
use super::transitions::LeaseModel;

/// What a run of the checker found.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Properties that fell, each with the steps to it.
    pub violations: Vec<(&'static str, Vec<String>)>,
    /// What should have been seen, and was not.
    pub never_seen: Vec<&'static str>,
    /// Different states.
    pub states: usize,
    /// Longest path.
    pub depth: usize,
    /// Time it took.
    pub took: Duration,
    /// Every state within the bounds was visited.
    pub exhausted: bool,
}

/// Searches breadth first, so that a trace is as short as can be; for at most `limit`.
pub fn check(bounds: Bounds, limit: Duration, threads: usize) -> Outcome {
    let started = Instant::now();
    let model = LeaseModel::new(bounds);
    let kinds: Vec<_> =
        model.properties().iter().map(|property| (property.name, property.expectation.clone())).collect();
    let mut builder = model.checker().threads(threads).timeout(limit);
    if bounds.mutation.is_some() {
        builder = builder.finish_when(HasDiscoveries::AnyFailures);
    }
    let checker = builder.spawn_bfs().join();
    let took = started.elapsed();
    let mut found = checker.discoveries();
    let mut violations = Vec::new();
    let mut never_seen = Vec::new();
    for (name, kind) in kinds {
        match (kind, found.remove(name)) {
            (Expectation::Always, Some(path)) => {
                let steps = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
                violations.push((name, steps));
            }
            (Expectation::Sometimes, None) => never_seen.push(name),
            (Expectation::Sometimes, Some(_))
            | (Expectation::Always, None)
            | (Expectation::Eventually, _) => {}
        }
    }
    let states = checker.unique_state_count();
    Outcome { violations, never_seen, states, depth: checker.max_depth(), took, exhausted: took < limit }
}
