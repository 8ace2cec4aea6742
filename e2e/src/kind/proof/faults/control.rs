//! What a site stands on: its API server, and the members of its catalog.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{LATE_TAKEOVER, TAKEOVER, lasts, takes_over, through};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::demo::two_sites;
use crate::kind::cluster::{Cluster, inside};
use crate::kind::proof::ground::{Ground, random, then_put_back};
use crate::kind::spec;

/// Without an acknowledgement where only a planned switch moves the role.
const SWITCH: Duration = Duration::from_secs(10);
const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const ASIDE: &str = "/etc/kubernetes/kube-apiserver.yaml";

async fn control_plane(cluster: &Cluster, words: &[&str]) -> Result<()> {
    let nodes = cluster.nodes().await?;
    let node = nodes.iter().find(|node| node.name.contains("control-plane"));
    inside(node.context("there is no control plane")?, words).await.map(drop)
}

async fn api_server_answers(cluster: &Cluster) -> bool {
    cluster.kubectl(&["get", "--raw", "/readyz", "--request-timeout=3s"]).await.is_ok()
}

/// Both API servers are away; files are written and read, and the lease changes hands.
pub(super) async fn without_api_servers(
    table: &mut Table,
    ground: &Ground<'_>,
    away: Duration,
) -> Result<()> {
    let fault = async {
        let (active, passive) = ground.sites().await?;
        let look = async {
            for cluster in ground.clusters {
                control_plane(cluster, &["mv", MANIFEST, ASIDE]).await?;
            }
            for cluster in ground.clusters {
                until(
                    &format!("the API server of {} is away", cluster.site),
                    Duration::from_mins(2),
                    || async {
                        Ok(if api_server_answers(cluster).await {
                            Err("it answers".to_owned())
                        } else {
                            Ok(())
                        })
                    },
                )
                .await?;
            }
            let begun = Instant::now();
            let (key, bytes) = (format!("no-api-{}", ground.run), random(4 << 20)?);
            ground.s3()?.put(&key, bytes.clone()).await?;
            let read = ground.read_in_both(&key, &bytes).await?;
            let epoch = ground.status(active.site).await?.epoch.0;
            let switched = Instant::now();
            two_sites::hand_over(&ground.reach, active.site).await?;
            takes_over(ground, passive.site, epoch, TAKEOVER).await?;
            let took = switched.elapsed().as_secs_f64();
            lasts(begun, away).await;
            for cluster in ground.clusters {
                ensure!(!api_server_answers(cluster).await, "{} has an API server again", cluster.site);
            }
            let still = ground.read_in_both(&key, &bytes).await?;
            Ok(format!(
                "{:.0} s without either API server: {read}, a planned switch in {took:.2} s, at the end {still}",
                begun.elapsed().as_secs_f64()
            ))
        };
        let put_back = async {
            for cluster in ground.clusters {
                control_plane(cluster, &["sh", "-c", &format!("test ! -f {ASIDE} || mv {ASIDE} {MANIFEST}")])
                    .await?;
            }
            for cluster in ground.clusters {
                until(
                    &format!("the API server of {} is back", cluster.site),
                    Duration::from_mins(3),
                    || async {
                        Ok(if api_server_answers(cluster).await {
                            Ok(())
                        } else {
                            Err("it is away".to_owned())
                        })
                    },
                )
                .await?;
                spec::says(cluster, "Ready", "True Serving").await?;
            }
            Ok(())
        };
        Box::pin(then_put_back(look, put_back)).await
    };
    let name = "both API servers are away: files and the lease go on without them";
    table.step(name, Box::pin(through(ground, SWITCH, fault))).await
}

/// One member of the active site's catalog, then two of three.
pub(super) async fn members_lost(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let name = "a member of the active site's catalog is killed: files and lease go on";
    // Where it was etcd's leader the other two elect one, for longer than a lease may be.
    table
        .step(name, Box::pin(through(ground, TAKEOVER, members_killed(ground, &["main-catalog-0"]))))
        .await?;
    let name =
        "two of three members of the active site's catalog are killed: the quorum is lost, and comes back";
    let two = ["main-catalog-1", "main-catalog-2"];
    table.step(name, Box::pin(through(ground, LATE_TAKEOVER, members_killed(ground, &two)))).await
}

async fn members_killed(ground: &Ground<'_>, pods: &[&str]) -> Result<String> {
    let (active, _) = ground.sites().await?;
    let mut before = Vec::new();
    for pod in pods {
        before.push(active.get(&["pod", pod]).await?["metadata"]["uid"].take());
    }
    let begun = Instant::now();
    let kill = [&["delete", "pods", "--grace-period=0", "--force"][..], pods].concat();
    active.kubectl(&kill).await?;
    for (pod, old) in pods.iter().zip(&before) {
        until(&format!("another {pod} is ready"), Duration::from_mins(5), || async {
            let seen = active.get(&["pod", pod]).await?;
            let ready = seen["status"]["containerStatuses"][0]["ready"] == true;
            let new = seen["metadata"]["uid"] != *old;
            Ok(if new && ready { Ok(()) } else { Err(format!("new {new}, ready {ready}")) })
        })
        .await?;
    }
    let took = begun.elapsed().as_secs_f64();
    Ok(format!("{} of {}: all members are ready again after {took:.1} s", pods.join(", "), active.site))
}
