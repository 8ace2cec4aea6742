//! The demo on two clusters: what `cargo xtask demo` does, and what only Kubernetes can show.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::cluster::{self, Cluster, NAMESPACE, Node};
use super::install::{STORAGE_CLUSTER, clusters, root_of, up};
use super::proof::faults::processes;
use super::state::State;
use super::{Demo, Up, install, spec};
use crate::demo::faults::Faults;
use crate::demo::installation::until;
use crate::demo::one_site::{self, PATIENCE};
use crate::demo::reach::{BUCKET, Reach};
use crate::demo::table::Table;
use crate::demo::tree::Input;
use crate::demo::two_sites::{self, Scene};
use crate::demo::verify::verify;
use crate::demo::writer::{self, Writer};

/// Asks the operator for a planned switch.
const HANDOVER: &str = "diptych.dev/handover";
/// Says yes to a takeover that waits for a person.
const PROMOTE: &str = "diptych.dev/promote";
/// ClusterRole of the chart for those who only look.
const VIEWER: &str = "diptych-diptych-viewer";
/// A word that only the declared file has.
const DECLARED: &str = "applied with kubectl\n";

/// Everything, once with each way of acknowledging.
pub async fn demo(table: &mut Table, state: &State, options: &Demo) -> Result<()> {
    let (first, later) = options.acknowledge.split_first().context("--acknowledge names none")?;
    up(table, state, &Up { acknowledge: first.clone() }).await?;
    let clusters = clusters(state);
    let scratch = tempfile::Builder::new().prefix("diptych-kind-").tempdir()?;
    let files = one_site::input(table, &options.source, scratch.path()).await?;
    let reach = reach(state, &clusters).await?;
    let s3 = reach.s3(PATIENCE)?;
    one_site::store(table, &reach, &s3, &files).await?;
    shown(table, &clusters, files.all().len()).await?;
    declared(table, &clusters[0], &reach).await?;
    somebody(table, &clusters[0], &reach).await?;
    gateway_dies(table, &clusters[0], &reach).await?;
    let faults = Machines::of(&clusters);
    Scene { reach: &reach, faults: &faults, acknowledge: first, files: &files }.play(table).await?;
    for acknowledge in later {
        change_acknowledge(table, &clusters, acknowledge).await?;
        let reach = self::reach(state, &clusters).await?;
        Scene { reach: &reach, faults: &faults, acknowledge, files: &files }.play(table).await?;
    }
    annotated(table, &clusters, &reach).await?;
    printed(table, &clusters).await?;
    by_hand(table, &clusters, &reach, &faults, files.alone()?).await?;
    if !options.keep {
        install::down(state).await?;
    }
    Ok(())
}

async fn reach(state: &State, clusters: &[Cluster; 2]) -> Result<Reach> {
    let mut reach = Reach::new(&state.folder);
    for cluster in clusters {
        let nodes = cluster.nodes().await?;
        let running = nodes.iter().filter(|node| node.pid != 0);
        reach.mounted.extend(running.map(|node| format!("{}={}", node.name, root_of(node).display())));
    }
    Ok(reach)
}

/// `kubectl get fileobjects,storageclusters` in both clusters, until all is protected.
async fn shown(table: &mut Table, clusters: &[Cluster; 2], files: usize) -> Result<()> {
    table
        .step("kubectl get fileobjects,storageclusters: protected in both sites", async {
            let mut seen = Vec::new();
            for cluster in clusters {
                let what = format!("{files} FileObjects of {} are protected", cluster.site);
                let shown = until(&what, Duration::from_mins(10), || async {
                    // To list thousands is work: it is done when the count says that they are there.
                    let seen = cluster.get(&["storagecluster", STORAGE_CLUSTER]).await?;
                    let projected = seen["status"]["projectedFiles"].as_u64().unwrap_or(0);
                    if projected < files as u64 {
                        return Ok(Err(format!("{projected} are shown")));
                    }
                    let list = cluster.kubectl(&["get", "fileobjects", "--no-headers"]).await?;
                    let protected = list.lines().filter(|line| line.contains(" protected ")).count();
                    Ok(if protected >= files {
                        Ok(format!("{protected} in {}", cluster.site))
                    } else {
                        Err(format!("{protected} of {}", list.lines().count()))
                    })
                })
                .await?;
                seen.push(shown);
            }
            println!("{}", clusters[0].kubectl(&["get", "storageclusters,storagenodes"]).await?);
            Ok(((), seen.join(", ")))
        })
        .await
}

