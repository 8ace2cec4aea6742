//! Faults of whole sites and of what they stand on. Through each a writer goes on by the public name, and both sites are asked who holds
//! the lease: every acknowledged record is there at the end, and never do two hold it at a time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::super::cluster::{Cluster, inside};
use super::super::outside::Outside;
use super::super::spec;
use super::cables;
use super::ground::{Ground, random, refusal, then_put_back};
use super::leases::{LeaseWatch, one_holder_at_a_time};
use super::plugin::Plugin;
use super::processes;
use crate::demo::installation::until;
use crate::demo::one_site::PATIENCE;
use crate::demo::table::Table;
use crate::demo::two_sites::{self, first_answer};
use crate::demo::writer::{self, Writer};

/// Records before a fault begins, and after it is over.
const GOES_ON: u64 = 20;
/// Two leases of the kind that the demo's values declare.
const TWO_LEASES: Duration = Duration::from_secs(6);
/// A line stays cut for so long at least: four leases.
const CUT_FOR: Duration = Duration::from_secs(12);
/// A takeover, also one behind a witness that was renewed lately.
const TAKEOVER: Duration = Duration::from_secs(30);
/// A takeover whose keepers are killed on the way.
const LATE_TAKEOVER: Duration = Duration::from_secs(90);
/// A client waits no longer.
const ANSWERED: Duration = Duration::from_secs(20);
/// Without an acknowledgement where only a planned switch moves the role.
const SWITCH: Duration = Duration::from_secs(10);
/// Without an acknowledgement while no role moves.
const UNDISTURBED: Duration = Duration::from_secs(6);
const OPERATORS: &str = "app.kubernetes.io/component=operator";
const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const ASIDE: &str = "/etc/kubernetes/kube-apiserver.yaml";

/// Each fault once, then both sites are well before the next.
pub(super) async fn all(table: &mut Table, ground: &Ground<'_>, short: bool) -> Result<()> {
    let away = if short { Duration::from_mins(1) } else { Duration::from_mins(10) };
    ground.told(partitioned(table, ground).await).await;
    ground.well(table).await?;
    ground.told(stopped(table, ground).await).await;
    ground.well(table).await?;
    ground.told(without_api_servers(table, ground, away).await).await;
    ground.well(table).await?;
    ground.told(operators_killed(table, ground).await).await;
    ground.well(table).await?;
    ground.told(members_lost(table, ground).await).await;
    ground.well(table).await?;
    ground.told(cut_from_cloudflare(table, ground).await).await;
    ground.well(table).await?;
    ground.told(promoted_by_a_person(table, ground).await).await;
    ground.well(table).await
}

/// Lets a fault happen under load, waits until both sites are well, and looks what became of records and lease. No write waits for
/// longer than `gap`.
async fn through(
    ground: &Ground<'_>,
    gap: Duration,
    fault: impl Future<Output = Result<String>>,
) -> Result<((), String)> {
    ground.until_well().await?;
    let [one, other] = ground.clusters;
    let leases = LeaseWatch::start(&ground.reach, [one.site, other.site])?;
    let begun = Instant::now();
    let writer = Writer::start_from(ground.reach.s3(Duration::ZERO)?, first_record()?);
    let seen = async {
        writer.has_written(GOES_ON).await?;
        let seen = fault.await?;
        writer.goes_on(GOES_ON).await?;
        // What was acknowledged by a site that was then taken over is back once its unseen term is merged.
        let well = ground.until_well().await?;
        writer.goes_on(GOES_ON).await?;
        anyhow::Ok(format!("{seen}; then {well}"))
    }
    .await;
    let acknowledged = writer.stop().await?;
    let said = leases.stop().await?;
    let held = one_holder_at_a_time(&said);
    let (seen, held) = match (seen, held) {
        (Ok(seen), Ok(held)) => (seen, held),
        // Two holders are worse than whatever was seen of the fault.
        (Err(error), Err(two)) => return Err(error.context(format!("{two:#}"))),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => return Err(error),
    };
    let missing = writer::missing(&*ground.reach.s3(PATIENCE)?, &acknowledged).await?;
    ensure!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), acknowledged.len());
    let longest = writer::longest_gap(&acknowledged, begun, Instant::now());
    ensure!(longest <= gap, "no write was acknowledged for {longest:?}, {gap:?} are allowed; {seen}; {held}");
    let (records, longest) = (acknowledged.len(), longest.as_secs_f64());
    Ok((
        (),
        format!(
            "{seen}; {records} records, none missing; longest without an acknowledgement {longest:.2} s; {held}"
        ),
    ))
}

