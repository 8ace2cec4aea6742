//! A whole site that is stopped and continued, and what can happen to the takeover meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{LATE_TAKEOVER, TAKEOVER, lasts, processes, takes_over, through};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::demo::two_sites::first_answer;
use crate::kind::proof::ground::{Ground, then_put_back};
use crate::kind::proof::plugin::Plugin;
use crate::kind::spec;

/// Two leases of the kind that the demo's values declare.
const TWO_LEASES: Duration = Duration::from_secs(6);
const OPERATORS: &str = "app.kubernetes.io/component=operator";

/// Everything of the active site is stopped, the other takes over, and then it goes on where it was.
pub(super) async fn stopped(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let fault = async {
        let (active, passive) = ground.sites().await?;
        let epoch = ground.status(active.site).await?.epoch.0;
        let nodes = active.nodes().await?;
        let probe = ground.s3_by(&ground.reach.endpoints()?.s3, Duration::ZERO)?;
        let look = async {
            let begun = Instant::now();
            let processes = processes::stop(&nodes)?;
            let first = first_answer(&probe, None, begun, TAKEOVER).await?;
            let newer = takes_over(ground, passive.site, epoch, TAKEOVER).await?;
            lasts(begun, TWO_LEASES).await;
            let stopped = begun.elapsed().as_secs_f64();
            Ok(format!(
                "{processes} processes of {} stopped for {stopped:.1} s; first write through the public name after {:.2} s, epoch {newer}",
                active.site,
                first.as_secs_f64()
            ))
        };
        Box::pin(then_put_back(look, async { processes::resume(&nodes) })).await
    };
    let name = "SIGSTOP of everything on the active site for two leases and more, then SIGCONT";
    table.step(name, Box::pin(through(ground, TAKEOVER, fault))).await
}

/// The active site falls silent, and the operators that are about to take over are killed.
pub(super) async fn operators_killed(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let fault = async {
        let (active, passive) = ground.sites().await?;
        let epoch = ground.status(active.site).await?.epoch.0;
        let nodes = active.nodes().await?;
        let look = async {
            let begun = Instant::now();
            processes::stop(&nodes)?;
            until(&format!("{} notices", passive.site), TAKEOVER, || async {
                let lease = ground.status(passive.site).await?.lease;
                Ok(if lease.peer_connected { Err("it hears the other site".to_owned()) } else { Ok(()) })
            })
            .await?;
            let noticed = begun.elapsed().as_secs_f64();
            let kill = ["delete", "pods", "-l", OPERATORS, "--grace-period=0", "--force", "--wait=false"];
            let killed = passive.kubectl(&kill).await?.lines().count();
            let newer = takes_over(ground, passive.site, epoch, LATE_TAKEOVER).await?;
            let took = begun.elapsed().as_secs_f64();
            Ok(format!(
                "{} silent, noticed after {noticed:.1} s, {killed} operators of {} killed; active after {took:.1} s, epoch {newer}",
                active.site, passive.site
            ))
        };
        Box::pin(then_put_back(look, async { processes::resume(&nodes) })).await
    };
    let name = "the operators that take over are killed in the middle of it";
    table.step(name, Box::pin(through(ground, LATE_TAKEOVER, fault))).await
}

/// With `failover.mode: Manual` the site that is left waits for `kubectl diptych promote`.
pub(super) async fn promoted_by_a_person(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let plugin = Plugin::install()?;
    let mode = async |mode: &str| {
        for cluster in ground.clusters {
            spec::declare(cluster, &json!({"failover": {"mode": mode}})).await?;
        }
        anyhow::Ok(())
    };
    let fault = async {
        let (active, passive) = ground.sites().await?;
        let epoch = ground.status(active.site).await?.epoch.0;
        let nodes = active.nodes().await?;
        let begun = Instant::now();
        let look = async {
            processes::stop(&nodes)?;
            until(&format!("{} waits for a person", passive.site), LATE_TAKEOVER, || async {
                let status = ground.status(passive.site).await?;
                ensure!(status.role != "active", "it was taken over without a person");
                let waits = status.lease.waiting.as_deref() == Some("Approval");
                Ok(if waits { Ok(()) } else { Err(format!("{:?}", status.lease.waiting)) })
            })
            .await?;
            let wanted = format!("{} is active after", passive.site);
            // What the writer has in one site only is older than allowed by now.
            let said = plugin.says(ground, passive, &["promote", "--accept-loss"], &[&wanted]).await?;
            let newer = takes_over(ground, passive.site, epoch, TAKEOVER).await?;
            let last = said.lines().last().unwrap_or_default().to_owned();
            Ok(format!(
                "kubectl diptych promote --accept-loss: {last}, {:.1} s after the stop, epoch {newer}",
                begun.elapsed().as_secs_f64()
            ))
        };
        Box::pin(then_put_back(look, async { processes::resume(&nodes) })).await
    };
    let name =
        "failover.mode Manual: everything on the active site is stopped, kubectl diptych promote takes over";
    mode("Manual").await?;
    let played = table.step(name, Box::pin(through(ground, Duration::from_mins(4), fault))).await;
    then_put_back(async { played }, mode("Automatic")).await
}