/// A file that is declared, and one that can't be.
async fn declared(table: &mut Table, cluster: &Cluster, reach: &Reach) -> Result<()> {
    table
        .step("a FileObject applied with kubectl is stored, and read by REST", async {
            let manifest = json!({"apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject",
                "metadata": {"name": "declared"},
                "spec": {"clusterRef": {"name": STORAGE_CLUSTER}, "bucket": BUCKET, "key": "declared.txt",
                    "content": {"text": DECLARED}}});
            cluster.apply(&manifest.to_string()).await?;
            let wait = ["wait", "fileobject/declared", "--for=condition=Stored", "--timeout=60s"];
            cluster.kubectl(&wait).await?;
            let text = reach.rest(cluster.site)?.text(&["api", "v1", "files", "declared.txt"]).await?;
            ensure!(text == DECLARED, "REST gave {text:?}");
            let line = cluster.kubectl(&["get", "fileobject", "declared", "--no-headers"]).await?;
            Ok(((), line.split_whitespace().collect::<Vec<_>>().join(" ")))
        })
        .await?;
    table
        .step("a topology that can't survive what it declares is refused", async {
            let four = json!({"survive": {"nodes": 4}});
            if let Err(refusal) = spec::patch(cluster, &four).await {
                return Ok(((), refused(&format!("{refusal:#}"))));
            }
            let said = spec::says(cluster, "TopologySurvives", "False CannotSurvive").await?;
            spec::patch(cluster, &json!({"survive": {"nodes": 1}})).await?;
            Ok(((), said))
        })
        .await
}

/// Somebody who is bound to the chart's role `viewer`.
async fn somebody(table: &mut Table, cluster: &Cluster, reach: &Reach) -> Result<()> {
    table
        .step("a Kubernetes token does by REST what its holder may, and no more", async {
            let manifest = json!({"apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}},
                {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": VIEWER},
                    "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": NAMESPACE}]}]});
            cluster.apply(&manifest.to_string()).await?;
            let token = cluster.kubectl(&["create", "token", "reader"]).await?;
            let rest = reach.rest_by(cluster.site, token.trim())?;
            let text = rest.text(&["api", "v1", "files", "declared.txt"]).await?;
            ensure!(text == DECLARED, "REST gave {text:?}");
            match rest.post::<Value>(&["api", "v1", "handover"]).await {
                Ok(answer) => anyhow::bail!("a viewer may ask for a switch: {answer}"),
                Err(error) => Ok(((), error.to_string())),
            }
        })
        .await
}

fn refused(error: &str) -> String {
    error.lines().last().unwrap_or(error).trim().to_owned()
}

/// One of the two gateways is killed while a client writes.
async fn gateway_dies(table: &mut Table, cluster: &Cluster, reach: &Reach) -> Result<()> {
    table
        .step("a gateway pod is killed under load", async {
            let writer = Writer::start(reach.s3(Duration::ZERO)?);
            let begun = Instant::now();
            let component = "app.kubernetes.io/component=gateway";
            let pods = cluster.kubectl(&["get", "pods", "-l", component, "-o", "name"]).await?;
            let pod = pods.lines().next().context("there is no gateway pod")?;
            cluster.kubectl(&["delete", pod, "--grace-period=0", "--force"]).await?;
            let ready = ["rollout", "status", "deployment", "-l", component, "--timeout=180s"];
            cluster.kubectl(&ready).await?;
            let acknowledged = writer.stop().await?;
            let gap = writer::longest_gap(&acknowledged, begun, Instant::now());
            writer::none_missing(reach, &*reach.s3(PATIENCE)?, &acknowledged).await?;
            let seen = format!(
                "{pod}; {} records acknowledged, none missing; longest time without an acknowledgement {:.2} s",
                acknowledged.len(),
                gap.as_secs_f64()
            );
            Ok(((), seen))
        })
        .await
}

