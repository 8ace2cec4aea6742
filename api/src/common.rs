//! What several resources use.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A StorageCluster of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// A StorageCluster, of the same namespace or of another one that allows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedClusterRef {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Its namespace; the same one if left out. Another has to allow this one in `spec.allowedNamespaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

/// An object of the same namespace, of the kind that the field says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// A length of time that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotADuration(pub String);

impl std::fmt::Display for NotADuration {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?} is no length of time: write 500ms, 10s, 5m, 24h or a row of these", self.0)
    }
}

impl std::error::Error for NotADuration {}

/// Reads `500ms`, `10s`, `5m`, `24h`, or a row of these as `1h30m`.
///
/// # Errors
/// Anything else.
pub fn duration(text: &str) -> Result<std::time::Duration, NotADuration> {
    let wrong = || NotADuration(text.to_owned());
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|letter: char| letter.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total =
            number.checked_mul(milliseconds).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = behind;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(std::time::Duration::from_millis(total)) }
}

/// Reads the length of a lease: 1s to 1m, as the schema of `failover.lease.duration` has it.
///
/// # Errors
/// No length of time, or a shorter or longer one; a sentence for a person.
pub fn lease(text: &str) -> Result<std::time::Duration, String> {
    const SHORTEST: std::time::Duration = std::time::Duration::from_secs(1);
    const LONGEST: std::time::Duration = std::time::Duration::from_mins(1);
    let length = duration(text).map_err(|error| error.to_string())?;
    if !(SHORTEST..=LONGEST).contains(&length) {
        return Err(format!("{text} is no length of a lease: 1s to 1m, 1500ms for instance"));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_read_as_people_write_them() {
        for (text, milliseconds) in
            [("10s", 10_000), ("168h", 604_800_000), ("1h30m", 5_400_000), ("500ms", 500)]
        {
            assert_eq!(duration(text), Ok(std::time::Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "10", "s", "10 s", "-1s", "1d", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_lease_has_one_second_to_one_minute() {
        for (text, milliseconds) in [("1s", 1_000), ("1500ms", 1_500), ("3s", 3_000), ("1m", 60_000)] {
            assert_eq!(lease(text), Ok(std::time::Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["999ms", "61s", "0s", "", "short"] {
            assert!(lease(text).is_err(), "{text}");
        }
    }
}
