//! Who asks, and the signature.

use diptych_api::{StorageCluster, StorageNode};
use diptych_wire::authority::{Authority, Request, chain_pem};
use diptych_wire::identity::{Identity, Role};
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};

use super::{AUDIENCE, Joined};
use crate::error::{Asked, OperatorError};
use crate::names::Names;
use crate::node;
use crate::options::OperatorOptions;
use crate::review::reviewed;
use crate::secrets::{Foundation, VALIDITY};

/// A pod that the API server vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPod {
    /// Its name.
    pub pod: String,
    /// The node that it runs on.
    pub node: String,
}

/// The node-agent's pod whose token this is; None: it is somebody else's, or no token at all.
pub async fn agent_pod(options: &OperatorOptions, token: &str) -> Result<Option<AgentPod>, OperatorError> {
    let review = reviewed(options, token, Some(AUDIENCE)).await?;
    let account = format!("system:serviceaccount:{}:{}-agent", options.namespace, options.release);
    Ok(pod_of(&review, &account))
}

fn pod_of(review: &TokenReview, account: &str) -> Option<AgentPod> {
    let status = review.status.as_ref()?;
    let for_us = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
    let user = status.user.as_ref()?;
    if status.authenticated != Some(true) || !for_us || user.username.as_deref() != Some(account) {
        return None;
    }
    let extra = |key: &str| {
        user.extra.as_ref()?.get(&format!("authentication.kubernetes.io/{key}"))?.first().cloned()
    };
    Some(AgentPod { pod: extra("pod-name")?, node: extra("node-name")? })
}

/// Certificate and devices of a pod's node; None while the node is not registered.
pub(super) async fn sign(
    options: &OperatorOptions,
    pod: &AgentPod,
    csr: &str,
) -> Result<Option<Joined>, OperatorError> {
    let client = || options.client.clone();
    let nodes: Api<StorageNode> = Api::namespaced(client(), &options.namespace);
    let filter = ListParams::default().fields(&format!("spec.node={}", pod.node));
    let found = nodes.list(&filter).await.asked(|| format!("find the StorageNode of {}", pod.node))?;
    // A node in neither site may have the same name; it joins by a token.
    let mut own = found.items.into_iter().filter(|node| node.spec.outside.is_none());
    let Some(node) = own.next() else { return Ok(None) };
    let clusters: Api<StorageCluster> = Api::namespaced(client(), &options.namespace);
    let name = &node.spec.cluster_ref.name;
    let Some(cluster) = clusters.get_opt(name).await.asked(|| format!("read StorageCluster {name}"))? else {
        return Ok(None);
    };
    let Some(names) = Names::new(&cluster, &options.release) else { return Ok(None) };
    let secrets: Api<Secret> = Api::namespaced(client(), &options.namespace);
    let secret = names.child("authority");
    let Some(secret) = secrets.get_opt(&secret).await.asked(|| format!("read Secret {secret}"))? else {
        return Ok(None);
    };
    let foundation = Foundation::read(&secret)?;
    let site = cluster.spec.site.parse().map_err(|error| OperatorError::Internal(format!("{error}")))?;
    let identity = Identity { cluster: foundation.cluster, site, role: Role::Agent, name: pod.node.clone() };
    Ok(Some(Joined {
        cluster: foundation.cluster.to_string(),
        site: cluster.spec.site.clone(),
        node: pod.node.clone(),
        chain: chain(&foundation.authority, csr, identity)?,
        devices: node::devices(&node),
    }))
}

fn chain(authority: &Authority, csr: &str, identity: Identity) -> Result<String, OperatorError> {
    Ok(chain_pem(&authority.sign(csr, &Request::new(identity, VALIDITY))?))
}

#[cfg(test)]
mod tests {
    use diptych_core::ids::ClusterId;
    use diptych_wire::authority::{Issued, signing_request};
    use serde_json::json;

    use super::*;

    fn review(username: &str, audience: &str, authenticated: bool) -> TokenReview {
        serde_json::from_value(json!({"metadata": {}, "spec": {}, "status": {
            "authenticated": authenticated, "audiences": [audience], "user": {"username": username, "extra": {
                "authentication.kubernetes.io/pod-name": ["main-agent-x"],
                "authentication.kubernetes.io/node-name": ["n1"]}}}}))
        .expect("a review")
    }

    #[test]
    fn only_an_agents_token_for_diptych_names_a_node() {
        let account = "system:serviceaccount:diptych:diptych-agent";
        let pod = pod_of(&review(account, "diptych", true), account).expect("an agent's pod");
        assert_eq!((pod.pod.as_str(), pod.node.as_str()), ("main-agent-x", "n1"));
        assert_eq!(
            pod_of(&review("system:serviceaccount:diptych:diptych-gateway", "diptych", true), account),
            None
        );
        assert_eq!(pod_of(&review(account, "https://kubernetes.default.svc", true), account), None);
        assert_eq!(pod_of(&review(account, "diptych", false), account), None);
    }

    #[test]
    fn the_certificate_is_for_the_node_and_fits_the_pods_own_key() {
        let cluster = ClusterId([3; 16]);
        let authority = Authority::create(cluster).expect("an authority");
        let (key, csr) = signing_request().expect("a request");
        let site = "east".parse().expect("a name");
        let identity = Identity { cluster, site, role: Role::Agent, name: "n1".to_owned() };
        let chain = chain(&authority, &csr, identity.clone()).expect("signed");
        let issued = Issued::from_pem(&chain, &key).expect("it reads");
        assert_eq!(diptych_wire::tls::identity_of(&issued.chain[0]).expect("an identity"), identity);
        diptych_wire::tls::Credentials::new(&issued).expect("key and certificate fit");
    }
}
