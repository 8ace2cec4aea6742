//! The public name by a tunnel of each site. cloudflared is not run: what is looked at is what it would be given.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diptych_cloudflare::client::RecordType;
use serde_json::{Value, json};

use super::zone::AtCloudflare;
use super::{a_file, declare};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::kind::proof::ground::{Ground, then_put_back};
use crate::kind::spec;

const LIMIT: Duration = Duration::from_mins(3);
/// Of the token for cloudflared.
const SECRET: &str = "main-tunnel";

/// `failover.dns.cloudflare.via: Tunnel`, and back to records.
pub(super) async fn is_made(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("via Tunnel: each site has a tunnel and its token in a Secret, the name leads to the active one; back to records", async {
            let cloudflare = AtCloudflare::open(ground).await?;
            let look = async {
                declare(ground, &via("Tunnel")).await?;
                ground.until_well().await?;
                let (active, passive) = ground.sites().await?;
                spec::says(active, "PublicNameKept", "True PointsHere").await?;
                spec::says(passive, "PublicNameKept", "True CouldPointHere").await?;
                for cluster in ground.clusters {
                    let token = cluster.secret(SECRET, "token").await?;
                    ensure!(!token.trim().is_empty(), "the token of {} is empty", cluster.site);
                }
                leads_to_the_tunnel_of(&cloudflare, active.site).await
            };
            let put_back = async {
                declare(ground, &via("Record")).await?;
                ground.until_well().await?;
                leads_to_addresses(&cloudflare).await?;
                delete(&cloudflare, ground).await
            };
            let alias = Box::pin(then_put_back(look, put_back)).await?;
            let (key, bytes) = a_file(ground, "after-the-tunnel", 64 << 10).await?;
            Ok(((), format!("{alias}; by records again {}", ground.read_in_both(&key, &bytes).await?)))
        })
        .await
}

fn via(what: &str) -> Value {
    json!({"failover": {"dns": {"cloudflare": {"via": what}}}})
}

async fn leads_to_the_tunnel_of(cloudflare: &AtCloudflare, site: &str) -> Result<String> {
    let AtCloudflare { client, zone, owner } = cloudflare;
    let name = owner.name_of(&site.parse()?);
    let tunnel = client.tunnel_by_name(&zone.account.id, &name).await?;
    let wanted = tunnel.with_context(|| format!("there is no tunnel {name}"))?.id.host();
    until(&format!("the public name leads to {wanted}"), LIMIT, || async {
        let records = cloudflare.records().await?;
        let right =
            matches!(records.as_slice(), [only] if only.kind == RecordType::Cname && only.content == wanted);
        Ok(if right { Ok(format!("{name}: CNAME {wanted}")) } else { Err(format!("{records:?}")) })
    })
    .await
}

async fn leads_to_addresses(cloudflare: &AtCloudflare) -> Result<()> {
    until("the public name leads to addresses", LIMIT, || async {
        let records = cloudflare.records().await?;
        let right = !records.is_empty() && records.iter().all(|record| record.kind == RecordType::A);
        Ok(if right { Ok(()) } else { Err(format!("{records:?}")) })
    })
    .await
}

/// Takes the tunnels and their tokens away.
async fn delete(cloudflare: &AtCloudflare, ground: &Ground<'_>) -> Result<()> {
    let AtCloudflare { client, zone, owner } = cloudflare;
    for cluster in ground.clusters {
        let name = owner.name_of(&cluster.site.parse()?);
        if let Some(tunnel) = client.tunnel_by_name(&zone.account.id, &name).await? {
            client.delete_tunnel(&zone.account.id, &tunnel.id).await?;
        }
        cluster.kubectl(&["delete", "secret", SECRET, "--ignore-not-found"]).await?;
    }
    Ok(())
}
