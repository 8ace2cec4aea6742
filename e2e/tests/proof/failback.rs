//! The preferred site gets the lease back by itself, after a window of health and not before.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use diptych_e2e::demo::faults::Faults;
use diptych_e2e::demo::installation::{Installation, until};
use diptych_e2e::demo::tree;
use diptych_e2e::demo::verify::{put_all, verify_all};
use diptych_e2e::demo::writer::{self, Writer};
use diptych_e2e::program::in_folder;

const PATIENCE: Duration = Duration::from_mins(2);
const WINDOW: Duration = Duration::from_secs(8);
/// A look and a status lie between the begin of the window and its being seen here.
const SEEN_LATE: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 16;

async fn is_active(installation: &Installation, site: &str) -> Result<()> {
    until(&format!("{site} is active"), PATIENCE, || async {
        let role = installation.status(site).await?.role;
        Ok(if role == "active" { Ok(()) } else { Err(role) })
    })
    .await
}

/// Why the active site keeps the lease; empty: it says nothing.
async fn waits_for(installation: &Installation, site: &str) -> Result<String> {
    Ok(installation.status(site).await?.failback.map(|failback| failback.waiting).unwrap_or_default())
}

#[tokio::test]
async fn the_preferred_site_returns_catches_up_and_has_the_lease_again_after_the_window() -> Result<()> {
    in_folder("failback", async |folder| {
        let words = ["--sites", "2", "--node-dead-after", "3", "--failback-after", "8"];
        let installation = Installation::start(&folder.join("data"), &words).await?;
        let s3 = installation.s3(PATIENCE)?;
        s3.create_bucket().await?;
        let mut files = tree::collect(Path::new("/usr/share/doc"), "tree/", usize::MAX)?;
        files.truncate(100);
        put_all(&s3, &files, AT_ONCE).await?;
        let writer = Writer::start(installation.s3(Duration::ZERO)?);
        writer.has_written(50).await?;

        installation.site_dies("east").await?;
        is_active(&installation, "west").await?;
        until("west waits for east", PATIENCE, || async {
            let reason = waits_for(&installation, "west").await?;
            Ok(if reason == "PeerSilent" { Ok(()) } else { Err(reason) })
        })
        .await?;
        installation.site_returns("east").await?;
        until("east is well", PATIENCE, || async {
            let reason = waits_for(&installation, "west").await?;
            Ok(if reason == "Settling" { Ok(()) } else { Err(reason) })
        })
        .await?;
        let well = Instant::now();
        is_active(&installation, "east").await?;
        let took = well.elapsed();
        ensure!(took + SEEN_LATE >= WINDOW, "the lease was given back after {took:?} of health");

        let acknowledged = writer.stop().await?;
        let refused = writer::longest_gap(&acknowledged, well, Instant::now());
        writer::none_missing(&installation, &s3, &acknowledged).await?;
        verify_all(&s3, &files).await?;
        println!(
            "given back {:.1} s after east was well, {} records, none missing, longest time without one {:.2} s",
            took.as_secs_f64(),
            acknowledged.len(),
            refused.as_secs_f64()
        );
        installation.stop().await
    })
    .await
}
