//! The flag for other workloads: a ConfigMap and labels of the namespace that say who is active.

use serde_json::json;

use crate::apply::Child;
use crate::cluster::SiteSeen;
use crate::error::OperatorError;
use crate::names::Names;

/// Name of the ConfigMap.
pub const CONFIG_MAP: &str = "diptych-role";

/// ConfigMap and labels; nothing while the site's role is not known.
pub fn flag(names: &Names, site: &str, seen: &SiteSeen) -> Result<Vec<Child>, OperatorError> {
    let Some(status) = &seen.status else { return Ok(Vec::new()) };
    let epoch = status.epoch.to_string();
    let active = seen.active.clone().unwrap_or_default();
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": names.meta(CONFIG_MAP, "flag"),
        "data": {"site": site, "role": status.role, "epoch": epoch, "active": active},
    });
    let labels = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": names.namespace, "labels": {"diptych.dev/role": status.role, "diptych.dev/epoch": epoch}},
    });
    Ok(vec![Child::new(config)?, Child::new(labels)?])
}
