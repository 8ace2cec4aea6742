//! What a bucket promises its writers where both sites acknowledge.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::declare;
use crate::demo::installation::until;
use crate::demo::one_site::PATIENCE;
use crate::demo::table::Table;
use crate::kind::proof::faults::cables;
use crate::kind::proof::ground::{BUCKET, Ground, random, then_put_back};
use crate::kind::proof::plugin::Plugin;
use crate::kind::spec;

const NAMED_IN: Duration = Duration::from_mins(1);
/// Until the ledger says that the other site has it after all.
const CONFIRMED_IN: Duration = Duration::from_mins(3);

/// `kubectl diptych bucket` has the bucket downgrade; then the other site is away.
pub(super) async fn downgrade(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("kubectl diptych bucket: a bucket that downgrades takes writes while the other site is away, receipts say so", async {
            let plugin = Plugin::install()?;
            let key = format!("downgraded-{}", ground.run);
            let bytes = random(64 << 10)?;
            let look = async {
                declare(ground, &json!({"acknowledge": "BothSites"})).await?;
                ground.until_well().await?;
                let (active, passive) = ground.sites().await?;
                let set = ["bucket", BUCKET, "--acknowledge-timeout", "2s", "--on-timeout", "downgrade"];
                plugin.says(ground, active, &set, &["2000ms", "downgrade"]).await?;
                let s3 = ground.s3_of(active.site, PATIENCE)?;
                let receipt = async |key: &str| {
                    s3.put(key, bytes.clone()).await?.context("a PUT was answered without x-diptych-receipt")
                };
                let whole = receipt(&format!("whole-{}", ground.run)).await?;
                ensure!(whole.ends_with("exposed=no"), "both sites answer, and the receipt says {whole}");
                cables::deafen(active, passive).await?;
                cables::deafen(passive, active).await?;
                spec::says(active, "PeerConnected", "False Silent").await?;
                let alone = receipt(&key).await?;
                ensure!(alone.ends_with("exposed=yes; downgraded=yes"), "the other site is away: {alone}");
                // By the witness's vote there may be a moment without the lease.
                until("the ledger names it", NAMED_IN, || async {
                    plugin.says(ground, active, &["ledger", "--open"], &["Downgraded", &key]).await.map(Ok)
                })
                .await?;
                Ok(format!("{whole}; with the line between the sites cut {alone}"))
            };
            let put_back = async {
                for cluster in ground.clusters {
                    cables::heal(cluster).await?;
                }
                ground.until_well().await?;
                let (active, _) = ground.sites().await?;
                let set = ["bucket", BUCKET, "--acknowledge-timeout", "cluster", "--on-timeout", "refuse"];
                plugin.says(ground, active, &set, &["cluster", "refuse"]).await?;
                declare(ground, &json!({"acknowledge": "OneSite"})).await
            };
            let seen = Box::pin(then_put_back(look, put_back)).await?;
            let (active, _) = ground.sites().await?;
            until("the ledger says that both sites have it", CONFIRMED_IN, || async {
                let ledger = plugin.says(ground, active, &["ledger"], &[]).await?;
                let confirmed = ledger.lines().any(|line| line.contains(&key) && line.contains("Confirmed"));
                Ok(if confirmed { Ok(()) } else { Err(ledger) })
            })
            .await?;
            Ok(((), format!("{seen}; then Confirmed, {}", ground.read_in_both(&key, &bytes).await?)))
        })
        .await
}
