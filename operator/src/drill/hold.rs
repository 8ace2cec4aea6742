//! A finalizer that stands while a run may be under way: one whose FailoverDrill is deleted is ended first.

use diptych_api::FailoverDrill;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::apply::Child;
use crate::error::{Asked, OperatorError};
use crate::options::OperatorOptions;

/// On FailoverDrills whose run is under way.
const FINALIZER: &str = "diptych.dev/drill";

fn is_held(drill: &FailoverDrill) -> bool {
    drill.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Before a run is asked for.
pub(super) async fn hold(options: &OperatorOptions, drill: &FailoverDrill) -> Result<(), OperatorError> {
    if is_held(drill) {
        return Ok(());
    }
    let child = Child::new(json!({
        "apiVersion": "diptych.dev/v1alpha1", "kind": "FailoverDrill",
        "metadata": {"name": drill.name_any(), "namespace": drill.namespace(), "finalizers": [FINALIZER]},
    }))?;
    child.apply(&options.client).await.map(|_| ())
}

/// Once nothing is under way.
pub(super) async fn release(options: &OperatorOptions, drill: &FailoverDrill) -> Result<(), OperatorError> {
    if !is_held(drill) {
        return Ok(());
    }
    let left: Vec<&String> = drill.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    let api: Api<FailoverDrill> = Api::namespaced(options.client.clone(), &options.namespace);
    // The resource version guards the finalizers of others: where it is another by now, the next look does this.
    let patch = json!({"metadata": {"finalizers": left, "resourceVersion": drill.resource_version()}});
    match api.patch(&drill.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(drop).asked(|| format!("release FailoverDrill {}", drill.name_any())),
    }
}
