//! Cloudflare's health checks: each site keeps one of its own, and shows the verdicts on both.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diptych_cloudflare::client::HealthCheck;
use diptych_cloudflare::health::check_of;
use diptych_core::ids::SiteName;
use serde_json::json;

use super::zone::{AtCloudflare, SamePort};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::kind::proof::ground::{Ground, then_put_back};
use crate::kind::spec;

/// A passive site reads the verdicts every half minute.
const LIMIT: Duration = Duration::from_mins(3);

/// `failover.dns.cloudflare.healthChecks`.
pub(super) async fn are_kept(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step(
            "healthChecks: each site has its check at Cloudflare and says EdgeHealthy, and none without",
            async {
                let (cloudflare, same_port) =
                    (AtCloudflare::open(ground).await?, SamePort::open(ground).await?);
                let look = async {
                    same_port.declare(ground, &json!({"healthChecks": true})).await?;
                    let reached = json!({"east": "Reached", "west": "Reached"});
                    let mut said = String::new();
                    for cluster in ground.clusters {
                        said = spec::says(cluster, "EdgeHealthy", "True Reached").await?;
                        spec::shows(cluster, spec::OBJECT, "both sites reached", LIMIT, |seen| {
                            (seen["status"]["edge"]["verdicts"] == reached).then_some(())
                        })
                        .await?;
                    }
                    let listing = of_ours(&cloudflare).await?;
                    for cluster in ground.clusters {
                        let site: SiteName = cluster.site.parse()?;
                        let check = check_of(&listing, &cloudflare.owner, &site);
                        let check = check.with_context(|| format!("{site} has no check of its own"))?;
                        let first = cluster.get(&[spec::OBJECT]).await?["spec"]["gateway"]["publicAddresses"]
                            [0]
                        .take();
                        ensure!(
                            first == check.address,
                            "{} is probed, {first} is the first address",
                            check.address
                        );
                    }
                    let names: Vec<&str> = listing.iter().map(|check| check.name.as_str()).collect();
                    Ok(format!("{said}; at Cloudflare with the cluster's mark: {}", names.join(", ")))
                };
                let put_back = async {
                    same_port.put_back(ground, &json!({"healthChecks": false})).await?;
                    until("no check of ours is left", LIMIT, || async {
                        let left = of_ours(&cloudflare).await?;
                        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
                    })
                    .await
                };
                Ok(((), Box::pin(then_put_back(look, put_back)).await?))
            },
        )
        .await
}

/// The checks that carry this cluster's mark.
async fn of_ours(cloudflare: &AtCloudflare) -> Result<Vec<HealthCheck>> {
    let AtCloudflare { client, zone, owner } = cloudflare;
    let mut listing = client.health_checks(&zone.id).await?;
    listing.retain(|check| check.description.as_deref() == Some(owner.comment()));
    Ok(listing)
}
