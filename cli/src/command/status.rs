//! `diptych status`.

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use diptych_core::drill::Prediction;
use diptych_core::edge::EdgeVerdict;
use diptych_core::lease::Millis;
use diptych_site::edge::{EdgeStatus, SiteVerdict};
use diptych_site::status::{DrainStatus, FeedStatus, JournalStatus, NodeStatus, SiteStatus};
use diptych_site::survey::Health;

use super::{Target, date, human, say};

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

fn predicted(prediction: &Prediction) -> String {
    let shown =
        |length: Option<Millis>| length.map_or_else(|| "unknown".to_owned(), |length| length.to_string());
    match &prediction.obstacle {
        Some(obstacle) => format!("it would not happen by itself: {obstacle}"),
        None => format!(
            "recovery time {}, recovery point {}, at worst",
            shown(prediction.recovery_time),
            shown(prediction.recovery_point)
        ),
    }
}

fn seen_by_edge(edge: &EdgeStatus) -> String {
    if let Some(trouble) = &edge.trouble {
        return trouble.message.clone();
    }
    let of = |site: &SiteVerdict| match site.verdict {
        EdgeVerdict::Reached => "reached".to_owned(),
        EdgeVerdict::Unreached => format!("not reached ({})", site.reason),
        EdgeVerdict::Unknown => "not looked at yet".to_owned(),
    };
    let waiting = edge.waiting.as_ref().map(|waiting| format!("; {waiting}")).unwrap_or_default();
    format!("this site is {}, the other one {}{waiting}", of(&edge.here), of(&edge.there))
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
    say(format_args!("  verified: {}", verified(health)));
    show_repair(status);
    let inventory = &status.inventory;
    say(format_args!(
        "  devices against catalog: {} rows lost, {} orphans ({})",
        inventory.lost,
        inventory.orphans,
        human(inventory.orphan_bytes)
    ));
    let compaction = &status.compaction;
    say(format_args!(
        "  dead and not freed yet: {}; compaction: {} extents under way, {} versions moved",
        human(compaction.dead_bytes),
        compaction.extents,
        compaction.versions
    ));
    say(format_args!("  journal: {}", journaled(&status.journal)));
    say(format_args!("  catalog: {}", catalog(&status.feed)));
    if let Some(exposure) = &status.exposure {
        say(format_args!(
            "  exposed: {} objects, {} commits, {} extents ({}), for {} ms",
            exposure.objects,
            exposure.commits,
            exposure.extents,
            human(exposure.bytes),
            exposure.age_ms
        ));
    }
    if let Some(prediction) = &status.prediction {
        say(format_args!("  a failover now: {}", predicted(prediction)));
    }
    if let Some(drill) = &status.last_drill {
        let verdict = drill.verdict.map_or_else(|| "under way".to_owned(), |verdict| format!("{verdict:?}"));
        say(format_args!("  last drill: {} ({}): {verdict}, {}", drill.id, drill.mode, drill.reason));
    }
    if let Some(trouble) = &status.lease.witness_trouble {
        say(format_args!("  witness: {trouble}"));
    }
    if let Some(edge) = &status.edge {
        say(format_args!("  edge: {}", seen_by_edge(edge)));
    }
    if let Some(failback) = &status.failback {
        say(format_args!("  failback: {}", failback.waiting_for));
    }
    if let Some(trouble) = &status.name_trouble {
        say(format_args!("  public name: {trouble}"));
    }
    if let Some(outside) = &status.outside {
        let living = outside.nodes.iter().filter(|node| node.answers()).count();
        say(format_args!(
            "  outside: {living} of {} nodes live, {} rows of {} an extent, {} extents lack some",
            outside.nodes.len(),
            health.outside_rows,
            outside.rows,
            health.outside_lacking
        ));
    }
    let outside = status.outside.iter().flat_map(|outside| &outside.nodes);
    let all: Vec<&NodeStatus> = status.nodes.iter().chain(outside).collect();
    for (node, drain) in all.iter().filter_map(|node| Some((&node.name, node.drain.as_ref()?))) {
        say(format_args!("  drain of {node}: {}", drained(drain)));
    }
    say(format_args!("{}\n", nodes(all.into_iter())));
}

fn show_repair(status: &SiteStatus) {
    let (repair, health) = (&status.repair, &status.health);
    let left = match repair.seconds_left {
        Some(seconds) => format!("{seconds} s"),
        None => "never: a budget is 0".to_owned(),
    };
    say(format_args!(
        "  repair: {} waiting, {} running, {} to move, done in {left}; {} rows made anew, {} moved",
        repair.waiting,
        repair.running,
        human(repair.bytes),
        repair.rows,
        repair.moved
    ));
    if health.moving > 0 {
        let bytes = human(health.moving_bytes);
        say(format_args!("  to move, behind all repair: rows of {} extents ({bytes})", health.moving));
    }
}

fn verified(health: &Health) -> String {
    match health.verified {
        0 => "nothing yet: a scrub reads every row again".to_owned(),
        all if all == health.extents => {
            format!("every row was read and found right since {}", date(health.verified_day))
        }
        some => format!(
            "every row of {some} extents was read and found right since {}",
            date(health.verified_day)
        ),
    }
}

fn drained(drain: &DrainStatus) -> String {
    let left = format!("{} rows ({}) are left", drain.rows, human(drain.bytes));
    match &drain.why {
        _ if drain.done => "done: no row is left there".to_owned(),
        Some(why) if drain.stuck > 0 => format!("{left}; those of {} extents stay: {why}", drain.stuck),
        Some(why) => why.clone(),
        None => left,
    }
}

fn journaled(journal: &JournalStatus) -> String {
    let rest = if journal.waiting_since_ms == 0 { "all is in it" } else { "more to write" };
    format!(
        "{} behind a checkpoint of {} keys ({}), {}",
        human(journal.journal_bytes),
        journal.checkpoint_keys,
        human(journal.checkpoint_bytes),
        journal.trouble.as_deref().unwrap_or(rest),
    )
}

fn catalog(feed: &FeedStatus) -> String {
    let limit = feed.limit.map(|limit| format!(" of {}", human(limit))).unwrap_or_default();
    let trouble = feed.trouble.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
    format!("{}{limit}, a feed of {} commits{trouble}", human(feed.bytes), feed.entries)
}

fn nodes<'a>(nodes: impl Iterator<Item = &'a NodeStatus>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "NODE",
        "DOMAIN",
        "STATE",
        "DEVICE",
        "DEVICE STATE",
        "USED",
        "OF",
        "ROWS",
        "ROTTEN",
    ]);
    for NodeStatus { name, state, domain, devices, .. } in nodes {
        for device in devices {
            table.add_row([
                name.clone(),
                domain.as_ref().map_or_else(String::new, ToString::to_string),
                state.clone(),
                device.id.to_string(),
                if device.slow { format!("{}, slow", device.state) } else { device.state.clone() },
                human(device.used),
                human(device.capacity),
                device.rows.to_string(),
                device.rotten.to_string(),
            ]);
        }
    }
    table
}
