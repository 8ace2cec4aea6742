//! Finalizers: what lies outside the API server is taken away before its object goes.

use std::fmt::Debug;

use diptych_api::StorageCluster;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::apply::Child;
use crate::error::{Asked, OperatorError};
use crate::options::OperatorOptions;
use crate::tenancy::Tenant;

/// Whether it stands on an object.
pub fn is_held<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.finalizers().iter().any(|found| found == finalizer)
}

/// Puts it on an object.
///
/// # Errors
/// The API server refuses it or can't be reached.
pub async fn hold<K: Resource<DynamicType = ()>>(
    options: &OperatorOptions,
    object: &K,
    finalizer: &str,
) -> Result<(), OperatorError> {
    if is_held(object, finalizer) {
        return Ok(());
    }
    let child = Child::new(json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": object.name_any(), "namespace": object.namespace(), "finalizers": [finalizer]},
    }))?;
    child.apply(&options.client).await.map(|_| ())
}

/// Lets an object go.
///
/// # Errors
/// It was changed meanwhile, or the API server can't be reached.
pub async fn release<K>(options: &OperatorOptions, object: &K, finalizer: &str) -> Result<(), OperatorError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let left: Vec<&String> = object.finalizers().iter().filter(|found| *found != finalizer).collect();
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(options.client.clone(), &namespace);
    // The resource version guards the finalizers of others.
    let patch = json!({"metadata": {"finalizers": left, "resourceVersion": object.resource_version()}});
    match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).asked(|| format!("release {} {}", K::kind(&()), object.name_any())),
    }
}

/// Whether this namespace, the definition of an object or the StorageCluster that it refers to are being deleted too, or are gone.
///
/// # Errors
/// The API server can't be asked.
pub async fn is_taken_away<K: Tenant + Resource<DynamicType = ()>>(
    options: &OperatorOptions,
    object: &K,
    namespace: &str,
) -> Result<bool, OperatorError> {
    let cluster = &object.cluster_ref().name;
    let client = || options.client.clone();
    let namespaces: Api<Namespace> = Api::all(client());
    let definitions: Api<CustomResourceDefinition> = Api::all(client());
    let clusters: Api<StorageCluster> = Api::namespaced(client(), &options.namespace);
    let definition = format!("{}.{}", K::plural(&()), K::group(&()));
    let (namespace, definition, cluster) = tokio::try_join!(
        namespaces.get_opt(namespace),
        definitions.get_opt(&definition),
        clusters.get_opt(cluster),
    )
    .asked(|| format!("see whether what holds {} is being deleted", K::plural(&())))?;
    let goes =
        |metadata: Option<&ObjectMeta>| metadata.is_none_or(|metadata| metadata.deletion_timestamp.is_some());
    Ok(goes(namespace.as_ref().map(Resource::meta))
        || goes(definition.as_ref().map(Resource::meta))
        || goes(cluster.as_ref().map(Resource::meta)))
}
