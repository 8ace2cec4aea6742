//! What people see: status, conditions, Events, and the flag for other workloads.

use std::collections::BTreeMap;

use diptych_api::storage_cluster_status::{
    CodingStatus, Endpoints, FilesStatus, HealthStatus, NodesStatus, ReplicationStatus, StorageClusterStatus,
};
use diptych_core::records::CodingPlan;
use diptych_site::status::SiteStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::runtime::events::EventType;
use serde_json::json;

use super::{Context, Observed, Plan, SiteSeen};
use crate::apply::Child;
use crate::conditions::{Says, conditions, turned};
use crate::error::OperatorError;
use crate::file::Projection;
use crate::names::{Names, PEER_PORT, REST_PORT, S3_PORT};
use crate::node::size;
use crate::{events, flag, node};

/// Writes what has changed.
pub(super) async fn report(
    context: &Context,
    names: &Names,
    seen: &Observed,
    plan: &Plan,
    failure: Option<&OperatorError>,
) -> Result<(), OperatorError> {
    let before = seen.cluster.status.clone().unwrap_or_default();
    let projection = context.projection.borrow().clone();
    let mut says = says(seen, plan, failure);
    says.extend(projection.as_ref().map(projected));
    let mut status = status(names, seen, plan, &before, &says);
    if let Some(projection) = projection {
        status.projected_files = Some(projection.shown as i64);
        status.files = Some(files(&projection));
    }
    let mut changed = node::statuses(
        names,
        &seen.nodes,
        seen.site.as_ref().and_then(|site| site.status.as_ref()),
        seen.now,
    )?;
    if is_news(&before, &status) {
        changed.push(Child::new(json!({
            "apiVersion": "diptych.dev/v1alpha1", "kind": "StorageCluster",
            "metadata": {"name": names.cluster, "namespace": names.namespace}, "status": status,
        }))?);
    }
    for child in changed {
        child.apply_status(&context.options.client).await?;
    }
    if let Some(site) = &seen.site {
        for child in flag::flag(names, &seen.cluster.spec.site, site)? {
            context.applied.apply(&context.options.client, &child).await?;
        }
    }
    let about = seen.cluster.object_ref(&());
    for says in turned(&before.conditions, &says) {
        let warns = says.holds == Some(false) && says.kind != "Degraded" && says.kind != "Progressing";
        let type_ = if warns { EventType::Warning } else { EventType::Normal };
        let note = format!("{}: {}", says.kind, says.message);
        events::tell(&context.events, &about, type_, &says.reason, &note, "Reconcile").await;
    }
    let role = |status: &StorageClusterStatus| (status.role.clone(), status.epoch, status.active.clone());
    if role(&before) != role(&status)
        && let (Some(role), Some(epoch)) = (&status.role, status.epoch)
    {
        let note = format!("this site is {role} under epoch {epoch}");
        events::tell(&context.events, &about, EventType::Normal, "RoleChanged", &note, "Reconcile").await;
    }
    Ok(())
}

/// The time of the look alone is none, unless what stands there is old.
fn is_news(before: &StorageClusterStatus, status: &StorageClusterStatus) -> bool {
    let timeless = |status: &StorageClusterStatus| StorageClusterStatus {
        seen_at: None,
        lease_expires_at: None,
        ..status.clone()
    };
    let second = |status: &StorageClusterStatus| status.seen_at.as_ref().map_or(0, |seen| seen.0.as_second());
    timeless(before) != timeless(status) || second(status) - second(before) >= 10
}

fn says(seen: &Observed, plan: &Plan, failure: Option<&OperatorError>) -> Vec<Says> {
    let site = seen.site.as_ref().and_then(|site| site.status.as_ref());
    let mut all = vec![ready(seen, plan, failure), topology(plan)];
    all.push(match (&plan.waiting, failure, &plan.refused) {
        (None, None, None) => Says::no("Progressing", "Settled", "everything that is declared runs"),
        (Some(waiting), ..) => Says::yes("Progressing", waiting.reason(), waiting.message()),
        (_, Some(error), _) => Says::yes("Progressing", error.category(), error.chain()),
        (_, _, Some((reason, sentence))) => Says::no("Progressing", reason, sentence.clone()),
    });
    all.push(match site {
        None => Says::unknown("Degraded", "Unknown", "the site's keeper has written no status yet"),
        Some(site) => degraded(site),
    });
    if seen.cluster.spec.peer.is_some() {
        all.extend(two_sites(site));
    }
    all
}

