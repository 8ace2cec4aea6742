//! StorageCluster: observe → validate → plan → build → apply → report.

pub mod build;
mod failover;
mod observe;
mod plan;
mod policy;
mod report;
mod retire;
mod switch;
mod validate;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diptych_api::StorageCluster;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;

use crate::apply::{Applied, Child};
use crate::error::{Asked, OperatorError};
use crate::names::Names;
use crate::node;
use crate::options::OperatorOptions;

pub use observe::{AgentPod, Observed, Ready, SiteSeen};
pub use plan::{Plan, Waiting, plan};
pub(crate) use policy::bytes;
pub use validate::{Declared, Invalid, joins, validate};

/// The status follows the catalog, which nobody watches from here.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// One that is ready is looked at no sooner, unless a person changed it: the statuses that are written here are news too, and change
/// all the time.
const REST: Duration = Duration::from_secs(3);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// What a reconciler works with.
pub struct Context {
    /// As the process was started.
    pub options: OperatorOptions,
    /// Events.
    pub events: Recorder,
    /// What the API server was given.
    pub applied: Applied,
    /// Looks at StorageClusters that were ready.
    pub looks: Looks,
    /// Files that are shown as FileObjects.
    pub projection: tokio::sync::watch::Receiver<Option<crate::file::Projection>>,
}

/// When a StorageCluster was looked at last, and how a person had left it.
#[derive(Default)]
pub struct Looks(Mutex<HashMap<String, (Instant, LeftAs)>>);

/// What a person changes: generation and annotations.
type LeftAs = (Option<i64>, BTreeMap<String, String>);

impl Looks {
    /// How long it may still rest; None: it is looked at now.
    fn rest(&self, cluster: &StorageCluster, now: Instant) -> Option<Duration> {
        let left_as = (cluster.metadata.generation, cluster.annotations().clone());
        let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
        let ready = conditions.into_iter().any(|says| says.type_ == "Ready" && says.status == "True");
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, known)) = looks.get(&cluster.name_any())
            && ready
            && *known == left_as
            && let Some(rest) = REST.checked_sub(now.duration_since(*last)).filter(|rest| !rest.is_zero())
        {
            return Some(rest);
        }
        looks.insert(cluster.name_any(), (now, left_as));
        None
    }
}

/// Brings a site one step nearer to what is declared, and says how it is.
///
/// # Errors
/// What could not be done; it stands in the conditions too.
pub async fn reconcile(cluster: Arc<StorageCluster>, context: Arc<Context>) -> Result<Action, OperatorError> {
    if cluster.metadata.deletion_timestamp.is_some() {
        // Its children go with it; what bytes hang on (Secrets, the catalog's disks, devices) is not owned by it.
        return retire::let_go(&context, &cluster).await;
    }
    let Some(names) = Names::new(&cluster, &context.options.release) else {
        return Ok(Action::await_change());
    };
    if let Some(rest) = context.looks.rest(&cluster, Instant::now()) {
        return Ok(Action::requeue(rest));
    }
    retire::hold(&context.options, &cluster).await?;
    let seen = Box::pin(observe::observe(&context.options, &names, cluster)).await?;
    let planned = match validate(&seen.cluster.spec, &seen) {
        Ok(declared) => plan(&names, &context.options, &declared, &seen),
        Err(invalid) => Ok(Plan::refused(&invalid)),
    };
    let (mut planned, mut failure) = match planned {
        Ok(planned) => (planned, None),
        Err(error) => (Plan::default(), Some(error)),
    };
    if let Err(error) = apply(&context, &planned.children).await {
        failure.get_or_insert(error);
    }
    if let Some(issued) = &mut planned.issued {
        issued.carry_out(&context.options.client, &names, seen.requests.as_ref()).await;
    }
    let catalog = context.options.site.catalog.borrow().clone();
    if let Some(catalog) = catalog
        && let Err(error) = node::drain(catalog.as_ref(), &seen.nodes, &seen.outside).await
    {
        failure.get_or_insert(error);
    }
    report::report(&context, &names, &seen, &planned, failure.as_ref()).await?;
    if let Err(error) = switch::carry_out(&context, &names, &seen).await {
        failure.get_or_insert(error);
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(Action::requeue(LOOK_EVERY)),
    }
}

/// The StorageCluster of the operator's namespace: one site an operator, so the oldest; None: there is none yet.
pub(crate) async fn own_cluster(
    options: &OperatorOptions,
) -> Result<Option<(StorageCluster, Names)>, OperatorError> {
    let clusters: Api<StorageCluster> = Api::namespaced(options.client.clone(), &options.namespace);
    let found = clusters.list(&ListParams::default()).await.asked(|| "list StorageClusters".to_owned())?;
    let oldest =
        found.items.into_iter().min_by_key(|cluster| cluster.creation_timestamp().map(|time| time.0));
    Ok(oldest.and_then(|cluster| {
        let names = Names::new(&cluster, &options.release)?;
        Some((cluster, names))
    }))
}

/// Each is tried, so that one that is refused holds nothing else up; the first failure is told.
async fn apply(context: &Context, children: &[Child]) -> Result<(), OperatorError> {
    let mut first = Ok(());
    for child in children {
        if let Err(error) = context.applied.apply(&context.options.client, child).await {
            tracing::warn!(child = child.title(), error = error.chain(), "could not be applied");
            first = first.and(Err(error));
        }
    }
    first
}

/// What to do after a failure.
pub fn after_failure(cluster: &StorageCluster, error: &OperatorError) -> Action {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    tracing::warn!(cluster = name, category = error.category(), error = error.chain(), "not reconciled");
    Action::requeue(AGAIN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster(ready: &str, generation: i64, annotations: &serde_json::Value) -> StorageCluster {
        let condition = json!({"type": "Ready", "status": ready, "reason": "R", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let cluster = json!({"apiVersion": "diptych.dev/v1alpha1", "kind": "StorageCluster",
            "metadata": {"name": "main", "generation": generation, "annotations": annotations},
            "spec": {"site": "east", "survive": {"sites": 0, "nodes": 1}, "encryption": {"keySecretRef": {"name": "key"}},
                "nodeAgents": {"devices": [{"path": "/d0"}]}},
            "status": {"conditions": [condition]}});
        serde_json::from_value(cluster).expect("a StorageCluster")
    }

    #[test]
    fn what_is_ready_rests_until_a_person_changes_it() {
        let (looks, begun, none) = (Looks::default(), Instant::now(), json!({}));
        assert_eq!(looks.rest(&cluster("True", 1, &none), begun), None, "the first look");
        let soon = begun + Duration::from_secs(1);
        assert_eq!(looks.rest(&cluster("True", 1, &none), soon), Some(Duration::from_secs(2)));
        let asked = json!({"diptych.dev/handover": "west"});
        assert_eq!(looks.rest(&cluster("True", 1, &asked), soon), None, "somebody asks for a switch");
        assert_eq!(looks.rest(&cluster("True", 2, &asked), soon), None, "another spec");
        assert_eq!(looks.rest(&cluster("False", 2, &asked), soon), None, "it is not ready");
        assert_eq!(looks.rest(&cluster("True", 2, &asked), soon + REST), None, "it has rested");
    }
}
