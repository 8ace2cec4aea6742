//! `kubectl diptych handover`, `promote` and `force-vote`: annotations that the operator carries out and takes off.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use diptych_api::StorageCluster;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{LOOK_EVERY, Site};
use crate::command::say;

const HANDOVER: &str = "diptych.dev/handover";
const PROMOTE: &str = "diptych.dev/promote";
const FORCE_VOTE: &str = "diptych.dev/force-vote";

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

/// Let a site go on that has lost the record of its vote
///
/// For two sites that have both lost their catalogs. Where the other site still serves, or comes back later with a record of its own, two
/// sites may have written under one epoch: stop it first, and let it return only after this one answers.
#[derive(Debug, clap::Args)]
pub(super) struct ForceVote {
    /// You have seen to it that the other site serves nothing
    #[arg(long)]
    other_site_serves_nothing: bool,
    /// An epoch that is known to have been used; the site finds those of its catalog, its agents and the witness by itself
    #[arg(long, value_name = "EPOCH")]
    above: Option<u64>,
    /// Seconds to wait for it
    #[arg(long, default_value_t = 120)]
    wait: u64,
}

impl ForceVote {
    pub(super) async fn run(self, site: &Site) -> Result<()> {
        if !self.other_site_serves_nothing {
            bail!(
                "two sites could write under one epoch: see that the other site serves nothing, then say so by --other-site-serves-nothing"
            );
        }
        if !lacks_vote(&site.cluster) {
            bail!("{} has the record of its vote: there is nothing to force", site.cluster.spec.site);
        }
        let value = vouched(self.above);
        let has_vote = |seen: &StorageCluster| !lacks_vote(seen);
        follow(
            site,
            FORCE_VOTE,
            &value,
            "back with a vote of its own",
            has_vote,
            Duration::from_secs(self.wait),
        )
        .await
    }
}

/// As the operator takes it.
fn vouched(above: Option<u64>) -> String {
    let above = above.map(|epoch| format!(" above {epoch}")).unwrap_or_default();
    format!("other-site-serves-nothing{above}")
}

fn ready(cluster: &StorageCluster) -> Option<&Condition> {
    let mut conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    conditions.find(|condition| condition.type_ == "Ready")
}

fn lacks_vote(cluster: &StorageCluster) -> bool {
    ready(cluster).is_some_and(|ready| ready.reason == "NoVoteRecord")
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

/// A role that shall be so.
async fn switch(site: &Site, annotation: &str, value: &str, role: &str, limit: Duration) -> Result<()> {
    follow(site, annotation, value, role, |seen| Site::role(seen) == role, limit).await
}

/// Writes the annotation, waits until the site is as asked, and takes the annotation back where that takes too long.
async fn follow(
    site: &Site,
    annotation: &str,
    value: &str,
    shall_be: &str,
    is_so: impl Fn(&StorageCluster) -> bool,
    limit: Duration,
) -> Result<()> {
    annotate(site, annotation, Some(value)).await?;
    let begun = Instant::now();
    let mut told = String::new();
    loop {
        let seen = site.look().await?;
        if is_so(&seen) {
            say(format_args!(
                "{} is {shall_be} after {:.1} s",
                seen.spec.site,
                begun.elapsed().as_secs_f64()
            ));
            return Ok(());
        }
        if !seen.annotations().contains_key(annotation) && begun.elapsed() > LOOK_EVERY {
            bail!("it was refused: look at `kubectl describe storagecluster {}`, Events", seen.name_any());
        }
        let waits = ready(&seen).map(|ready| ready.message.clone()).unwrap_or_default();
        if waits != told {
            say(format_args!("{} is {}: {waits}", seen.spec.site, Site::role(&seen)));
            told = waits;
        }
        if begun.elapsed() > limit {
            annotate(site, annotation, None).await?;
            bail!(
                "not within {limit:?}; it was taken back, and may still come true for half a minute. Last seen: {told}"
            );
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
