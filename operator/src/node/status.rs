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
    let ready = devices.iter().filter(|device| device.state == "ok" || device.state == "full").count();
    let sum = |of: fn(&DeviceStatus) -> i64| devices.iter().map(of).sum::<i64>();
    let state = seen.map_or("waiting", |seen| seen.state.as_str());
    let says = match state {
        "live" if devices.is_empty() && node.spec.outside.is_some() => {
            Says::yes("Ready", "Live", "the active site looks at this node, and says that it answers")
        }
        "live" if ready == node.spec.devices.len() => {
            Says::yes("Ready", "Live", "the node answers and all its devices work")
        }
        "live" => Says::no("Ready", "DevicesMissing", broken(node, &devices)),
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
    StorageNodeStatus {
        observed_generation: node.metadata.generation,
        state: Some(state.to_owned()),
        address: Some(match &node.spec.outside {
            Some(outside) => outside.address.clone(),
            None => names.host(&names.agent_service(&node.spec.node)),
        }),
        devices_ready: Some(format!("{ready}/{}", node.spec.devices.len())),
        used: Some(format!("{}/{}", size(sum(|device| device.used)), size(sum(|device| device.capacity)))),
        rows: Some(sum(|device| device.rows)),
        rotten: Some(sum(|device| device.rotten)),
        devices,
        conditions: conditions(&before.conditions, &[says], node.metadata.generation, now),
    }
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
        (state != "ok" && state != "full").then(|| format!("{} is {state}", declared.path))
    });
    wrong.collect::<Vec<_>>().join("; ")
}

fn device(seen: &diptych_site::status::DeviceStatus) -> DeviceStatus {
    let scrubbed =
        (seen.scrubbed_ms > 0).then(|| Timestamp::from_millisecond(seen.scrubbed_ms as i64).ok()).flatten();
    DeviceStatus {
        id: i64::from(seen.id),
        path: seen.path.clone(),
        state: seen.state.clone(),
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
    use super::*;

    #[test]
    fn sizes_read_as_kubernetes_writes_them() {
        for (bytes, text) in
            [(0, "0"), (1023, "1023"), (1536, "1.5Ki"), (300 << 20, "300Mi"), (5 << 40, "5.0Ti")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
