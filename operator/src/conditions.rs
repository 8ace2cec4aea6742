//! Conditions: each says since when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// What a condition shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Says {
    /// Its type.
    pub kind: &'static str,
    /// None: unknown.
    pub holds: Option<bool>,
    /// One word, CamelCase.
    pub reason: String,
    /// A sentence for a person.
    pub message: String,
}

impl Says {
    /// It holds.
    pub fn yes(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(true), reason: reason.to_owned(), message: message.into() }
    }

    /// It does not.
    pub fn no(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(false), reason: reason.to_owned(), message: message.into() }
    }

    /// Nobody knows.
    pub fn unknown(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, holds: None, reason: reason.to_owned(), message: message.into() }
    }

    const fn status(&self) -> &'static str {
        match self.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

/// Longest message that the API takes.
const LONGEST: usize = 32_000;

/// The conditions as they shall be written: the time of a transition stays where nothing changed.
pub fn conditions(
    before: &[Condition],
    says: &[Says],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let one = |says: &Says| {
        let known = before.iter().find(|condition| condition.type_ == says.kind);
        let since = known
            .filter(|known| known.status == says.status())
            .map(|known| known.last_transition_time.clone());
        Condition {
            type_: says.kind.to_owned(),
            status: says.status().to_owned(),
            reason: says.reason.clone(),
            message: says.message.chars().take(LONGEST).collect(),
            last_transition_time: since.unwrap_or(Time::from(now)),
            observed_generation: generation,
        }
    };
    says.iter().map(one).collect()
}

/// Those that turned: worth an Event.
pub fn turned<'a>(before: &[Condition], says: &'a [Says]) -> Vec<&'a Says> {
    let same = |says: &&Says| {
        let known = before.iter().find(|condition| condition.type_ == says.kind);
        !known.is_some_and(|known| known.status == says.status() && known.reason == says.reason)
    };
    says.iter().filter(same).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_condition_moves_only_when_its_status_turns() {
        let (then, now) =
            (Timestamp::from_second(100).expect("a time"), Timestamp::from_second(200).expect("a time"));
        let first = conditions(&[], &[Says::no("Ready", "Waiting", "one")], Some(1), then);
        let same = conditions(&first, &[Says::no("Ready", "Waiting", "two")], Some(2), now);
        assert_eq!((same[0].last_transition_time.0, same[0].message.as_str()), (then, "two"));
        assert!(turned(&first, &[Says::no("Ready", "Waiting", "two")]).is_empty());
        let other = [Says::yes("Ready", "Ready", "three")];
        assert_eq!(turned(&same, &other).len(), 1);
        assert_eq!(conditions(&same, &other, Some(2), now)[0].last_transition_time.0, now);
    }
}
