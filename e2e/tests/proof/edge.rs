//! The active site lives and is not reached from outside: it hands over to the one that is, and gets the lease back afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use diptych_core::edge::EdgeVerdict;
use diptych_e2e::demo::installation::{Installation, until};
use diptych_e2e::demo::tree;
use diptych_e2e::demo::verify::{put_all, verify_all};
use diptych_e2e::demo::writer::{self, Writer};
use diptych_e2e::program::in_folder;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(2);
const GRACE: Duration = Duration::from_secs(6);
const AT_ONCE: usize = 16;

/// Has the stand-in for Cloudflare reach nobody at these addresses.
async fn unreached(installation: &Installation, addresses: &[&str]) -> Result<()> {
    let plan: Value = serde_json::from_slice(&std::fs::read(installation.data_dir.join("dev.json"))?)?;
    let control = plan["outside"]["control"].as_str().context("the stand-in has no control")?;
    let http = diptych::client::http_client(&installation.data_dir)?;
    let body = json!({"unreached": addresses}).to_string();
    let asked = http.patch(format!("http://{control}/faults")).header("content-type", "application/json");
    let answer = asked.body(body).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);
    Ok(())
}

async fn sees(installation: &Installation, site: &str, wanted: (EdgeVerdict, EdgeVerdict)) -> Result<()> {
    until(&format!("{site} sees {wanted:?}"), PATIENCE, || async {
        let edge = installation.status(site).await?.edge;
        let seen = edge.as_ref().map(|edge| (edge.here.verdict, edge.there.verdict));
        Ok(if seen == Some(wanted) { Ok(()) } else { Err(format!("{edge:?}")) })
    })
    .await
}

async fn is_active(installation: &Installation, site: &str) -> Result<()> {
    until(&format!("{site} is active"), PATIENCE, || async {
        let role = installation.status(site).await?.role;
        Ok(if role == "active" { Ok(()) } else { Err(role) })
    })
    .await
}

#[tokio::test]
async fn a_site_that_is_well_and_not_reached_from_outside_hands_over_and_gets_the_lease_back() -> Result<()> {
    in_folder("edge", async |folder| {
        let words = ["--sites", "2", "--edge-grace", "6", "--failback-after", "6"];
        let installation = Installation::start(&folder.join("data"), &words).await?;
        let s3 = installation.s3(PATIENCE)?;
        s3.create_bucket().await?;
        let mut files = tree::collect(Path::new("/usr/share/doc"), "tree/", usize::MAX)?;
        files.truncate(60);
        put_all(&s3, &files, AT_ONCE).await?;
        for site in ["east", "west"] {
            sees(&installation, site, (EdgeVerdict::Reached, EdgeVerdict::Reached)).await?;
        }
        let writer = Writer::start(installation.s3(Duration::ZERO)?);
        writer.has_written(50).await?;

        unreached(&installation, &["127.0.1.1"]).await?;
        let cut = Instant::now();
        is_active(&installation, "west").await?;
        let away = cut.elapsed();
        ensure!(away >= GRACE, "the lease was handed over after {away:?}");
        let east = installation.status("east").await?;
        ensure!(east.role == "passive", "east is {}, though it was only handed over", east.role);
        until("west keeps the lease while east is not reached", PATIENCE, || async {
            let failback = installation.status("west").await?.failback;
            let waits = failback.as_ref().is_some_and(|failback| failback.waiting == "Unreached");
            Ok(if waits { Ok(()) } else { Err(format!("{failback:?}")) })
        })
        .await?;

        unreached(&installation, &[]).await?;
        is_active(&installation, "east").await?;
        let acknowledged = writer.stop().await?;
        writer::none_missing(&installation, &s3, &acknowledged).await?;
        verify_all(&s3, &files).await?;
        println!(
            "handed over {:.1} s after the edge lost east, {} records, none missing",
            away.as_secs_f64(),
            acknowledged.len()
        );
        installation.stop().await
    })
    .await
}
