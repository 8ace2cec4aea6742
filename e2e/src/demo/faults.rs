//! What the demo breaks, wherever the installation runs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::installation::{Installation, signal};
use super::reach::site_of;

/// Breaks an installation from outside: no call of the product takes part.
#[async_trait]
pub trait Faults: Sync {
    /// A node dies for good, its devices with it; its name.
    async fn node_dies(&self, site: &str) -> Result<String>;

    /// Everything of a site dies at once, without a word.
    async fn site_dies(&self, site: &str) -> Result<()>;

    /// What is left of a dead site is started again.
    async fn site_returns(&self, site: &str) -> Result<()>;

    /// Everything of a site stands still, as on a frozen hypervisor.
    async fn site_freezes(&self, site: &str) -> Result<()>;

    /// It goes on where it was.
    async fn site_thaws(&self, site: &str) -> Result<()>;
}

/// Sends a signal to every process of a site of `diptych dev`.
fn signal_site(installation: &Installation, site: &str, name: &str) -> Result<()> {
    let endpoints = installation.endpoints()?;
    let site = site_of(&endpoints, site)?;
    for pid in site.agents.iter().map(|agent| agent.pid).chain([site.pid]).filter(|pid| *pid != 0) {
        // One agent is dead already where a node died before.
        let _ = signal(pid, name);
    }
    Ok(())
}

/// Faults of `diptych dev`: signals, and devices that are removed.
#[async_trait]
impl Faults for Installation {
    async fn node_dies(&self, site: &str) -> Result<String> {
        let agent = self.agent(site, 1)?;
        signal(agent.pid, "KILL")?;
        for device in &agent.devices {
            std::fs::remove_dir_all(device).with_context(|| format!("{}", device.display()))?;
        }
        Ok(agent.name)
    }

    async fn site_dies(&self, site: &str) -> Result<()> {
        signal_site(self, site, "KILL")
    }

    async fn site_returns(&self, site: &str) -> Result<()> {
        let endpoints = self.endpoints()?;
        let there = |device: &PathBuf| device.exists();
        for agent in site_of(&endpoints, site)?.agents.iter().filter(|agent| agent.devices.iter().all(there))
        {
            self.command(&["dev", "revive", &agent.name]).await?;
        }
        self.command(&["dev", "revive", site]).await.map(drop)
    }

    async fn site_freezes(&self, site: &str) -> Result<()> {
        signal_site(self, site, "STOP")
    }

    async fn site_thaws(&self, site: &str) -> Result<()> {
        signal_site(self, site, "CONT")
    }
}
