//! `kubectl diptych handover` and `promote`: annotations that the operator carries out and takes off.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{LOOK_EVERY, Site};
use crate::command::say;

const HANDOVER: &str = "diptych.dev/handover";
const PROMOTE: &str = "diptych.dev/promote";

/// Have this site take over
#[derive(Debug, clap::Args)]
pub(super) struct Promote {
    /// Give up what this site lacks: it goes to the ledger, and comes back with the other site if that returns
    #[arg(long)]
    accept_loss: bool,
    /// Seconds to wait for it
    #[arg(long, default_value_t = 120)]
    wait: u64,
}

/// Have the other site take over, losing nothing
#[derive(Debug, clap::Args)]
pub(super) struct Handover {
    /// Seconds to wait for it
    #[arg(long, default_value_t = 120)]
    wait: u64,
}

impl Promote {
    pub(super) async fn run(self, site: &Site) -> Result<()> {
        if Site::role(&site.cluster) == "active" {
            bail!("{} is active already: there is nothing to promote", site.cluster.spec.site);
        }
        let how = if self.accept_loss { "accept-loss" } else { "within-limits" };
        switch(site, PROMOTE, how, "active", Duration::from_secs(self.wait)).await
    }
}

impl Handover {
    pub(super) async fn run(self, site: &Site) -> Result<()> {
        let spec = &site.cluster.spec;
        let peer = spec.peer.as_ref().context("there is one site only: nobody to hand over to")?;
        if Site::role(&site.cluster) != "active" {
            bail!(
                "{} is not active: a planned switch is asked of the active site, use its --context",
                spec.site
            );
        }
        switch(site, HANDOVER, &peer.site, "passive", Duration::from_secs(self.wait)).await
    }
}

/// Writes the annotation, waits until the site is as asked, and takes the annotation back where that takes too long.
async fn switch(site: &Site, annotation: &str, value: &str, role: &str, limit: Duration) -> Result<()> {
    annotate(site, annotation, Some(value)).await?;
    let begun = Instant::now();
    let mut told = String::new();
    loop {
        let seen = site.look().await?;
        if Site::role(&seen) == role {
            say(format_args!("{} is {role} after {:.1} s", seen.spec.site, begun.elapsed().as_secs_f64()));
            return Ok(());
        }
        if !seen.annotations().contains_key(annotation) && begun.elapsed() > LOOK_EVERY {
            bail!("it was refused: look at `kubectl describe storagecluster {}`, Events", seen.name_any());
        }
        let conditions = seen.status.iter().flat_map(|status| &status.conditions);
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        let waits = ready.map(|ready| ready.message.clone()).unwrap_or_default();
        if waits != told {
            say(format_args!("{} is {}: {waits}", seen.spec.site, Site::role(&seen)));
            told = waits;
        }
        if begun.elapsed() > limit {
            annotate(site, annotation, None).await?;
            bail!("not within {limit:?}; it was taken back, nothing is lost. Last seen: {told}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn annotate(site: &Site, annotation: &str, value: Option<&str>) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {annotation: value}}});
    let name = site.cluster.name_any();
    let patched = site.clusters().patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched
        .map(drop)
        .with_context(|| format!("StorageCluster {name} can't be annotated: you need the right to patch it"))
}
