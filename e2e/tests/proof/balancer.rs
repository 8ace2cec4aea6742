//! The public name is a load balancer: its order follows the lease, through a takeover and a planned switch back.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use diptych_cloudflare::client::{Client, ClientOptions};
use diptych_e2e::demo::faults::Faults;
use diptych_e2e::demo::installation::{Installation, until};
use diptych_e2e::demo::tree;
use diptych_e2e::demo::verify::{put_all, verify_all};
use diptych_e2e::demo::writer::{self, Writer};
use diptych_e2e::program::in_folder;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(2);
const AT_ONCE: usize = 16;

/// What the plan says of what stands outside both sites.
fn of_plan(installation: &Installation, field: &str) -> Result<String> {
    let plan: Value = serde_json::from_slice(&std::fs::read(installation.data_dir.join("dev.json"))?)?;
    let said = plan["outside"][field].as_str().map(str::to_owned);
    said.with_context(|| format!("the plan has no {field}"))
}

/// A client of the stand-in, as the sites have one.
fn client(installation: &Installation) -> Result<Client> {
    let options = ClientOptions::new(of_plan(installation, "api_token")?.parse()?);
    let api = of_plan(installation, "api")?;
    Ok(Client::new(options.base_url(&format!("http://{api}/client/v4")))?)
}

/// Waits until the pools stand in this order.
async fn stands_first(installation: &Installation, client: &Client, site: &str) -> Result<()> {
    let zone = client.zone_by_name(&of_plan(installation, "zone")?).await?.context("there is no zone")?;
    until(&format!("{site} stands first"), PATIENCE, || async {
        let pools = client.pools(&zone.account.id).await?;
        let balancers = client.load_balancers(&zone.id).await?;
        let first = balancers.first().and_then(|found| found.settings.default_pools.first());
        let name = pools.iter().find(|pool| Some(&pool.id) == first).map(|pool| pool.settings.name.clone());
        let right = name.as_ref().is_some_and(|name| name.ends_with(&format!("-{site}")));
        Ok(if right { Ok(()) } else { Err(format!("{name:?}")) })
    })
    .await
}

#[tokio::test]
async fn the_order_of_a_load_balancer_follows_the_lease_and_no_acknowledged_record_is_missing() -> Result<()>
{
    in_folder("balancer", async |folder| {
        let words = ["--sites", "2", "--via", "LoadBalancer", "--failback-after", "6"];
        let installation = Installation::start(&folder.join("data"), &words).await?;
        let client = client(&installation)?;
        let s3 = installation.s3(PATIENCE)?;
        s3.create_bucket().await?;
        let mut files = tree::collect(Path::new("/usr/share/doc"), "tree/", usize::MAX)?;
        files.truncate(60);
        put_all(&s3, &files, AT_ONCE).await?;
        stands_first(&installation, &client, "east").await?;
        let writer = Writer::start(installation.s3(Duration::ZERO)?);
        writer.has_written(50).await?;

        installation.site_dies("east").await?;
        stands_first(&installation, &client, "west").await?;
        installation.site_returns("east").await?;
        stands_first(&installation, &client, "east").await?;

        let acknowledged = writer.stop().await?;
        writer::none_missing(&installation, &s3, &acknowledged).await?;
        verify_all(&s3, &files).await?;
        installation.stop().await
    })
    .await
}
