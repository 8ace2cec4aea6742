//! Whether a store keeps its word: many that speak S3 take a conditional write and ignore the condition, and two sites that
//! both believe to have swapped one record are two actives, two agents that both believe to hold a device two owners. So it is
//! tried, on an object of its own, before the store is trusted with either.

use std::time::Duration;

use bytes::Bytes;

use super::calls::{Calls, Precondition, Put};

/// Between two trials that came to no verdict.
pub const AGAIN: Duration = Duration::from_secs(5);
/// The ETag of nothing that is ever written here.
const OTHER: &str = "\"00000000000000000000000000000000\"";

/// What is known of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// It was not tried yet.
    Untried,
    /// It was tried, and came to no verdict: why.
    Unclear(String),
    /// It honours conditions.
    Holds,
    /// It does not: how.
    Broken(&'static str),
}

/// Tries it with the object `key`, which nobody else uses.
pub async fn prove(calls: &Calls, key: &str) -> Proof {
    let proof = trial(calls, key).await.unwrap_or_else(Proof::Unclear);
    let _ = calls.delete(key).await;
    proof
}

/// `Err`: an answer that is neither yes nor no.
async fn trial(calls: &Calls, key: &str) -> Result<Proof, String> {
    let first = match calls.put(key, Bytes::from_static(b"1"), Some(Precondition::Absent)).await {
        Put::Written { etag } => etag,
        other => return Err(said(other)),
    };
    if written(calls.put(key, Bytes::from_static(b"2"), Some(Precondition::Absent)).await)?.is_some() {
        return Ok(Proof::Broken("it ignores If-None-Match on writes"));
    }
    if written(calls.put(key, Bytes::from_static(b"3"), Some(Precondition::Is(OTHER))).await)?.is_some() {
        return Ok(Proof::Broken("it ignores If-Match on writes"));
    }
    let second = written(calls.put(key, Bytes::from_static(b"4"), Some(Precondition::Is(&first))).await)?;
    Ok(match second {
        None => Proof::Broken("it refuses a write whose If-Match is right"),
        Some(second) if second == first => Proof::Broken("it gives another object the same ETag"),
        Some(_) => Proof::Holds,
    })
}

fn written(put: Put) -> Result<Option<String>, String> {
    match put {
        Put::Written { etag } => Ok(Some(etag)),
        Put::NotWritten(_) => Ok(None),
        other @ (Put::Limited(_) | Put::Unclear(_)) => Err(said(other)),
    }
}

fn said(put: Put) -> String {
    match put {
        Put::Written { .. } => "it was written".to_owned(),
        Put::NotWritten(reason) | Put::Unclear(reason) => reason,
        Put::Limited(pause) => format!("the store takes no calls for {} s", pause.as_secs()),
    }
}
