//! What people see: status, conditions, Events, and the flag for other workloads.

use std::collections::BTreeMap;

use diptych_api::storage_cluster_status::{
    CodingStatus, Endpoints, FailbackStatus, FilesStatus, HealthStatus, NodesStatus, ReplicationStatus,
    StorageClusterStatus,
};
use diptych_core::records::CodingPlan;
use diptych_site::status::{KeysStatus, NodeStatus, OutsideStatus, SiteStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::runtime::events::EventType;
use serde_json::json;

use super::{Context, Observed, Plan, SiteSeen, failover};
use crate::apply::Child;
use crate::conditions::{Says, conditions, turned};
use crate::error::OperatorError;
use crate::file::Projection;
use crate::names::{Names, PEER_PORT, REST_PORT, S3_PORT};
use crate::node::size;
use crate::{events, flag, issuer, node};

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
    let site = seen.site.as_ref().and_then(|site| site.status.as_ref());
    let nodes = seen.nodes.iter().chain(&seen.outside);
    let mut changed = node::statuses(names, nodes, site, seen.now)?;
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
        failback: status.failback.clone().map(|failback| FailbackStatus { due_at: None, ..failback }),
        ..status.clone()
    };
    let second = |status: &StorageClusterStatus| status.seen_at.as_ref().map_or(0, |seen| seen.0.as_second());
    timeless(before) != timeless(status) || second(status) - second(before) >= 10
}

fn says(seen: &Observed, plan: &Plan, failure: Option<&OperatorError>) -> Vec<Says> {
    let site = seen.site.as_ref().and_then(|site| site.status.as_ref());
    let mut all = vec![ready(seen, plan, failure), topology(plan)];
    all.push(match (&plan.waiting, failure, &plan.refused) {
        (None, None, None) => settled(seen.cluster.metadata.generation, site),
        (Some(waiting), ..) => Says::yes("Progressing", waiting.reason(), waiting.message()),
        (_, Some(error), _) => Says::yes("Progressing", error.category(), error.chain()),
        (_, _, Some((reason, sentence))) => Says::no("Progressing", reason, sentence.clone()),
    });
    all.push(match site {
        None => Says::unknown("Degraded", "Unknown", "the site's keeper has written no status yet"),
        Some(site) => degraded(site),
    });
    all.extend(site.and_then(|site| site.keys.as_ref()).map(key_rotation));
    all.extend(plan.issued.as_ref().map(issuer::Planned::says));
    if seen.cluster.spec.peer.is_some() {
        all.extend(failover::says(&seen.cluster.spec, site, seen.now));
    }
    all
}

/// True: nothing needs another cluster key than the newest.
fn key_rotation(keys: &KeysStatus) -> Says {
    match &keys.trouble {
        Some(trouble) => Says::no("KeyRotation", "KeyMissing", trouble.clone()),
        None if keys.over => Says::yes("KeyRotation", &keys.waiting, keys.waiting_for.clone()),
        None => Says::no("KeyRotation", &keys.waiting, keys.waiting_for.clone()),
    }
}

/// The keeper takes a new declaration by itself, a moment after the rest.
fn settled(declared: Option<i64>, site: Option<&SiteStatus>) -> Says {
    match site.map(|site| site.generation) {
        Some(runs) if Some(runs) != declared => {
            let declared = declared.unwrap_or_default();
            let says =
                format!("the site's keeper runs generation {runs} of the spec, {declared} is declared");
            Says::yes("Progressing", "KeeperBehind", says)
        }
        _ => Says::no("Progressing", "Settled", "everything that is declared runs"),
    }
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
        site.nodes.iter().filter(|node| !node.answers()).map(|node| node.name.as_str()).collect();
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
    if let Some(trouble) = &site.journal.trouble {
        let says = format!("nothing is freed, and a lost catalog would come back older: {trouble}");
        return Says::yes("Degraded", "JournalBehind", says);
    }
    if let Some(trouble) = &site.feed.trouble {
        return Says::yes("Degraded", "CatalogFull", trouble.clone());
    }
    if let Some(sentence) = site.outside.as_ref().and_then(lacking_outside) {
        return Says::yes("Degraded", "OutsideNodes", sentence);
    }
    if let Some(sentence) = slow_devices(&site.nodes) {
        return Says::yes("Degraded", "SlowDevices", sentence);
    }
    Says::no("Degraded", "Whole", format!("all {} extents have all their rows", health.extents))
}

/// Which devices take many times what the others take.
fn slow_devices(nodes: &[NodeStatus]) -> Option<String> {
    let of = |node: &NodeStatus| -> Vec<String> {
        node.slow_devices().map(|path| format!("{path} on {}", node.name)).collect()
    };
    let slow: Vec<String> = nodes.iter().flat_map(of).collect();
    (!slow.is_empty()).then(|| {
        format!(
            "reads go around them, and a drain empties them: these take many times what the others take: {}",
            slow.join(", ")
        )
    })
}

