//! The neutral client, `e2e/bench/s3load`.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::stores::Store;
use crate::program;

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    /// New objects.
    Put {
        /// For so long.
        seconds: f64,
    },
    /// So many new objects.
    Fill {
        /// How many.
        objects: u64,
    },
    /// The objects of the put before it, over and over.
    Get {
        /// For so long.
        seconds: f64,
        /// How many there are.
        objects: u64,
    },
}

/// What the client said.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Outcome {
    /// Operations.
    pub(super) n: u64,
    /// In a second.
    pub(super) ops_per_s: f64,
    /// Bytes of objects in a second.
    pub(super) mib_per_s: f64,
    /// Half of them took no longer.
    pub(super) p50_ms: f64,
    /// 99 of 100 took no longer.
    pub(super) p99_ms: f64,
}

/// The client, and whom it talks to.
pub(super) struct Client<'a> {
    /// Folder of the program.
    pub(super) tools: &'a Path,
    /// Measured.
    pub(super) store: Store,
    /// One of its own for each round and size.
    pub(super) bucket: String,
}

impl Client<'_> {
    /// One figure. A single operation that fails is an error: a store that refuses is fast.
    pub(super) async fn run(&self, size: u64, clients: u32, op: Op) -> Result<Outcome> {
        let store = &self.store;
        let mut command = Command::new(self.tools.join("s3load"));
        command
            .args(["-endpoint", &store.address, "-access", &store.access_key, "-secret", &store.secret_key])
            .args(["-bucket", &self.bucket, "-size", &size.to_string(), "-c", &clients.to_string()]);
        match op {
            Op::Put { seconds } => command.args(["-op", "put", "-seconds", &seconds.to_string()]),
            Op::Fill { objects } => command.args(["-op", "put", "-n", &objects.to_string()]),
            Op::Get { seconds, objects } => {
                command.args(["-op", "get", "-seconds", &seconds.to_string(), "-n", &objects.to_string()])
            }
        };
        let said = program::output(&mut command).await?;
        serde_json::from_str(&said).with_context(|| format!("s3load said {said:?}"))
    }
}