/// From here on a write is acknowledged in another way.
async fn change_acknowledge(table: &mut Table, clusters: &[Cluster; 2], acknowledge: &str) -> Result<()> {
    table
        .step(&format!("acknowledge: {acknowledge}, by kubectl patch"), async {
            patch(clusters, &json!({"acknowledge": acknowledge})).await?;
            Ok(((), "patched in both clusters, gateways rolled".to_owned()))
        })
        .await
}

/// Changes the spec in both clusters, and waits until their gateways know of it.
async fn patch(clusters: &[Cluster; 2], declared: &Value) -> Result<()> {
    for cluster in clusters {
        spec::declare(cluster, declared).await?;
    }
    Ok(())
}

/// A planned switch, asked for as an administrator does; the last word is the operator's.
async fn annotated(table: &mut Table, clusters: &[Cluster; 2], reach: &Reach) -> Result<()> {
    table
        .step("a planned switch by kubectl annotate", async {
            let active = two_sites::active(reach).await?;
            let [from, to] = if clusters[0].site == active { [0, 1] } else { [1, 0] }.map(|at| &clusters[at]);
            let annotation = format!("{HANDOVER}={}", to.site);
            from.kubectl(&["annotate", "storagecluster", STORAGE_CLUSTER, annotation.as_str()]).await?;
            let seen = until(&format!("{} is active", to.site), Duration::from_mins(2), || async {
                let there = to.get(&["storagecluster", STORAGE_CLUSTER]).await?;
                let here = from.get(&["storagecluster", STORAGE_CLUSTER]).await?;
                let role = there.pointer("/status/role").and_then(Value::as_str).unwrap_or_default();
                let asked = here["metadata"]["annotations"].get(HANDOVER).is_some();
                Ok(if role == "active" && !asked {
                    Ok(format!(
                        "{} is active, epoch {}; the annotation is gone",
                        to.site, there["status"]["epoch"]
                    ))
                } else {
                    Err(format!("{} is {role}, annotation {asked}", to.site))
                })
            })
            .await?;
            Ok(((), seen))
        })
        .await
}

