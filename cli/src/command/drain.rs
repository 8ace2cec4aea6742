//! `diptych drain`: has a node of a running `diptych dev` emptied.

use anyhow::{Context, Result};
use diptych_core::ids::DeviceId;
use diptych_core::records::Drain;
use diptych_site::status::SiteStatus;

use super::{Target, say};
use crate::client::endpoints::Endpoints;
use crate::client::rest::RestClient;

/// Have a node, or some of its devices, emptied: its rows move to others. `diptych status` says how far it is
#[derive(Debug, clap::Args)]
pub struct DrainCommand {
    /// Its name: `east-n2`
    node: String,
    /// Only this device of it, by its number in `diptych status`; may be repeated
    #[arg(long)]
    device: Vec<u32>,
    /// It shall hold rows again
    #[arg(long, conflicts_with = "device")]
    undo: bool,
    #[command(flatten)]
    target: Target,
}

impl DrainCommand {
    /// Runs it. Fails where there is no such node, or it is dead.
    pub async fn run(self) -> Result<()> {
        let rest = self.site(&self.target.endpoints()?).await?;
        let path = ["api", "v1", "nodes", &self.node, "drain"];
        if self.undo {
            let _: serde_json::Value = rest.delete(&path).await?;
            say(format_args!("{} takes rows again", self.node));
            return Ok(());
        }
        let wanted = Drain { devices: self.device.iter().copied().map(DeviceId).collect() };
        let _: serde_json::Value = rest.post_json(&path, &wanted).await?;
        say(format_args!(
            "{} is emptied as far as the others can do without it: see `diptych status`",
            self.node
        ));
        Ok(())
    }

    /// The site that the node is of; the active one for all others: those outside are its.
    async fn site(&self, endpoints: &Endpoints) -> Result<RestClient> {
        let of = |rest: &str| self.target.rest(rest, &endpoints.token);
        let own =
            endpoints.sites.values().find(|site| site.agents.iter().any(|agent| agent.name == self.node));
        if let Some(site) = own {
            return of(&site.rest);
        }
        for site in endpoints.sites.values() {
            let rest = of(&site.rest)?;
            let status = rest.document::<SiteStatus>(&["api", "v1", "status"], &[]).await;
            if status.is_ok_and(|status| status.role == "active") {
                return Ok(rest);
            }
        }
        None.with_context(|| format!("{} is no node of a site, and no site is active", self.node))
    }
}
