//! StorageCluster: observe → validate → plan → build → apply → report.

pub mod build;
mod observe;
mod plan;
mod policy;
mod report;
mod switch;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use diptych_api::StorageCluster;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;

use crate::apply::{Applied, Child};
use crate::error::{Asked, OperatorError};
use crate::names::Names;
use crate::options::OperatorOptions;

pub use observe::{AgentPod, Observed, Ready, SiteSeen};
pub use plan::{Plan, Waiting, plan};
pub use validate::{Declared, Invalid, joins, validate};

/// The status follows the catalog, which nobody watches from here.
const LOOK_EVERY: Duration = Duration::from_secs(5);
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
    /// Files that are shown as FileObjects.
    pub projection: tokio::sync::watch::Receiver<Option<crate::file::Projection>>,
}

/// Brings a site one step nearer to what is declared, and says how it is.
///
/// # Errors
/// What could not be done; it stands in the conditions too.
pub async fn reconcile(cluster: Arc<StorageCluster>, context: Arc<Context>) -> Result<Action, OperatorError> {
    if cluster.metadata.deletion_timestamp.is_some() {
        // Its children go with it; what bytes hang on (Secrets, the catalog's disks, devices) is not owned by it.
        return Ok(Action::await_change());
    }
    let Some(names) = Names::new(&cluster, &context.options.release) else {
        return Ok(Action::await_change());
    };
    let seen = Box::pin(observe::observe(&context.options, &names, cluster)).await?;
    let planned = match validate(&seen.cluster.spec, &seen) {
        Ok(declared) => plan(&names, &context.options, &declared, &seen),
        Err(invalid) => Ok(Plan::refused(&invalid)),
    };
    let (planned, mut failure) = match planned {
        Ok(planned) => (planned, None),
        Err(error) => (Plan::default(), Some(error)),
    };
    if let Err(error) = apply(&context, &planned.children).await {
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