/// What only two sites have.
fn two_sites(site: Option<&SiteStatus>) -> Vec<Says> {
    let Some(site) = site else {
        let unknown = |kind| Says::unknown(kind, "Unknown", "the site's keeper has written no status yet");
        return ["PeerConnected", "WitnessReachable", "FailoverReady"].map(unknown).into();
    };
    let lease = &site.lease;
    let peer = if lease.peer_connected {
        Says::yes("PeerConnected", "Answers", "the other site's keeper answers")
    } else {
        Says::no("PeerConnected", "Silent", "the other site's keeper does not answer")
    };
    let witness = if lease.witness_reachable {
        Says::yes("WitnessReachable", "Answers", "the witness answered the last call")
    } else {
        Says::no("WitnessReachable", "Silent", "the witness did not answer the last call")
    };
    let ready = if !lease.peer_connected {
        Says::no("FailoverReady", "PeerSilent", "the other site does not answer")
    } else if lacking(site).is_some() {
        Says::no("FailoverReady", "Exposed", "something lies in one site only: see status.replication")
    } else if lease.witness_reachable {
        Says::yes("FailoverReady", "CaughtUp", "both sites have everything, and the witness answers")
    } else {
        Says::no("FailoverReady", "WitnessSilent", "without the witness only a planned switch works")
    };
    vec![peer, witness, ready]
}

/// Bytes that one site has and the other lacks, and for how many seconds; None: nothing.
///
/// The active site knows what the other lacks, the passive one what it lacks itself.
fn lacking(site: &SiteStatus) -> Option<(u64, u64)> {
    let health = &site.health;
    if site.role != "active" {
        return (health.wanted > 0).then_some((health.wanted_bytes, 0));
    }
    let exposure = site.exposure.as_ref()?;
    let lacks = exposure.extents > 0 || exposure.commits > 0;
    lacks.then_some((exposure.bytes, exposure.age_ms / 1000))
}

fn files(projection: &Projection) -> FilesStatus {
    let of = |number: fn(&(u64, u64)) -> u64| -> BTreeMap<String, i64> {
        projection.by_state.iter().map(|(state, seen)| (state.clone(), number(seen) as i64)).collect()
    };
    let (by_state, bytes_by_state) = (of(|seen| seen.0), of(|seen| seen.1));
    let (total, bytes) = (by_state.values().sum(), bytes_by_state.values().sum());
    FilesStatus { total, bytes, by_state, bytes_by_state }
}

fn projected(projection: &Projection) -> Says {
    let Projection { shown, by_state, limit } = projection;
    let total: u64 = by_state.values().map(|(files, _)| files).sum();
    if total > *limit {
        let message = format!(
            "{total} files are kept; catalog.projectionLimit shows {limit} of them, and {shown} in all with those declared or unhealthy"
        );
        return Says::no("FilesProjected", "LimitReached", message);
    }
    Says::yes(
        "FilesProjected",
        "All",
        "every file that came in through the gateways is shown as a FileObject",
    )
}

fn ready(seen: &Observed, plan: &Plan, failure: Option<&OperatorError>) -> Says {
    if let Some((reason, sentence)) = &plan.refused {
        return Says::no("Ready", reason, sentence.clone());
    }
    if let Some(error) = failure {
        return Says::no("Ready", error.category(), error.chain());
    }
    let site = seen.site.as_ref().and_then(|site| site.status.as_ref());
    // Gateways are not ready either then; the lease says why.
    if let Some(site) = site.filter(|site| site.role == "fenced")
        && let (Some(reason), Some(sentence)) = (&site.lease.waiting, &site.lease.waiting_for)
    {
        return Says::no("Ready", reason, format!("the site is fenced and serves nothing: {sentence}"));
    }
    if let Some(waiting) = &plan.waiting {
        return Says::no("Ready", waiting.reason(), waiting.message());
    }
    match site.map(|site| site.role.as_str()) {
        Some(role @ ("active" | "passive")) => {
            Says::yes("Ready", "Serving", format!("the site is {role} and serves"))
        }
        Some(role) => Says::no("Ready", "NotServing", format!("the site is {role} and serves nothing yet")),
        None => Says::no("Ready", "WaitingForKeeper", "the site's keeper has written no status yet"),
    }
}

fn topology(plan: &Plan) -> Says {
    match (&plan.coding, &plan.refused) {
        (Some(coding), _) => Says::yes("TopologySurvives", "Planned", coding.to_string()),
        (None, Some((reason @ "CannotSurvive", sentence))) => {
            Says::no("TopologySurvives", reason, sentence.clone())
        }
        (None, _) => Says::unknown("TopologySurvives", "NotPlanned", "the nodes are not known yet"),
    }
}

fn degraded(site: &SiteStatus) -> Says {
    let health = &site.health;
    let down: Vec<&str> =
        site.nodes.iter().filter(|node| node.state != "live").map(|node| node.name.as_str()).collect();
    if health.unreadable_here > 0 {
        return Says::yes(
            "Degraded",
            "TooFewRows",
            format!("{} extents have fewer rows left in this site than are needed", health.unreadable_here),
        );
    }
    if health.degraded > 0 {
        return Says::yes(
            "Degraded",
            "RowsMissing",
            format!(
                "{} of {} extents lack rows; {} wait for repair",
                health.degraded,
                health.extents,
                site.repair.queue()
            ),
        );
    }
    if !down.is_empty() {
        return Says::yes("Degraded", "NodesDown", format!("not live: {}", down.join(", ")));
    }
    Says::no("Degraded", "Whole", format!("all {} extents have all their rows", health.extents))
}

