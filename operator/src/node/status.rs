//! What the site's keeper sees of its nodes.

use diptych_api::StorageNode;
use diptych_api::storage_node::{DeviceStatus, StorageNodeStatus};
use diptych_site::status::{NodeStatus, SiteStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

use crate::apply::Child;
use crate::conditions::{Says, conditions};
use crate::error::OperatorError;
use crate::names::Names;

/// The statuses that are no longer as they stand.
pub fn statuses<'a>(
    names: &Names,
    nodes: impl Iterator<Item = &'a StorageNode>,
    site: Option<&SiteStatus>,
    now: Timestamp,
) -> Result<Vec<Child>, OperatorError> {
    let mut changed = Vec::new();
    for node in nodes {
        let of_place = site.map(|site| match (&node.spec.outside, &site.outside) {
            (None, _) => site.nodes.as_slice(),
            (Some(_), Some(outside)) => outside.nodes.as_slice(),
            (Some(_), None) => &[],
        });
        let mut of_place = of_place.into_iter().flatten();
        let seen = of_place.find(|seen| seen.name == node.spec.node);
        let status = status(names, node, seen, now);
        if node.status.as_ref() != Some(&status) {
            changed.push(Child::new(json!({
                "apiVersion": "diptych.dev/v1alpha1", "kind": "StorageNode",
                "metadata": {"name": node.name_any(), "namespace": names.namespace}, "status": status,
            }))?);
        }
    }
    Ok(changed)
}

fn status(names: &Names, node: &StorageNode, seen: Option<&NodeStatus>, now: Timestamp) -> StorageNodeStatus {
    let before = node.status.clone().unwrap_or_default();
    let devices: Vec<DeviceStatus> = seen.iter().flat_map(|seen| &seen.devices).map(device).collect();
    let ready = devices.iter().filter(|device| works(&device.state)).count();
    let sum = |of: fn(&DeviceStatus) -> i64| devices.iter().map(of).sum::<i64>();
    let state = seen.map_or("waiting", |seen| seen.state.as_str());
    let says = match state {
        "live" if devices.is_empty() && node.spec.outside.is_some() => {
            Says::yes("Ready", "Live", "the active site looks at this node, and says that it answers")
        }
        "draining" | "drained" if ready == node.spec.devices.len() => {
            Says::yes("Ready", "Draining", "the node answers and all its devices work; it takes no rows")
        }
        "live" if ready == node.spec.devices.len() => {
            let slow: Vec<&str> = seen.into_iter().flat_map(NodeStatus::slow_devices).collect();
            let slow = if slow.is_empty() { String::new() } else { format!("; slow: {}", slow.join(", ")) };
            Says::yes("Ready", "Live", format!("the node answers and all its devices work{slow}"))
        }
        "live" | "draining" | "drained" => Says::no("Ready", "DevicesMissing", broken(node, &devices)),
        "waiting" if node.spec.outside.is_some() => Says::unknown("Ready", "Waiting", to_join(names, node)),
        "waiting" => {
            Says::unknown("Ready", "Waiting", "the site's keeper has not seen this node's agent yet")
        }
        "silent" => Says::no("Ready", "Silent", "the node does not answer; its rows are still counted"),
        "dead" => Says::no(
            "Ready",
            "Dead",
            "the node was silent for repair.nodeDeadAfter: its rows are rebuilt elsewhere",
        ),
        other => Says::no("Ready", "NotLive", format!("the node is {other}")),
    };
    let mut all_says = vec![says];
    all_says.extend(drained(node, seen));
    StorageNodeStatus {
        observed_generation: node.metadata.generation,
        state: Some(state.to_owned()),
        domain: match seen {
            Some(seen) => seen.domain.clone().map(String::from),
            None => before.domain.clone(),
        },
        address: Some(match &node.spec.outside {
            Some(outside) => outside.address.clone(),
            None => names.host(&names.agent_service(&node.spec.node)),
        }),
        devices_ready: Some(format!("{ready}/{}", node.spec.devices.len())),
        used: Some(format!("{}/{}", size(sum(|device| device.used)), size(sum(|device| device.capacity)))),
        rows: Some(sum(|device| device.rows)),
        rotten: Some(sum(|device| device.rotten)),
        devices,
        conditions: conditions(&before.conditions, &all_says, node.metadata.generation, now),
    }
}