/// A number that no earlier record has: milliseconds since 1970.
fn first_record() -> Result<u64> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64)
}

/// Waits until a site is active under a newer epoch than `epoch`; when it was.
async fn takes_over(ground: &Ground<'_>, site: &str, epoch: u64, limit: Duration) -> Result<u64> {
    until(&format!("{site} takes over"), limit, || async {
        let status = ground.status(site).await?;
        let done = status.role == "active" && status.epoch.0 > epoch;
        Ok(if done { Ok(status.epoch.0) } else { Err(format!("{} {:?}", status.role, status.lease)) })
    })
    .await
}

/// Waits until so much time has passed since a fault began.
async fn lasts(begun: Instant, length: Duration) {
    tokio::time::sleep_until((begun + length).into()).await;
}

/// The line between the sites, in both directions, then in each alone. Nobody takes over: the witness knows who holds the lease.
async fn partitioned(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    for (name, here, there) in [
        (
            "the line between both sites is cut: the holder goes on by the witness, nobody takes over",
            true,
            true,
        ),
        ("the passive site hears nothing of the active one, which hears it", false, true),
        ("the active site hears nothing of the passive one, which hears it", true, false),
    ] {
        table.step(name, through(ground, UNDISTURBED, cut_between(ground, here, there))).await?;
    }
    Ok(())
}

/// `here`: the active site hears nothing; `there`: the passive one.
async fn cut_between(ground: &Ground<'_>, here: bool, there: bool) -> Result<String> {
    let (active, passive) = ground.sites().await?;
    let epoch = ground.status(active.site).await?.epoch;
    let look = async {
        let begun = Instant::now();
        if here {
            cables::deafen(active, passive).await?;
        }
        if there {
            cables::deafen(passive, active).await?;
        }
        for cluster in [active, passive] {
            spec::says(cluster, "PeerConnected", "False Silent").await?;
        }
        not_forwarded(ground, passive.site).await?;
        lasts(begun, CUT_FOR).await;
        let (now, other) = (ground.status(active.site).await?, ground.status(passive.site).await?);
        ensure!(now.role == "active" && now.epoch == epoch, "{} is {} now", active.site, now.role);
        ensure!(other.role != "active", "{} is active too", passive.site);
        let exposure = now.exposure.context("no exposure")?;
        Ok(format!(
            "{:.0} s: {} stays active under epoch {epoch}, both say PeerConnected False Silent, a write at {} 503 SlowDown, \
             {} commits exposed",
            begun.elapsed().as_secs_f64(),
            active.site,
            passive.site,
            exposure.commits
        ))
    };
    let put_back = async {
        let healed = (cables::heal(active).await, cables::heal(passive).await);
        healed.0.and(healed.1)
    };
    then_put_back(look, put_back).await
}

/// A site that can't reach the active one says so to who would write.
async fn not_forwarded(ground: &Ground<'_>, site: &str) -> Result<()> {
    let (s3, key, bytes) =
        (ground.s3_of(site, Duration::ZERO)?, format!("unheard-{}", ground.run), random(1024)?);
    until(&format!("a write at {site} is refused"), Duration::from_mins(1), || async {
        let put = tokio::time::timeout(ANSWERED, s3.put(&key, bytes.clone())).await;
        Ok(match put {
            Ok(outcome) => refusal(outcome, 503, "SlowDown").map(drop),
            Err(_) => Err(format!("no answer in {ANSWERED:?}")),
        })
    })
    .await
}

/// Everything of the active site is stopped, the other takes over, and then it goes on where it was.
async fn stopped(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
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
        then_put_back(look, async { processes::resume(&nodes) }).await
    };
    let name = "SIGSTOP of everything on the active site for two leases and more, then SIGCONT";
    table.step(name, through(ground, TAKEOVER, fault)).await
}

