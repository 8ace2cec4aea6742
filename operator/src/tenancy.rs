//! Which namespaces may refer to the operator's StorageCluster: its own, and those that it allows.

use std::collections::BTreeMap;

use diptych_api::common::NamespacedClusterRef;
use diptych_api::storage_cluster::{AllowedNamespaces, FromNamespaces};
use diptych_api::{AccessKey, FileObject, StorageCluster};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use kube::core::{Selector, SelectorExt};
use kube::{Client, Resource, ResourceExt};

use crate::conditions::Says;
use crate::error::{Asked, OperatorError};
use crate::options::OperatorOptions;

/// A resource that refers to a StorageCluster from any namespace.
pub trait Tenant: Resource {
    /// The StorageCluster that it names.
    fn cluster_ref(&self) -> &NamespacedClusterRef;
}

impl Tenant for FileObject {
    fn cluster_ref(&self) -> &NamespacedClusterRef {
        &self.spec.cluster_ref
    }
}

impl Tenant for AccessKey {
    fn cluster_ref(&self) -> &NamespacedClusterRef {
        &self.spec.cluster_ref
    }
}

/// Whether it refers into the operator's namespace: what does not is another operator's, or nobody's.
pub fn is_ours<K: Tenant>(options: &OperatorOptions, object: &K) -> bool {
    let own = object.meta().namespace.as_deref();
    object.cluster_ref().namespace.as_deref().or(own) == Some(options.namespace.as_str())
}

/// Where resources that may refer to the StorageCluster are: the operator's namespace, or all of them.
pub fn api<K>(options: &OperatorOptions) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    let client: Client = options.client.clone();
    if options.watch_all_namespaces { Api::all(client) } else { Api::namespaced(client, &options.namespace) }
}

/// What a namespace is to a StorageCluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It may refer to it.
    Allowed,
    /// It may not: a sentence for a person.
    Refused(String),
}

impl Standing {
    /// As a condition of what may not; None: it may.
    pub fn refusal(self, kind: &'static str) -> Option<Says> {
        match self {
            Self::Allowed => None,
            Self::Refused(text) => Some(Says::no(kind, "NamespaceNotAllowed", text)),
        }
    }
}

/// Whether the namespace of an object may refer to the StorageCluster that it names; one that is not there says nothing against it.
///
/// # Errors
/// The API server can't be asked.
pub async fn standing<K: Tenant>(options: &OperatorOptions, object: &K) -> Result<Standing, OperatorError> {
    let namespace = object.namespace().unwrap_or_default();
    if namespace == options.namespace {
        return Ok(Standing::Allowed);
    }
    let name = &object.cluster_ref().name;
    let clusters: Api<StorageCluster> = Api::namespaced(options.client.clone(), &options.namespace);
    let Some(cluster) = clusters.get_opt(name).await.asked(|| format!("read StorageCluster {name}"))? else {
        return Ok(Standing::Allowed);
    };
    let namespaces: Api<Namespace> = Api::all(options.client.clone());
    let found = namespaces.get_opt(&namespace).await.asked(|| format!("read Namespace {namespace}"))?;
    let labels = found.map(|found| found.labels().clone()).unwrap_or_default();
    Ok(judge(
        &cluster.spec.allowed_namespaces,
        (options.namespace.as_str(), name.as_str()),
        &namespace,
        &labels,
    ))
}

/// By name and labels of a namespace, whether a StorageCluster, given by its namespace and name, allows it.
fn judge(
    allowed: &AllowedNamespaces,
    (own, cluster): (&str, &str),
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Standing {
    let refused = |why: &str| {
        let text = format!(
            "StorageCluster {own}/{cluster} {why} namespace {namespace}: change its spec.allowedNamespaces, or use one that it allows"
        );
        Standing::Refused(text)
    };
    if namespace == own {
        return Standing::Allowed;
    }
    match allowed.from {
        FromNamespaces::All => Standing::Allowed,
        FromNamespaces::Same => refused("allows its own namespace only, not"),
        FromNamespaces::Selector => match Selector::try_from(allowed.selector.clone().unwrap_or_default()) {
            Ok(selector) if selector.matches(labels) => Standing::Allowed,
            Ok(_) => refused("selects namespaces by labels that are not on"),
            Err(error) => {
                refused(&format!("has a selector that can't be read ({error}), so it does not allow"))
            }
        },
    }
}

/// The namespaces whose files are shown: all that may refer to the StorageCluster, and are not being deleted.
///
/// # Errors
/// The API server can't be asked.
pub async fn shown(
    options: &OperatorOptions,
    cluster: &StorageCluster,
) -> Result<Vec<String>, OperatorError> {
    let allowed = &cluster.spec.allowed_namespaces;
    if !options.watch_all_namespaces || allowed.from == FromNamespaces::Same {
        return Ok(vec![options.namespace.clone()]);
    }
    let namespaces: Api<Namespace> = Api::all(options.client.clone());
    let found = namespaces.list_metadata(&ListParams::default()).await;
    let found = found.asked(|| "list Namespaces".to_owned())?;
    let name = cluster.name_any();
    let of = (options.namespace.as_str(), name.as_str());
    let fine = found.items.into_iter().filter(|namespace| {
        namespace.metadata.deletion_timestamp.is_none()
            && judge(allowed, of, &namespace.name_any(), namespace.labels()) == Standing::Allowed
    });
    Ok(fine.map(|namespace| namespace.name_any()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn standing_of(allowed: serde_json::Value, namespace: &str, labels: &[(&str, &str)]) -> Standing {
        let allowed: AllowedNamespaces = serde_json::from_value(allowed).expect("allowedNamespaces");
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        judge(&allowed, ("diptych", "main"), namespace, &labels)
    }

    #[test]
    fn a_namespace_is_allowed_as_the_cluster_says_and_its_own_always() {
        let selector = json!({"from": "Selector", "selector": {"matchLabels": {"tier": "gold"},
            "matchExpressions": [{"key": "frozen", "operator": "DoesNotExist"}]}});
        for allowed in [json!({}), json!({"from": "All"}), selector.clone()] {
            assert_eq!(standing_of(allowed, "diptych", &[]), Standing::Allowed);
        }
        assert_eq!(standing_of(json!({"from": "All"}), "shop", &[]), Standing::Allowed);
        assert_eq!(standing_of(selector.clone(), "shop", &[("tier", "gold")]), Standing::Allowed);
        let refused = [
            standing_of(json!({}), "shop", &[("tier", "gold")]),
            standing_of(selector.clone(), "shop", &[]),
            standing_of(selector, "shop", &[("tier", "gold"), ("frozen", "yes")]),
        ];
        for standing in refused {
            let says = standing.refusal("Ready").expect("it is refused");
            assert_eq!(says.reason, "NamespaceNotAllowed");
            assert!(says.message.contains("diptych/main") && says.message.contains("allowedNamespaces"));
        }
    }

    #[test]
    fn a_selector_that_can_not_be_read_allows_nobody() {
        let wrong =
            json!({"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}});
        assert!(matches!(standing_of(wrong, "shop", &[]), Standing::Refused(_)));
    }
}
