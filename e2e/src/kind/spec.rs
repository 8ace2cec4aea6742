//! What is declared by `kubectl patch`, and what conditions say of it.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::install::STORAGE_CLUSTER;
use crate::demo::installation::until;

/// The StorageCluster, as kubectl takes it.
pub const OBJECT: &str = "storagecluster/main";
/// Until a condition has turned: the passive site looks at the public name once a minute.
const PATIENCE: Duration = Duration::from_mins(3);

/// Changes fields of the StorageCluster's spec; the error is the API server's refusal.
pub async fn patch(cluster: &Cluster, spec: &Value) -> Result<()> {
    patch_of(cluster, OBJECT, spec).await
}

/// The same of any object, `KIND/NAME`.
pub async fn patch_of(cluster: &Cluster, object: &str, spec: &Value) -> Result<()> {
    let patch = json!({"spec": spec}).to_string();
    cluster.kubectl(&["patch", object, "--type=merge", "-p", patch.as_str()]).await.map(drop)
}

/// The same, and waits until the site's keeper and gateways run with it.
pub async fn declare(cluster: &Cluster, spec: &Value) -> Result<()> {
    patch(cluster, spec).await?;
    in_force(cluster).await?;
    rolled(cluster).await
}

/// Waits until the site's keeper runs the newest spec: the operator's objects are changed before it can.
async fn in_force(cluster: &Cluster) -> Result<()> {
    until("the StorageCluster's newest generation is in force", PATIENCE, || async {
        let seen = cluster.get(&[OBJECT]).await?;
        let generations =
            ["/metadata/generation", "/status/generationInForce"].map(|path| seen.pointer(path));
        Ok(if generations[0] == generations[1] { Ok(()) } else { Err(format!("{generations:?}")) })
    })
    .await
}

/// Waits until every gateway is of the newest kind.
pub async fn rolled(cluster: &Cluster) -> Result<()> {
    let gateways = format!("deployment/{STORAGE_CLUSTER}-gateway");
    cluster.kubectl(&["rollout", "status", gateways.as_str(), "--timeout=300s"]).await.map(drop)
}

/// Waits until a condition of the StorageCluster says `STATUS REASON`; its message.
pub async fn says(cluster: &Cluster, kind: &str, verdict: &str) -> Result<String> {
    said_of(cluster, OBJECT, kind, verdict).await
}

/// The same of any object, `KIND/NAME`.
pub async fn said_of(cluster: &Cluster, object: &str, kind: &str, verdict: &str) -> Result<String> {
    said_within(cluster, object, kind, verdict, PATIENCE).await
}

/// The same where it may take longer: bytes have to move first.
pub async fn said_within(
    cluster: &Cluster,
    object: &str,
    kind: &str,
    verdict: &str,
    limit: Duration,
) -> Result<String> {
    let what = format!("{kind} of {object} in {} says {verdict}", cluster.site);
    until(&what, limit, || async {
        let condition = cluster.condition_of(object, kind).await?;
        let text = |entry: &str| condition[entry].as_str().unwrap_or("-").to_owned();
        let said = format!("{} {}", text("status"), text("reason"));
        Ok(if said == verdict { Ok(text("message")) } else { Err(format!("{said}: {}", text("message"))) })
    })
    .await
}

/// Waits until an object, `KIND/NAME`, has what is looked for; what was found.
pub async fn shows<T>(
    cluster: &Cluster,
    object: &str,
    what: &str,
    limit: Duration,
    find: impl Fn(&Value) -> Option<T>,
) -> Result<T> {
    until(&format!("{object} in {} shows {what}", cluster.site), limit, || async {
        let seen = cluster.get(&[object]).await?;
        Ok(find(&seen).ok_or_else(|| seen["status"].to_string()))
    })
    .await
}