async fn control_plane(cluster: &Cluster, words: &[&str]) -> Result<()> {
    let nodes = cluster.nodes().await?;
    let node = nodes.iter().find(|node| node.name.contains("control-plane"));
    inside(node.context("there is no control plane")?, words).await.map(drop)
}

async fn api_server_answers(cluster: &Cluster) -> bool {
    cluster.kubectl(&["get", "--raw", "/readyz", "--request-timeout=3s"]).await.is_ok()
}

/// Both API servers are away; files are written and read, and the lease changes hands.
async fn without_api_servers(table: &mut Table, ground: &Ground<'_>, away: Duration) -> Result<()> {
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
            let _: serde_json::Value =
                ground.reach.rest(active.site)?.post(&["api", "v1", "handover"]).await?;
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
        then_put_back(look, put_back).await
    };
    let name = "both API servers are away: files and the lease go on without them";
    table.step(name, through(ground, SWITCH, fault)).await
}

/// The active site falls silent, and the operators that are about to take over are killed.
async fn operators_killed(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
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
        then_put_back(look, async { processes::resume(&nodes) }).await
    };
    let name = "the operators that take over are killed in the middle of it";
    table.step(name, through(ground, LATE_TAKEOVER, fault)).await
}

/// One member of the active site's catalog, then two of three.
async fn members_lost(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let name = "a member of the active site's catalog is killed: files and lease go on";
    // Where it was etcd's leader the other two elect one, for longer than a lease may be.
    table.step(name, through(ground, TAKEOVER, members_killed(ground, &["main-catalog-0"]))).await?;
    let name =
        "two of three members of the active site's catalog are killed: the quorum is lost, and comes back";
    let two = ["main-catalog-1", "main-catalog-2"];
    table.step(name, through(ground, LATE_TAKEOVER, members_killed(ground, &two))).await
}

async fn members_killed(ground: &Ground<'_>, pods: &[&str]) -> Result<String> {
    let (active, _) = ground.sites().await?;
    let mut before = Vec::new();
    for pod in pods {
        before.push(active.get(&["pod", pod]).await?["metadata"]["uid"].take());
    }
    let begun = Instant::now();
    let kill = [&["delete", "pods", "--grace-period=0", "--force"], pods].concat();
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

/// Neither API nor edge of Cloudflare reaches the active site. That is no reason to take over from it.
async fn cut_from_cloudflare(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let fault = async {
        let (active, passive) = ground.sites().await?;
        let outside = Outside::running(ground.state)?.context("what runs outside the clusters is gone")?;
        let epoch = ground.status(active.site).await?.epoch;
        let begun = Instant::now();
        let look = async {
            cables::cut_from_cloudflare(active, &outside).await?;
            let said = until("the name can't be kept", Duration::from_mins(2), || async {
                let kept = active.condition_of(spec::OBJECT, "PublicNameKept").await?;
                let lost = kept["status"] == "False";
                Ok(if lost { Ok(kept["message"].to_string()) } else { Err(kept.to_string()) })
            })
            .await?;
            lasts(begun, CUT_FOR).await;
            let other = ground.status(passive.site).await?;
            ensure!(other.role == "passive" && other.epoch == epoch, "{} is {}", passive.site, other.role);
            Ok(format!(
                "{:.0} s: {} stays passive under epoch {epoch}, PublicNameKept of {} says {said}",
                begun.elapsed().as_secs_f64(),
                passive.site,
                active.site
            ))
        };
        then_put_back(look, cables::heal(active)).await
    };
    let name = "Cloudflare does not reach the active site, nor it Cloudflare: nobody takes over";
    // Nothing comes through the public name while nothing can: until the condition was seen, and a little more.
    table.step(name, through(ground, Duration::from_mins(3), fault)).await
}

/// With `failover.mode: Manual` the site that is left waits for `kubectl diptych promote`.
async fn promoted_by_a_person(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
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
        then_put_back(look, async { processes::resume(&nodes) }).await
    };
    let name =
        "failover.mode Manual: everything on the active site is stopped, kubectl diptych promote takes over";
    mode("Manual").await?;
    let played = table.step(name, through(ground, Duration::from_mins(4), fault)).await;
    then_put_back(async { played }, mode("Automatic")).await
}
