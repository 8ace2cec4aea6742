//! The public name by a load balancer: a pool a site, and their order follows the lease.

use std::time::Duration;

use anyhow::{Result, ensure};
use diptych_cloudflare::client::{LoadBalancer, Monitor, Pool};
use serde_json::json;

use super::a_file;
use super::zone::{AtCloudflare, SamePort};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::demo::two_sites::hand_over;
use crate::kind::outside::HOSTNAME;
use crate::kind::proof::ground::{Ground, then_put_back};
use crate::kind::spec;

const LIMIT: Duration = Duration::from_mins(3);

/// `failover.dns.cloudflare.via: LoadBalancer`, a planned switch, and back to records.
pub(super) async fn follows_the_lease(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("via LoadBalancer: pools and monitors are made, their order follows a planned switch; back to records", async {
            let (cloudflare, same_port) = (AtCloudflare::open(ground).await?, SamePort::open(ground).await?);
            let look = async {
                same_port.declare(ground, &json!({"via": "LoadBalancer"})).await?;
                ground.until_well().await?;
                let (active, passive) = ground.sites().await?;
                spec::says(active, "PublicNameKept", "True PointsHere").await?;
                spec::says(passive, "PublicNameKept", "True CouldPointHere").await?;
                stands_first(&cloudflare, active.site).await?;
                let made = Balancing::of_ours(&cloudflare).await?;
                ensure!(made.pools.len() == 2 && made.monitors.len() == 2, "{made:?}");
                let (key, bytes) = a_file(ground, "balanced", 64 << 10).await?;
                hand_over(&ground.reach, active.site).await?;
                stands_first(&cloudflare, passive.site).await?;
                let read = ground.read_in_both(&key, &bytes).await?;
                Ok(format!("{} stood first, after a planned switch {}; {read}", active.site, passive.site))
            };
            let put_back = async {
                same_port.put_back(ground, &json!({"via": "Record"})).await?;
                ground.until_well().await?;
                Balancing::of_ours(&cloudflare).await?.delete(&cloudflare).await
            };
            let seen = Box::pin(then_put_back(look, put_back)).await?;
            let (key, bytes) = a_file(ground, "by-records", 64 << 10).await?;
            Ok(((), format!("{seen}; by records again {}", ground.read_in_both(&key, &bytes).await?)))
        })
        .await
}

/// What of load balancing carries this cluster's mark.
#[derive(Debug)]
struct Balancing {
    balancers: Vec<LoadBalancer>,
    pools: Vec<Pool>,
    monitors: Vec<Monitor>,
}

impl Balancing {
    async fn of_ours(cloudflare: &AtCloudflare) -> Result<Self> {
        let AtCloudflare { client, zone, owner } = cloudflare;
        let account = &zone.account.id;
        let mut found = Self {
            balancers: client.load_balancers(&zone.id).await?,
            pools: client.pools(account).await?,
            monitors: client.monitors(account).await?,
        };
        found.balancers.retain(|balancer| balancer.settings.description == owner.comment());
        found.pools.retain(|pool| pool.settings.description == owner.comment());
        // A monitor has no name: its mark says the site, too.
        found.monitors.retain(|monitor| monitor.settings.description.starts_with(owner.comment()));
        Ok(found)
    }

    /// What is used goes last.
    async fn delete(&self, cloudflare: &AtCloudflare) -> Result<()> {
        let AtCloudflare { client, zone, .. } = cloudflare;
        let account = &zone.account.id;
        for balancer in &self.balancers {
            client.delete_load_balancer(&zone.id, &balancer.id).await?;
        }
        for pool in &self.pools {
            client.delete_pool(account, &pool.id).await?;
        }
        for monitor in &self.monitors {
            client.delete_monitor(account, &monitor.id).await?;
        }
        Ok(())
    }
}

/// Waits until the load balancer of the public name has a site's pool first.
async fn stands_first(cloudflare: &AtCloudflare, site: &str) -> Result<()> {
    let wanted = cloudflare.owner.name_of(&site.parse()?);
    until(&format!("{wanted} stands first"), LIMIT, || async {
        let found = Balancing::of_ours(cloudflare).await?;
        let balancer = found.balancers.iter().find(|balancer| balancer.settings.name == HOSTNAME);
        let first = balancer.and_then(|balancer| balancer.settings.default_pools.first());
        let pool = found.pools.iter().find(|pool| Some(&pool.id) == first);
        let right = pool.is_some_and(|pool| pool.settings.name == wanted);
        Ok(if right { Ok(()) } else { Err(format!("{found:?}")) })
    })
    .await
}
