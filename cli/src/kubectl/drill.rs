//! `kubectl diptych drill`: makes a FailoverDrill and follows it.

use anyhow::{Context, Result, bail};
use diptych_api::{FailoverDrill, FailoverDrillStatus};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{LOOK_EVERY, Site};
use crate::command::say;

/// Rehearse a failover and follow it
#[derive(Debug, clap::Args)]
pub(super) struct Drill {
    /// Readiness, Isolated, Switchover or Outage
    #[arg(long, default_value = "Readiness")]
    mode: diptych_core::drill::DrillMode,
    /// Outage: how long the active site is cut off
    #[arg(long, default_value = "30s")]
    outage: String,
    /// Leave the role where the drill has brought it
    #[arg(long)]
    stay: bool,
    /// End the drill of this name instead
    #[arg(long, value_name = "NAME")]
    abort: Option<String>,
}

impl Drill {
    pub(super) async fn run(self, site: &Site) -> Result<()> {
        let api: Api<FailoverDrill> = Api::namespaced(site.client.clone(), &site.namespace);
        if let Some(name) = &self.abort {
            let patch = json!({"spec": {"abort": true}});
            let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            patched.with_context(|| format!("FailoverDrill {name} can't be changed"))?;
            return follow(&api, name).await;
        }
        if Site::role(&site.cluster) == "active" {
            bail!(
                "{} is active, and a drill is run by the passive site: use the --context of the other one",
                site.cluster.spec.site
            );
        }
        let made = api.create(&PostParams::default(), &self.object(&site.cluster.name_any())?).await;
        let name = made.context("the FailoverDrill can't be made")?.name_any();
        say(format_args!("failoverdrill/{name}"));
        follow(&api, &name).await
    }

    fn object(&self, cluster: &str) -> Result<FailoverDrill> {
        Ok(serde_json::from_value(json!({
            "apiVersion": "diptych.dev/v1alpha1", "kind": "FailoverDrill",
            "metadata": {"generateName": format!("{}-", self.mode.to_string().to_lowercase())},
            "spec": {"clusterRef": {"name": cluster}, "mode": self.mode, "outage": self.outage, "goBack": !self.stay},
        }))?)
    }
}

/// Says each step as it comes; fails unless the drill has passed.
async fn follow(api: &Api<FailoverDrill>, name: &str) -> Result<()> {
    let mut told = (0, String::new());
    loop {
        let status = api.get(name).await?.status.unwrap_or_default();
        for step in status.steps.iter().skip(told.0) {
            say(format_args!("{:>8.3} s  {}", step.began_milliseconds as f64 / 1_000.0, step.phase));
        }
        let reason = status.reason.clone().unwrap_or_default();
        if reason != told.1 {
            say(format_args!("            {reason}"));
        }
        told = (status.steps.len().max(told.0), reason);
        if let Some(verdict) = status.verdict.clone() {
            return end(&status, &verdict);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn end(status: &FailoverDrillStatus, verdict: &str) -> Result<()> {
    let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let (time, point) = (shown(&status.recovery_time), shown(&status.recovery_point));
    let predicted = shown(&status.predicted_recovery_time);
    say(format_args!("recovery time {time} ({predicted} was predicted), recovery point {point}"));
    let reason = status.reason.clone().unwrap_or_default();
    if verdict == "Passed" {
        say(format_args!("{verdict}: {reason}"));
        return Ok(());
    }
    for check in status.checks.iter().filter(|check| !check.passed) {
        say(format_args!("  {}: {}", check.name, check.finding));
    }
    bail!("{verdict}: {reason}");
}
