//! `diptych status`.

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use diptych_site::status::{NodeStatus, SiteStatus};

use super::{Target, human, say};

/// Say how safe everything is.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// As JSON: an object by site
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Status {
    /// Runs it. Fails when no site answers.
    pub async fn run(self) -> Result<()> {
        let endpoints = self.target.endpoints()?;
        let mut answers = std::collections::BTreeMap::new();
        for (name, site) in &endpoints.sites {
            let rest = self.target.rest(&site.rest, &endpoints.token)?;
            answers.insert(name.clone(), rest.document::<SiteStatus>(&["api", "v1", "status"], &[]).await);
        }
        if answers.values().all(Result::is_err) {
            bail!(
                "no site answers: {}",
                answers
                    .values()
                    .find_map(|answer| answer.as_ref().err())
                    .map_or_else(String::new, ToString::to_string)
            );
        }
        if self.json {
            let good: std::collections::BTreeMap<_, _> =
                answers.iter().filter_map(|(name, answer)| Some((name, answer.as_ref().ok()?))).collect();
            say(serde_json::to_string_pretty(&good)?);
            return Ok(());
        }
        for (name, answer) in &answers {
            match answer {
                Ok(status) => show(status),
                Err(error) => say(format_args!("{name}: does not answer ({error:#})\n")),
            }
        }
        Ok(())
    }
}

fn show(status: &SiteStatus) {
    let health = &status.health;
    say(format_args!("{}: {}, epoch {}", status.site, status.role, status.epoch));
    if let Some(waiting) = &status.lease.waiting_for {
        say(format_args!("  lease: {waiting}"));
    }
    say(format_args!(
        "  extents {} ({}): whole {}, degraded {}, unreadable here {}; wanted {} ({})",
        health.extents,
        human(health.bytes),
        health.whole,
        health.degraded,
        health.unreadable_here,
        health.wanted,
        human(health.wanted_bytes),
    ));
    let (repair, inventory) = (&status.repair, &status.inventory);
    let left = match repair.seconds_left {
        Some(seconds) => format!("{seconds} s"),
        None => "never: a budget is 0".to_owned(),
    };
    say(format_args!(
        "  repair: {} waiting, {} running, {} to move, done in {left}; {} rows made anew",
        repair.waiting,
        repair.running,
        human(repair.bytes),
        repair.rows
    ));
    say(format_args!(
        "  devices against catalog: {} rows lost, {} orphans ({})",
        inventory.lost,
        inventory.orphans,
        human(inventory.orphan_bytes)
    ));
    if let Some(exposure) = &status.exposure {
        say(format_args!(
            "  exposed: {} commits, {} extents ({}), for {} ms",
            exposure.commits,
            exposure.extents,
            human(exposure.bytes),
            exposure.age_ms
        ));
    }
    if let Some(trouble) = &status.name_trouble {
        say(format_args!("  public name: {trouble}"));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "NODE",
        "STATE",
        "DEVICE",
        "DEVICE STATE",
        "USED",
        "OF",
        "ROWS",
        "ROTTEN",
    ]);
    for NodeStatus { name, state, devices } in &status.nodes {
        for device in devices {
            table.add_row([
                name.clone(),
                state.clone(),
                device.id.to_string(),
                device.state.clone(),
                human(device.used),
                human(device.capacity),
                device.rows.to_string(),
                device.rotten.to_string(),
            ]);
        }
    }
    say(format_args!("{table}\n"));
}
