//! A FailoverDrill of each mode, applied in both clusters: the passive site runs it, the other one shows what came of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::ground::Ground;
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::kind::cluster::Cluster;
use crate::kind::install::STORAGE_CLUSTER;

const MODES: [&str; 4] = ["Readiness", "Isolated", "Switchover", "Outage"];
/// A drill ends by itself after its limits.
const ENDS_IN: Duration = Duration::from_mins(8);
/// One that is refused has done nothing, and says why: a journal may be under way still.
const ATTEMPTS: u32 = 3;

fn manifest(name: &str, mode: &str) -> Value {
    json!({"apiVersion": "diptych.dev/v1alpha1", "kind": "FailoverDrill", "metadata": {"name": name},
        "spec": {"clusterRef": {"name": STORAGE_CLUSTER}, "mode": mode, "outage": "20s", "samples": 40,
            "target": "30s", "guards": {"coolDown": "0s", "exposedAge": "30s"}}})
}

/// A text of an object; `-`: there is none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("-")
}

/// Each mode once.
pub(super) async fn each_mode(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    for mode in MODES {
        ground.until_well().await?;
        table
            .step(&format!("FailoverDrill {mode}, by kubectl apply in both clusters"), drill(ground, mode))
            .await?;
    }
    Ok(())
}

async fn drill(ground: &Ground<'_>, mode: &str) -> Result<((), String)> {
    let (active, passive) = ground.sites().await?;
    let mut attempt = 0;
    let (name, ran) = loop {
        attempt += 1;
        // Under a name of its own: a run is known by it in both clusters.
        let name = format!("{}-{}-{attempt}", mode.to_lowercase(), ground.run);
        for cluster in [passive, active] {
            cluster.apply(&manifest(&name, mode).to_string()).await?;
        }
        let ran = ended(passive, &name).await?;
        if text(&ran, "/status/verdict") != "Refused" || attempt == ATTEMPTS {
            break (name, ran);
        }
        println!("  refused: {}", ran["status"]);
        ground.until_well().await?;
    };
    has_passed(mode, &ran)?;
    let shown = ended(active, &name).await?;
    ensure!(text(&shown, "/status/verdict") == "Passed", "{} shows {}", active.site, shown["status"]);
    let (now, _) = ground.sites().await?;
    ensure!(now.site == active.site, "the role stayed with {}", now.site);
    let line = passive.kubectl(&["get", "failoverdrill", &name, "--no-headers"]).await?;
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(((), format!("kubectl get fd in {}: {line}; asked for {attempt} times", passive.site)))
}

/// A verdict, and what a client has measured where the role moved.
fn has_passed(mode: &str, ran: &Value) -> Result<()> {
    let status = &ran["status"];
    ensure!(text(ran, "/status/verdict") == "Passed", "{status}");
    if matches!(mode, "Switchover" | "Outage") {
        for measured in ["/status/recoveryTime", "/status/recoveryPoint"] {
            ensure!(text(ran, measured) != "-", "{measured} is not measured: {status}");
        }
        ensure!(status["records"]["missing"] == 0, "records are missing: {status}");
    }
    Ok(())
}

/// The drill once it has a verdict.
async fn ended(cluster: &Cluster, name: &str) -> Result<Value> {
    until(&format!("drill {name} of {} has a verdict", cluster.site), ENDS_IN, || async {
        let seen = cluster.get(&["failoverdrill", name]).await?;
        let over = text(&seen, "/status/verdict") != "-";
        Ok(if over { Ok(seen) } else { Err(seen["status"].to_string()) })
    })
    .await
}
