//! `diptych cloudflare-emulator`: the stand-in for Cloudflare, for demos and tests.

use anyhow::Result;
use diptych_cloudflare::emulator::{self, EmulatorOptions};

use super::log_as_json;
use crate::dev::supervise::told_to_end;

/// Runs it until it is told to end.
pub async fn run(options: EmulatorOptions) -> Result<()> {
    log_as_json();
    tokio::select! {
        ended = emulator::run(options, |_| tracing::info!("the stand-in for Cloudflare serves")) => Ok(ended?),
        () = told_to_end() => Ok(()),
    }
}