/// Condition Drained; None: nothing of it shall be emptied.
fn drained(node: &StorageNode, seen: Option<&NodeStatus>) -> Option<Says> {
    if !node.spec.drain && !node.spec.devices.iter().any(|device| device.drain) {
        return None;
    }
    let says = match seen.map(|seen| (seen.state.as_str(), seen.drain.as_ref())) {
        Some(("dead", _)) => Says::no(
            "Drained",
            "Dead",
            "a dead node is not emptied: its rows are made anew elsewhere. Delete the StorageNode when nothing is degraded",
        ),
        Some((_, Some(drain))) if drain.done => Says::yes(
            "Drained",
            "Empty",
            "no row is left there. Take the node, or the device, away, or set drain to false",
        ),
        Some((_, Some(drain))) => {
            let left = format!("{} rows ({}) are left", drain.rows, size(drain.bytes as i64));
            match &drain.why {
                Some(why) if drain.stuck > 0 => Says::no(
                    "Drained",
                    "Stuck",
                    format!("{left}; those of {} extents stay: {why}", drain.stuck),
                ),
                Some(why) => Says::no("Drained", "Stuck", why.clone()),
                None => Says::no("Drained", "Moving", left),
            }
        }
        Some((_, None)) | None => {
            Says::unknown("Drained", "Asked", "the site's keeper has not taken it up yet")
        }
    };
    Some(says)
}

/// A device that can be read and written.
fn works(state: &str) -> bool {
    matches!(state, "ok" | "slow" | "full" | "draining" | "drained")
}

fn to_join(names: &Names, node: &StorageNode) -> String {
    let secret = names.outside_token(&node.spec.node);
    format!(
        "the node has not joined yet: run `diptych node-agent --token FILE --folder FOLDER --listen ADDRESS` there, with \
         entry token.json of Secret {secret} as FILE; a token is good once and for 7 days"
    )
}

fn broken(node: &StorageNode, devices: &[DeviceStatus]) -> String {
    let wrong = node.spec.devices.iter().filter_map(|declared| {
        let found = devices.iter().find(|device| device.path == declared.path);
        let state = found.map_or("not reported", |device| device.state.as_str());
        (!works(state)).then(|| format!("{} is {state}", declared.path))
    });
    wrong.collect::<Vec<_>>().join("; ")
}

fn device(seen: &diptych_site::status::DeviceStatus) -> DeviceStatus {
    let scrubbed =
        (seen.scrubbed_ms > 0).then(|| Timestamp::from_millisecond(seen.scrubbed_ms as i64).ok()).flatten();
    DeviceStatus {
        id: i64::from(seen.id),
        path: seen.path.clone(),
        state: if seen.slow && seen.state == "ok" { "slow".to_owned() } else { seen.state.clone() },
        capacity: seen.capacity as i64,
        used: seen.used as i64,
        rows: seen.rows as i64,
        rotten: seen.rotten as i64,
        scrubbed_at: scrubbed.map(Time::from),
    }
}

/// `1.2Gi`
pub(crate) fn size(bytes: i64) -> String {
    let units = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0}{}", units[unit])
    } else {
        format!("{value:.1}{}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use diptych_site::status::DrainStatus;

    use super::*;

    #[test]
    fn a_drain_says_how_far_it_is_and_why_it_goes_no_further() {
        let spec = json!({"clusterRef": {"name": "main"}, "node": "n1", "drain": true, "devices": []});
        let node = StorageNode::new("main-n1", serde_json::from_value(spec).expect("a spec"));
        let says = |state: &str, drain: Option<DrainStatus>| {
            let (name, state) = ("n1".to_owned(), state.to_owned());
            let seen = NodeStatus { name, state, domain: None, drain, devices: Vec::new() };
            let says = drained(&node, Some(&seen)).expect("it shall be emptied");
            (says.holds, says.reason, says.message)
        };
        let left = DrainStatus { rows: 3, bytes: 3 << 20, ..DrainStatus::default() };
        assert_eq!(
            says("draining", Some(left.clone())),
            (Some(false), "Moving".to_owned(), "3 rows (3.0Mi) are left".to_owned())
        );
        let stuck = DrainStatus { stuck: 2, why: Some("too few nodes".to_owned()), ..left };
        let (_, reason, message) = says("draining", Some(stuck));
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("Stuck", "3 rows (3.0Mi) are left; those of 2 extents stay: too few nodes")
        );
        let (holds, reason, _) = says("drained", Some(DrainStatus { done: true, ..DrainStatus::default() }));
        assert_eq!((holds, reason.as_str()), (Some(true), "Empty"));
        assert_eq!(says("dead", None).1, "Dead");
        assert_eq!(says("live", None).0, None);
    }

    #[test]
    fn sizes_read_as_kubernetes_writes_them() {
        for (bytes, text) in
            [(0, "0"), (1023, "1023"), (1536, "1.5Ki"), (300 << 20, "300Mi"), (5 << 40, "5.0Ti")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
