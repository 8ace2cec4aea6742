//! What stands at Cloudflare, looked at by the API as an administrator's own script does.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use diptych_cloudflare::address::{Owner, name_records};
use diptych_cloudflare::client::{Client, ClientOptions, DnsRecord, Zone};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::declare;
use crate::kind::outside::{HOSTNAME, ORIGIN_PORTS, Outside};
use crate::kind::proof::ground::Ground;
use crate::kind::spec;

/// The zone of the public name, and whose things of ours are.
pub(super) struct AtCloudflare {
    pub(super) client: Client,
    pub(super) zone: Zone,
    pub(super) owner: Owner,
}

impl AtCloudflare {
    pub(super) async fn open(ground: &Ground<'_>) -> Result<Self> {
        let endpoint = ground.reach.endpoints()?.cloudflare.context("there is no Cloudflare")?;
        let client = Client::new(ClientOptions::new(endpoint.token.parse()?).base_url(&endpoint.api))?;
        let zone = client.zone_by_name(&endpoint.zone).await?.context("there is no zone")?;
        let [east, _] = ground.clusters;
        let cluster = east.secret("main-authority", "cluster-id").await?.trim().parse()?;
        Ok(Self { client, zone, owner: Owner::new(cluster) })
    }

    /// The records of the public name.
    pub(super) async fn records(&self) -> Result<Vec<DnsRecord>> {
        Ok(name_records(&self.client, &self.zone.id, HOSTNAME).await?)
    }
}

/// REST by the public name at the port that origins have: Cloudflare connects to an origin by the port that the client used, and probes
/// it there.
pub(super) struct SamePort {
    url: Value,
    /// What is declared without it.
    before: Value,
    leads: JoinHandle<()>,
}

impl SamePort {
    pub(super) async fn open(ground: &Ground<'_>) -> Result<Self> {
        let [east, _] = ground.clusters;
        let declared = east.get(&[spec::OBJECT]).await?;
        let before = declared.pointer("/spec/failover/drills/publicUrl").cloned().unwrap_or_default();
        let outside = Outside::running(ground.state)?.context("what runs outside the clusters is gone")?;
        let (_, edge) = outside.edges();
        let at = SocketAddr::new(outside.address.parse()?, ORIGIN_PORTS.1);
        let listener = TcpListener::bind(at).await.with_context(|| format!("{at} is taken"))?;
        Ok(Self { url: json!(format!("http://{at}")), before, leads: tokio::spawn(lead(listener, edge)) })
    }

    /// Has Cloudflare look at both sites: these fields of `failover.dns.cloudflare`.
    pub(super) async fn declare(&self, ground: &Ground<'_>, cloudflare: &Value) -> Result<()> {
        declare(ground, &failover(cloudflare, &self.url)).await
    }

    /// Has it look no longer.
    pub(super) async fn put_back(&self, ground: &Ground<'_>, cloudflare: &Value) -> Result<()> {
        declare(ground, &failover(cloudflare, &self.before)).await
    }
}

fn failover(cloudflare: &Value, public_url: &Value) -> Value {
    json!({"failover": {"dns": {"cloudflare": cloudflare}, "drills": {"publicUrl": public_url}}})
}

impl Drop for SamePort {
    fn drop(&mut self) {
        self.leads.abort();
    }
}

/// Leads each connection to another address.
async fn lead(listener: TcpListener, to: String) {
    while let Ok((mut client, _)) = listener.accept().await {
        let to = to.clone();
        tokio::spawn(async move {
            // A connection that breaks tells both of its ends by itself.
            if let Ok(mut server) = TcpStream::connect(&to).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