/// With `failover.mode: Manual` nothing is taken over by itself; a person's word is enough. The site that died stays dead.
async fn by_hand(
    table: &mut Table,
    clusters: &[Cluster; 2],
    reach: &Reach,
    faults: &dyn Faults,
    file: &Input,
) -> Result<()> {
    table
        .step("failover.mode: Manual is declared, the lease goes on", async {
            let epoch = async || anyhow::Ok(reach.status(two_sites::active(reach).await?).await?.epoch);
            let (before, begun) = (epoch().await?, Instant::now());
            patch(clusters, &json!({"failover": {"mode": "Manual"}})).await?;
            let (after, took) = (epoch().await?, begun.elapsed());
            ensure!(before == after, "epoch {before} became {after}");
            Ok((
                (),
                format!("in force in both sites after {:.1} s, epoch {after} as before", took.as_secs_f64()),
            ))
        })
        .await?;
    let promoted = table
        .step("the active site dies, the other one waits for a person", async {
            let dies = two_sites::active(reach).await?;
            let waits = clusters.iter().find(|cluster| cluster.site != dies).context("one site")?;
            faults.site_dies(dies).await?;
            let what = format!("{} waits for approval", waits.site);
            let said = until(&what, Duration::from_mins(2), || async {
                let status = reach.status(waits.site).await?;
                ensure!(status.role != "active", "it was taken over without a person");
                Ok(match (status.lease.waiting.as_deref(), status.lease.waiting_for) {
                    (Some("Approval"), Some(sentence)) => Ok(sentence),
                    (waiting, _) => Err(format!("{} waits for {waiting:?}", status.role)),
                })
            })
            .await?;
            Ok((waits, format!("{}: {said}", waits.site)))
        })
        .await?;
    table
        .step("a promotion by kubectl annotate", async {
            let annotation = format!("{PROMOTE}=within-limits");
            promoted.kubectl(&["annotate", "storagecluster", STORAGE_CLUSTER, annotation.as_str()]).await?;
            let seen = until(&format!("{} is active", promoted.site), Duration::from_mins(2), || async {
                let there = promoted.get(&["storagecluster", STORAGE_CLUSTER]).await?;
                let role = there.pointer("/status/role").and_then(Value::as_str).unwrap_or_default();
                let asked = there["metadata"]["annotations"].get(PROMOTE).is_some();
                Ok(if role == "active" && !asked {
                    Ok(format!("{} is active, epoch {}", promoted.site, there["status"]["epoch"]))
                } else {
                    Err(format!("{} is {role}, annotation {asked}", promoted.site))
                })
            })
            .await?;
            verify(&*reach.s3(PATIENCE)?, file).await?;
            Ok(((), format!("{seen}; a file reads by the public name")))
        })
        .await
}

/// What a user sees at the end.
async fn printed(table: &mut Table, clusters: &[Cluster; 2]) -> Result<()> {
    table
        .step("what kubectl shows at the end", async {
            let mut lines = Vec::new();
            for cluster in clusters {
                let seen = cluster.kubectl(&["get", "storageclusters,storagenodes"]).await?;
                println!("{}:\n{seen}", cluster.site);
                let role = cluster.get(&["configmap", "diptych-role"]).await?;
                let said = role.pointer("/data/role").and_then(Value::as_str).unwrap_or("nothing");
                lines.push(format!("diptych-role of {} says {said}", cluster.site));
            }
            Ok(((), lines.join(", ")))
        })
        .await
}

/// Faults of machines: containers that are killed, removed and started by Docker.
pub(super) struct Machines<'a> {
    clusters: &'a [Cluster; 2],
    /// As they were when they were killed.
    killed: Mutex<Vec<Node>>,
}

impl<'a> Machines<'a> {
    /// All run.
    pub(super) fn of(clusters: &'a [Cluster; 2]) -> Self {
        Self { clusters, killed: Mutex::default() }
    }

    async fn nodes(&self, site: &str) -> Result<Vec<Node>> {
        let cluster = self.clusters.iter().find(|cluster| cluster.site == site).context("no such site")?;
        cluster.nodes().await
    }
}

#[async_trait]
impl Faults for Machines<'_> {
    async fn node_dies(&self, site: &str) -> Result<String> {
        let nodes = self.nodes(site).await?;
        let node = nodes.iter().rfind(|node| node.name.contains("worker")).context("no worker")?;
        cluster::remove(node).await?;
        Ok(node.name.clone())
    }

    async fn site_dies(&self, site: &str) -> Result<()> {
        let nodes = self.nodes(site).await?;
        cluster::kill(&nodes.iter().collect::<Vec<_>>()).await?;
        *self.killed.lock().await = nodes;
        Ok(())
    }

    async fn site_returns(&self, _: &str) -> Result<()> {
        for node in self.killed.lock().await.drain(..) {
            cluster::start(&node).await?;
        }
        Ok(())
    }

    async fn site_freezes(&self, site: &str) -> Result<()> {
        processes::stop(&self.nodes(site).await?).map(drop)
    }

    async fn site_thaws(&self, site: &str) -> Result<()> {
        processes::resume(&self.nodes(site).await?)
    }
}
