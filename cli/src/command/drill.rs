//! `diptych drill`: rehearses a failover of a running `diptych dev`, and follows it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use diptych_core::drill::{DrillMode, DrillSpec, Report, Verdict};
use diptych_core::lease::Millis;
use diptych_site::status::SiteStatus;

use super::{Target, human, say};
use crate::client::endpoints::Endpoints;
use crate::client::rest::RestClient;
use crate::process::site::drills::DrillWish;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Rehearse a failover, and say how long it took and what it would have lost
#[derive(Debug, clap::Args)]
pub struct DrillCommand {
    /// Readiness, Isolated, Switchover or Outage
    #[arg(long, default_value = "Readiness")]
    mode: DrillMode,
    /// Outage: seconds that the active site is cut off
    #[arg(long, default_value_t = 30)]
    outage: u64,
    /// Isolated: objects that are read
    #[arg(long, default_value_t = 100)]
    samples: u32,
    /// Leave the role where the drill has brought it
    #[arg(long)]
    stay: bool,
    /// Seconds since the last drill that moved the role
    #[arg(long, default_value_t = 600)]
    cool_down: u64,
    /// End the drill that is under way
    #[arg(long, conflicts_with_all = ["mode", "json"])]
    abort: bool,
    /// The report as JSON, once it is over
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl DrillCommand {
    /// Runs it. Fails unless the drill has passed.
    pub async fn run(self) -> Result<()> {
        let endpoints = self.target.endpoints()?;
        if self.abort {
            return self.abort(&endpoints).await;
        }
        let spec = DrillSpec {
            outage: Millis(self.outage * 1_000),
            samples: self.samples,
            go_back: !self.stay,
            ..DrillSpec::of(self.mode)
        };
        let spec = DrillSpec {
            guards: diptych_core::drill::GuardLimits {
                cool_down: Millis(self.cool_down * 1_000),
                ..spec.guards
            },
            ..spec
        };
        let rest = self.passive(&endpoints).await?;
        let wish = DrillWish { id: None, spec };
        let begun: Report = rest.post_json(&["api", "v1", "drill"], &wish).await?;
        let report = self.follow(&rest, &begun.id).await?;
        if self.json {
            say(serde_json::to_string_pretty(&report)?);
        } else {
            show(&report);
        }
        if report.verdict != Some(Verdict::Passed) {
            bail!("the drill has not passed: {}", report.reason);
        }
        Ok(())
    }

    /// REST of the site that is passive: it runs drills.
    async fn passive(&self, endpoints: &Endpoints) -> Result<RestClient> {
        let mut roles = BTreeMap::new();
        for (name, site) in &endpoints.sites {
            let rest = self.target.rest(&site.rest, &endpoints.token)?;
            let role = match rest.document::<SiteStatus>(&["api", "v1", "status"], &[]).await {
                Ok(status) if status.role == "passive" => return Ok(rest),
                Ok(status) => status.role,
                Err(error) => format!("no answer: {error:#}"),
            };
            roles.insert(name, role);
        }
        bail!("a drill is run by the passive of two sites, and none is: {roles:?}")
    }

    async fn abort(&self, endpoints: &Endpoints) -> Result<()> {
        let mut refusals = Vec::new();
        for (name, site) in &endpoints.sites {
            let rest = self.target.rest(&site.rest, &endpoints.token)?;
            match rest.post::<serde_json::Value>(&["api", "v1", "drill", "abort"]).await {
                Ok(_) => {
                    say(format_args!("{name} ends its drill"));
                    return Ok(());
                }
                Err(error) => refusals.push(format!("{name}: {error:#}")),
            }
        }
        bail!("{}", refusals.join("; "))
    }

    /// Says each step as it comes; the report of the end.
    async fn follow(&self, rest: &RestClient, id: &str) -> Result<Report> {
        let mut told = 0;
        loop {
            let report: Option<Report> = rest.document(&["api", "v1", "drill"], &[]).await?;
            let report = report.filter(|report| report.id == id);
            let report = report.context("another drill was begun: this one's report is gone")?;
            for step in report.steps.iter().skip(told).filter(|_| !self.json) {
                say(format_args!("{:>8.3} s  {:?}", seconds(step.began_ms), step.phase));
            }
            told = report.steps.len();
            if report.is_over() {
                return Ok(report);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1_000.0
}

fn show(report: &Report) {
    for check in &report.checks {
        let mark = if check.passed { "ok" } else { "NO" };
        say(format_args!("  {mark}  {}: {}", check.name, check.finding));
    }
    if let Some(prediction) = &report.prediction {
        let time =
            prediction.recovery_time.map_or_else(|| "none by itself".to_owned(), |time| time.to_string());
        say(format_args!("predicted: recovery time {time}"));
        if let Some(obstacle) = &prediction.obstacle {
            say(format_args!("  {obstacle}"));
        }
    }
    if let Some(samples) = &report.samples {
        let (objects, bytes) = (samples.objects, human(samples.bytes));
        say(format_args!(
            "read from own rows alone: {objects} objects, {bytes}, {} failed",
            samples.failed.len()
        ));
    }
    if let Some(rehearsed) = &report.rehearsed {
        let (keys, same, changed) = (rehearsed.keys, rehearsed.same, rehearsed.changed);
        say(format_args!(
            "a resurrection would give {same} of {keys} sampled keys of the catalog as they are, {changed} were changed meanwhile; {:.2} s",
            seconds(rehearsed.took_ms)
        ));
    }
    let times = &report.times;
    let marks = [
        ("detected", times.detected_ms),
        ("waited", times.waited_ms),
        ("acquired", times.acquired_ms),
        ("promoted", times.promoted_ms),
        ("flipped", times.flipped_ms),
        ("first good write", times.first_good_ms),
    ];
    for (name, at) in marks {
        if let Some(at) = at {
            say(format_args!("  {name} after {:.2} s", seconds(at)));
        }
    }
    let figures = [
        ("recovery time", report.recovery_time_ms),
        ("recovery point", report.recovery_point_ms),
        ("longest time without a write on the way back", report.return_time_ms),
    ];
    for (name, value) in figures {
        if let Some(value) = value {
            say(format_args!("{name}: {:.2} s", seconds(value)));
        }
    }
    if let Some(records) = &report.records {
        say(format_args!("records: {} acknowledged, {} missing", records.acknowledged, records.missing));
    }
    if report.stale_writes.tried > 0 {
        let stale = report.stale_writes;
        say(format_args!("stale writes: {} tried, {} refused", stale.tried, stale.refused));
    }
    if let Some(verdict) = report.verdict {
        say(format_args!("{verdict:?}: {}", report.reason));
    }
}