/// Why the rows outside are fewer than declared, or not safe there; the sites' own are not touched by it.
fn lacking_outside(outside: &OutsideStatus) -> Option<String> {
    let (rows, declared) = (usize::from(outside.rows), outside.nodes.len());
    if rows > declared {
        return Some(format!(
            "outside.rows asks for {rows} rows, a row a node, and {declared} nodes outside are declared: \
             declare more StorageNodes with spec.outside, or fewer rows"
        ));
    }
    let down: Vec<String> = outside
        .nodes
        .iter()
        .filter(|node| !node.answers())
        .map(|node| format!("{} is {}", node.name, node.state))
        .collect();
    (!down.is_empty()).then(|| format!("outside nodes: {}", down.join(", ")))
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
        generation_in_force: known
            .map(|known| known.generation)
            .filter(|generation| *generation > 0)
            .or(before.generation_in_force),
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
        prediction: known.and_then(failover::prediction),
        edge: known.and_then(|known| failover::edge(&seen.cluster.spec, known)),
        failback: known.and_then(failover::failback),
        last_drill: known.and_then(failover::last_drill).or_else(|| before.last_drill.clone()),
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
    let count = |is: fn(&NodeStatus) -> bool| {
        known.iter().flat_map(|known| &known.nodes).filter(|node| is(node)).count() as i32
    };
    let (declared, live) = (seen.nodes.len() as i32, count(NodeStatus::answers));
    let outside = known.and_then(|known| known.outside.as_ref()).filter(|outside| !outside.nodes.is_empty());
    let outside = outside.map(|outside| {
        let live = outside.nodes.iter().filter(|node| node.answers()).count();
        format!("{live}/{}", outside.nodes.len())
    });
    NodesStatus {
        summary: format!("{live}/{declared}"),
        declared,
        live,
        dead: count(|node| node.state == "dead"),
        outside,
    }
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
        outside_rows: health.outside_rows as i64,
        outside_lacking: health.outside_lacking as i64,
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
    let exposed = match failover::lacking(known) {
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
        objects_exposed: exposure.objects as i64,
        lag_seconds: if active { (exposure.age_ms / 1000) as i64 } else { 0 },
        wanted: health.wanted as i64,
    }
}

#[cfg(test)]
mod tests {
    use diptych_site::status::{FeedStatus, JournalStatus};

    use super::*;

    #[test]
    fn a_journal_that_is_not_written_is_a_reason_to_be_degraded() {
        let mut site = json!({
            "site": "east", "role": "active", "epoch": 1, "map_generation": 1, "nodes": [],
            "health": diptych_site::survey::Health::default(), "exposure": null, "seen_ms": 0,
        });
        let says = |site: &serde_json::Value| {
            let says = degraded(&serde_json::from_value(site.clone()).expect("a status"));
            (says.holds, says.reason)
        };
        assert_eq!(says(&site), (Some(false), "Whole".to_owned()));
        let journal = JournalStatus { trouble: Some("no room".to_owned()), ..JournalStatus::default() };
        site["journal"] = serde_json::to_value(journal).expect("JSON");
        assert_eq!(says(&site), (Some(true), "JournalBehind".to_owned()));
    }

    #[test]
    fn a_slow_device_is_named() {
        let device = |path: &str, slow: bool| {
            json!({"id": 1, "path": path, "state": "ok", "slow": slow, "capacity": 1, "used": 0, "rows": 0, "rotten": 0,
                "scrubbed_ms": 0})
        };
        let site: SiteStatus = serde_json::from_value(json!({
            "site": "east", "role": "active", "epoch": 1, "map_generation": 1, "exposure": null, "seen_ms": 0,
            "nodes": [{"name": "n1", "state": "live", "devices": [device("/d0", false), device("/d1", true)]}],
            "health": diptych_site::survey::Health::default(),
        }))
        .expect("a status");
        let says = degraded(&site);
        assert_eq!((says.holds, says.reason), (Some(true), "SlowDevices".to_owned()));
        assert!(says.message.ends_with("what the others take: /d1 on n1"), "{}", says.message);
    }

    #[test]
    fn a_catalog_that_is_short_of_room_is_a_reason_to_be_degraded() {
        let site: SiteStatus = serde_json::from_value(json!({
            "site": "east", "role": "active", "epoch": 1, "map_generation": 1, "nodes": [],
            "health": diptych_site::survey::Health::default(), "exposure": null, "seen_ms": 0,
            "feed": FeedStatus { trouble: Some("nearly full".to_owned()), ..FeedStatus::default() },
        }))
        .expect("a status");
        let says = degraded(&site);
        assert_eq!((says.holds, says.reason), (Some(true), "CatalogFull".to_owned()));
    }

    #[test]
    fn a_spec_is_settled_when_the_keeper_runs_it() {
        let mut site: SiteStatus = serde_json::from_value(json!({
            "site": "east", "role": "active", "epoch": 1, "generation": 3, "map_generation": 1, "nodes": [],
            "health": diptych_site::survey::Health::default(), "exposure": null, "seen_ms": 0,
        }))
        .expect("a status");
        let behind = settled(Some(4), Some(&site));
        assert_eq!((behind.holds, behind.reason.as_str()), (Some(true), "KeeperBehind"));
        site.generation = 4;
        assert_eq!(settled(Some(4), Some(&site)).holds, Some(false));
        assert_eq!(settled(Some(4), None).holds, Some(false), "other conditions say that there is no keeper");
    }

    fn outside(rows: u8, states: &[&str]) -> OutsideStatus {
        let node = |(number, state): (usize, &&str)| NodeStatus {
            name: format!("o{number}"),
            state: (*state).to_owned(),
            domain: None,
            drain: None,
            devices: Vec::new(),
        };
        OutsideStatus { rows, nodes: states.iter().enumerate().map(node).collect() }
    }

    #[test]
    fn more_outside_rows_than_nodes_and_nodes_that_are_not_live_are_named() {
        assert_eq!(lacking_outside(&outside(2, &["live", "live"])), None);
        let few = lacking_outside(&outside(2, &["live"])).expect("a row a node");
        assert!(
            few.starts_with("outside.rows asks for 2 rows, a row a node, and 1 nodes outside are declared"),
            "{few}"
        );
        let down = lacking_outside(&outside(1, &["dead", "waiting", "live"]));
        assert_eq!(down.as_deref(), Some("outside nodes: o0 is dead, o1 is waiting"));
    }
}