fn status(
    names: &Names,
    seen: &Observed,
    plan: &Plan,
    before: &StorageClusterStatus,
    says: &[Says],
) -> StorageClusterStatus {
    let generation = seen.cluster.metadata.generation;
    let site = seen.site.as_ref();
    let known = site.and_then(|site| site.status.as_ref());
    let host = |service: &str, port: u16| format!("{}:{port}", names.host(&names.child(service)));
    let cluster_id = seen
        .secrets
        .get(&names.child("authority"))
        .and_then(|secret| crate::secrets::text(secret, "cluster-id").ok());
    let coding = site
        .and_then(|site| site.coding.as_ref())
        .map(coding)
        .or_else(|| plan.coding.as_ref().map(|plan| coding(&CodingPlan::from(plan))));
    StorageClusterStatus {
        observed_generation: generation,
        cluster_id: cluster_id.or_else(|| before.cluster_id.clone()),
        lease_expires_at: known
            .filter(|known| known.lease.until_ms > 0)
            .and_then(|known| Timestamp::from_millisecond(known.lease.until_ms as i64).ok())
            .map(Time::from),
        files: before.files.clone(),
        role: known.map(|known| known.role.clone()).or_else(|| before.role.clone()),
        active: active(seen, site).or_else(|| before.active.clone()),
        epoch: known.map(|known| known.epoch.0 as i64).or(before.epoch),
        coding,
        nodes: Some(nodes(seen, known)),
        health: known.map(health).or_else(|| before.health.clone()),
        replication: known.map(|known| replication(seen, known)).or_else(|| before.replication.clone()),
        endpoints: Some(Endpoints {
            s3: host("gateway", S3_PORT),
            rest: host("gateway", REST_PORT),
            peer: host("peer", PEER_PORT),
        }),
        projected_files: before.projected_files,
        seen_at: known
            .and_then(|known| Timestamp::from_millisecond(known.seen_ms as i64).ok())
            .map(Time::from),
        conditions: conditions(&before.conditions, says, generation, seen.now),
    }
}

fn active(seen: &Observed, site: Option<&SiteSeen>) -> Option<String> {
    let site = site?;
    match site.status.as_ref().map(|status| status.role.as_str()) {
        Some("active") => Some(seen.cluster.spec.site.clone()),
        _ => site.active.clone().filter(|active| *active != seen.cluster.spec.site),
    }
}

fn coding(plan: &CodingPlan) -> CodingStatus {
    let total: u32 = plan.rows.iter().map(|(_, rows)| u32::from(*rows)).sum();
    let rows: BTreeMap<String, i32> =
        plan.rows.iter().map(|(site, rows)| (site.to_string(), i32::from(*rows))).collect();
    let mut kinds: Vec<String> =
        plan.rows.iter().map(|(_, rows)| format!("{} of {rows}", plan.needed)).collect();
    kinds.dedup();
    CodingStatus {
        summary: kinds.join(", "),
        needed: i32::from(plan.needed),
        rows,
        overhead: format!("{:.2}", f64::from(total) / f64::from(plan.needed.max(1))),
    }
}

fn nodes(seen: &Observed, known: Option<&SiteStatus>) -> NodesStatus {
    let count = |state: &str| {
        known.iter().flat_map(|known| &known.nodes).filter(|node| node.state == state).count() as i32
    };
    let (declared, live) = (seen.nodes.len() as i32, count("live"));
    NodesStatus { summary: format!("{live}/{declared}"), declared, live, dead: count("dead") }
}

fn health(known: &SiteStatus) -> HealthStatus {
    let health = &known.health;
    HealthStatus {
        extents: health.extents as i64,
        bytes: health.bytes as i64,
        whole: health.whole as i64,
        degraded: health.degraded as i64,
        unreadable_here: health.unreadable_here as i64,
        margin: health.margin.iter().map(|(margin, extents)| (margin.to_string(), *extents as i64)).collect(),
        repair_queue: known.repair.queue() as i64,
    }
}

fn replication(seen: &Observed, known: &SiteStatus) -> ReplicationStatus {
    let health = &known.health;
    let Some(exposure) = &known.exposure else {
        let protected = if seen.cluster.spec.peer.is_some() { "?" } else { "-" };
        return ReplicationStatus {
            protected: protected.to_owned(),
            exposed: "-".to_owned(),
            ..ReplicationStatus::default()
        };
    };
    let active = known.role == "active";
    let lacks = if active { exposure.extents } else { health.wanted };
    let all = health.extents.max(health.whole) + health.wanted;
    let exposed = match lacking(known) {
        None => "0".to_owned(),
        Some((bytes, 0)) => size(bytes as i64),
        Some((bytes, seconds)) => format!("{} in {seconds}s", size(bytes as i64)),
    };
    ReplicationStatus {
        protected: format!("{}/{all}", all.saturating_sub(lacks)),
        exposed,
        extents_exposed: exposure.extents as i64,
        bytes_exposed: exposure.bytes as i64,
        commits_exposed: exposure.commits as i64,
        lag_seconds: if active { (exposure.age_ms / 1000) as i64 } else { 0 },
        wanted: health.wanted as i64,
    }
}
