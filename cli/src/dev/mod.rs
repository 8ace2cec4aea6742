//! `diptych dev`: a whole installation on one machine, without Kubernetes: the same crates and state machines, one process
//! a site, one a node-agent, one each for the witness and the stand-in for Cloudflare.

pub mod control;
pub mod jobs;
pub mod options;
pub mod place;
pub mod plan;
pub mod store;
pub mod supervise;

use std::path::Path;

use anyhow::{Context, Result, bail};
use options::DevOptions;
use plan::{DevPlan, NodePlan};
use supervise::{Supervisor, signalled};

use crate::client::endpoints::{
    AgentEndpoint, CloudflareEndpoint, Endpoints, S3Endpoint, SiteEndpoint, WitnessEndpoint,
};

/// Starts everything, prints `ready`, and goes on until it is told to end.
pub async fn run(options: &DevOptions) -> Result<()> {
    std::fs::create_dir_all(&options.data_dir)
        .with_context(|| format!("the data folder {} can't be made", options.data_dir.display()))?;
    let data_dir = std::path::absolute(&options.data_dir)?;
    let _lock = lock(&data_dir)?;
    let plan = DevPlan::read_or_make(options)?;
    let mut supervisor = Supervisor::new(std::env::current_exe().context("the own program is unknown")?);
    for job in jobs::make(&plan, &data_dir)? {
        supervisor.start(job)?;
    }
    write_endpoints(&plan, &mut supervisor, &data_dir)?;
    wait_until_ready(&plan, &mut supervisor, &data_dir).await?;
    // Both before anybody is told that there is something to ask or to end.
    let (requests, end) = (control::listen(&data_dir)?, signalled());
    announce();
    control::serve(requests, &plan, &mut supervisor, &data_dir, end).await?;
    supervisor.stop().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
fn announce() {
    println!("ready");
}

/// One `diptych dev` a data folder.
fn lock(data_dir: &Path) -> Result<std::fs::File> {
    let path = data_dir.join("dev.lock");
    let file = std::fs::File::create(&path).with_context(|| format!("{} can't be made", path.display()))?;
    if file.try_lock().is_err() {
        bail!("another `diptych dev` runs on {}: stop it first", data_dir.display());
    }
    Ok(file)
}

/// Every process answers, or the one that ended is named.
async fn wait_until_ready(plan: &DevPlan, supervisor: &mut Supervisor, data_dir: &Path) -> Result<()> {
    let http = crate::client::http_client(data_dir)?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    let mut urls: Vec<(String, String)> = Vec::new();
    for (name, site) in &plan.sites {
        urls.push((name.clone(), format!("{}/ready", plan.url(site.rest))));
    }
    if let Some(outside) = &plan.outside {
        let public = format!("{}/ready", plan.url(outside.edge_rest));
        urls.push(("cloudflare".to_owned(), public));
    }
    for (name, url) in urls {
        loop {
            let answer = http.get(&url).timeout(std::time::Duration::from_secs(2)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
            if supervisor.pid(&name).is_none() || std::time::Instant::now() > deadline {
                let log = jobs::log_of(data_dir, &name);
                bail!("{name} did not become ready at {url}{}; see {}", last_words(&log), log.display());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Why a process ended, if it said so: its error is the last that is not a line of JSON.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let Some((_, error)) = text.rsplit_once("\nError: ") else { return String::new() };
    let lines = error.lines().map(str::trim).take_while(|line| !line.starts_with("Stack backtrace"));
    let words: Vec<&str> = lines.filter(|line| !line.is_empty() && *line != "Caused by:").collect();
    format!(": {}", words.join(": "))
}

/// Writes `endpoints.json` as things are now.
pub fn write_endpoints(plan: &DevPlan, supervisor: &mut Supervisor, data_dir: &Path) -> Result<()> {
    let mut sites = std::collections::BTreeMap::new();
    for (name, site) in &plan.sites {
        let agents = site.nodes.iter().map(|node| agent(node, supervisor)).collect();
        let rest = plan.url(site.rest);
        let pid = supervisor.pid(name).unwrap_or(0);
        sites.insert(
            name.clone(),
            SiteEndpoint { s3: plan.url(site.s3), metrics: rest.clone(), rest, pid, agents },
        );
    }
    let (public, s3) = plan.public_urls()?;
    let endpoints = Endpoints {
        public,
        token: plan.token.clone(),
        s3: S3Endpoint {
            endpoint: s3,
            access_key: plan.access_key.clone(),
            secret_key: plan.secret_key.clone(),
        },
        cloudflare: plan.outside.as_ref().map(|outside| CloudflareEndpoint {
            api: format!("http://{}/client/v4", outside.api),
            token: outside.api_token.clone(),
            zone: outside.zone.clone(),
            dns: outside.dns.to_string(),
            pid: supervisor.pid("cloudflare").unwrap_or(0),
        }),
        witness: plan
            .outside
            .as_ref()
            .filter(|_| plan.witness == diptych_site::config::WitnessKind::Outside)
            .map(|outside| WitnessEndpoint {
                address: outside.witness.to_string(),
                pid: supervisor.pid("witness").unwrap_or(0),
            }),
        sites,
        outside: plan.outside_nodes.nodes.iter().map(|outside| agent(&outside.node, supervisor)).collect(),
        outside_store: plan.outside_nodes.store.as_ref().map(|store| S3Endpoint {
            endpoint: store.endpoint.clone(),
            access_key: store.access_key.clone(),
            secret_key: store.secret_key.clone(),
        }),
    };
    endpoints.write(data_dir)
}

fn agent(node: &NodePlan, supervisor: &mut Supervisor) -> AgentEndpoint {
    AgentEndpoint {
        name: node.name.to_string(),
        pid: supervisor.pid(node.name.as_str()).unwrap_or(0),
        address: node.address.to_string(),
        devices: node.devices.iter().map(|device| device.path.clone()).collect(),
    }
}
