//! FileObjects that a person applied, and the deletion of any: `kubectl delete` deletes the file.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use diptych_api::{FileObject, StorageCluster};
use futures::Stream;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::gateway::{Answer, Gateway};
use super::{FINALIZER, PROJECTED};
use crate::access_key::active_epoch;
use crate::apply::Child;
use crate::conditions::{Says, conditions, turned};
use crate::error::{Asked, OperatorError};
use crate::events;
use crate::finalizer;
use crate::options::OperatorOptions;

/// Writer of the conditions; what is so comes from the catalog and has another.
const MANAGER: &str = "diptych-operator-files";
const AGAIN: Duration = Duration::from_secs(2);
/// While the site is not active.
const LATER: Duration = Duration::from_secs(5);

struct Context {
    options: OperatorOptions,
    events: Recorder,
}

/// Watches FileObjects; and all of them, as they were seen.
pub fn controller(options: &OperatorOptions, events: Recorder) -> (impl Stream + use<>, Store<FileObject>) {
    let api: Api<FileObject> = Api::namespaced(options.client.clone(), &options.namespace);
    let context = Context { options: options.clone(), events };
    let controller =
        Controller::new(api, watcher::Config::default()).with_config(Config::default().concurrency(8));
    let store = controller.store();
    let stream =
        controller.run(reconcile, |_, error: &OperatorError, _| after_failure(error), Arc::new(context));
    (stream, store)
}

fn after_failure(error: &OperatorError) -> Action {
    tracing::warn!(category = error.category(), error = error.chain(), "a FileObject is not reconciled");
    Action::requeue(AGAIN)
}

async fn reconcile(file: Arc<FileObject>, context: Arc<Context>) -> Result<Action, OperatorError> {
    let options = &context.options;
    if file.metadata.deletion_timestamp.is_some() {
        if !finalizer::is_held(&*file, FINALIZER) {
            return Ok(Action::await_change());
        }
        return delete(&file, &context).await;
    }
    let Some(content) = &file.spec.content else { return Ok(Action::await_change()) };
    if file.labels().contains_key(PROJECTED) || is_stored(&file) {
        return Ok(Action::await_change());
    }
    let bytes = match (&content.text, &content.base64) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(text)) => match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => bytes,
            Err(error) => {
                let says = Says::no("Stored", "NotBase64", format!("spec.content.base64: {error}"));
                return report(&context, &file, says).await.map(|()| Action::await_change());
            }
        },
        (None, None) => return Ok(Action::await_change()),
    };
    finalizer::hold(options, &*file, FINALIZER).await?;
    let Some(gateway) = gateway(options, &file).await? else {
        let says = Says::no(
            "Stored",
            "NoCluster",
            format!("StorageCluster {} is not there or not set up yet", file.spec.cluster_ref.name),
        );
        return report(&context, &file, says).await.map(|()| Action::requeue(LATER));
    };
    if !is_active(options).await? {
        let says = Says::no(
            "Stored",
            "NotActive",
            "this site is not active: the file is stored when it is, or by applying it in the other",
        );
        return report(&context, &file, says).await.map(|()| Action::requeue(LATER));
    }
    let kind = file.spec.content_type.as_deref().unwrap_or(if content.text.is_some() {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    });
    let (says, next) = match gateway.put(&file.spec.bucket, &file.spec.key, kind, bytes).await? {
        Answer::Done => {
            (Says::yes("Stored", "Stored", "the gateway acknowledged it"), Action::await_change())
        }
        Answer::NotNow(text) => (Says::no("Stored", "GatewayUnavailable", text), Action::requeue(AGAIN)),
        Answer::Refused(text) => (Says::no("Stored", "Refused", text), Action::await_change()),
    };
    report(&context, &file, says).await.map(|()| next)
}

/// Each generation is stored once: a later write through a gateway is not undone.
fn is_stored(file: &FileObject) -> bool {
    let conditions = file.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| {
        condition.type_ == "Stored"
            && condition.observed_generation == file.metadata.generation
            && (condition.status == "True"
                || condition.reason == "Refused"
                || condition.reason == "NotBase64")
    })
}

async fn is_active(options: &OperatorOptions) -> Result<bool, OperatorError> {
    let catalog = options.site.catalog.borrow().clone();
    match catalog {
        Some(catalog) => Ok(active_epoch(catalog.as_ref()).await?.is_some()),
        None => Ok(false),
    }
}

async fn gateway(options: &OperatorOptions, file: &FileObject) -> Result<Option<Gateway>, OperatorError> {
    let clusters: Api<StorageCluster> = Api::namespaced(options.client.clone(), &options.namespace);
    let name = &file.spec.cluster_ref.name;
    let Some(cluster) = clusters.get_opt(name).await.asked(|| format!("read StorageCluster {name}"))? else {
        return Ok(None);
    };
    Gateway::of(options, &cluster).await
}

/// The file goes with its FileObject, unless what holds it is being taken away: that never deletes bytes.
async fn delete(file: &FileObject, context: &Context) -> Result<Action, OperatorError> {
    let options = &context.options;
    if !finalizer::is_taken_away::<FileObject>(options, &file.spec.cluster_ref.name).await? {
        if !is_active(options).await? {
            let says = Says::no(
                "Deleted",
                "NotActive",
                "this site is not active: the file is deleted when it is, or through the other",
            );
            return report(context, file, says).await.map(|()| Action::requeue(LATER));
        }
        let Some(gateway) = gateway(options, file).await? else { return Ok(Action::requeue(LATER)) };
        match gateway.delete(&file.spec.bucket, &file.spec.key).await? {
            Answer::Done => {}
            Answer::NotNow(text) | Answer::Refused(text) => {
                let says = Says::no("Deleted", "GatewayUnavailable", text);
                return report(context, file, says).await.map(|()| Action::requeue(AGAIN));
            }
        }
    }
    finalizer::release(options, file, FINALIZER).await.map(|()| Action::await_change())
}

async fn report(context: &Context, file: &FileObject, says: Says) -> Result<(), OperatorError> {
    let before = file.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    let all = [says];
    let conditions = conditions(&before, &all, file.metadata.generation, Timestamp::now());
    if conditions.iter().all(|condition| before.contains(condition)) {
        return Ok(());
    }
    let child = Child::new(json!({
        "apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject",
        "metadata": {"name": file.name_any(), "namespace": file.namespace()},
        "status": {"observedGeneration": file.metadata.generation, "conditions": conditions},
    }))?;
    child.apply_status_as(&context.options.client, MANAGER).await?;
    events::turns(&context.events, &turned(&before, &all), &file.object_ref(&())).await;
    Ok(())
}
