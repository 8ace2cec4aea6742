//! How the second site joins the first: once, by a token that is a certificate. It lies in Secret `<StorageCluster>-join` of
//! the preferred site, is carried to the other one by hand, lets its holder ask this one question at the peer door, and is
//! spent with the first answer. What is secret in the answer is sealed by the cluster key, which never crosses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use diptych_api::StorageCluster;
use diptych_core::cipher::Nonce;
use diptych_core::ids::{ClusterId, SiteName};
use diptych_core::keyring::ClusterKey;
use diptych_site::drill::CutSwitch;
use diptych_site::peer::PeerClient;
use diptych_wire::authority::Issued;
use diptych_wire::peer::{Foundation as Answer, JoinQuestion};
use diptych_wire::tls::Credentials;
use http::StatusCode;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cluster::{joins, own_cluster};
use crate::error::{Asked, OperatorError};
use crate::options::OperatorOptions;
use crate::secrets::{Foundation, TOKEN, cluster_keys, text, texts};

/// Where a keeper is asked; the token's name follows.
pub const JOIN: &str = "/keeper/v1/join";
/// Entry of a join Secret: who spent the token.
const SPENT_BY: &str = "spent-by";
/// An answer that takes longer is given up, and asked for again at the next look.
const LIMIT: Duration = Duration::from_secs(5);

/// What the other site gave.
#[derive(Clone)]
pub struct Joined {
    /// The installation.
    pub cluster: ClusterId,
    /// Certificate of its authority, PEM.
    pub authority: String,
    /// What only sites know.
    pub secret: JoinedSecret,
}

/// What only sites know; sealed while it crosses.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinedSecret {
    /// The authority's key, PEM.
    pub authority_key: String,
    /// Bearer token of the operators.
    pub rest_token: String,
}

/// The keeper's service for sites that join; it is handed on by gateways.
pub fn router(options: OperatorOptions) -> Router {
    Router::new().route(&format!("{JOIN}/{{token}}"), post(admit)).with_state(options)
}

async fn admit(State(options): State<OperatorOptions>, Path(token): Path<String>, body: Bytes) -> Response {
    let Ok(question) = postcard::from_bytes::<JoinQuestion>(&body) else {
        return (StatusCode::BAD_REQUEST, "the question can't be read").into_response();
    };
    match answer(&options, &token, &question).await {
        Ok(Ok(answer)) => match postcard::to_stdvec(&answer) {
            Ok(bytes) => {
                tracing::info!(token, spender = question.spender, "the other site joined");
                bytes.into_response()
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        },
        Ok(Err(refusal)) => {
            tracing::warn!(token, spender = question.spender, refusal, "a site may not join");
            (StatusCode::GONE, refusal).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.chain()).into_response(),
    }
}

/// The answer, or why there is none; the error: not now.
async fn answer(
    options: &OperatorOptions,
    token: &str,
    question: &JoinQuestion,
) -> Result<Result<Answer, String>, OperatorError> {
    let missing = || OperatorError::Internal("there is no StorageCluster here yet".to_owned());
    let (cluster, names) = own_cluster(options).await?.ok_or_else(missing)?;
    let secrets: Api<Secret> = Api::namespaced(options.client.clone(), &options.namespace);
    let read = async |name: &str| secrets.get(name).await.asked(|| format!("read Secret {name}"));
    let foundation = Foundation::read(&read(&names.child("authority")).await?)?;
    let key = read(&cluster.spec.encryption.key_secret_ref.name).await?;
    let keys = cluster_keys(&key).map_err(OperatorError::Internal)?;
    let join = read(&names.child("join")).await?;
    match standing(&join, token, &question.spender) {
        Token::Refused(refusal) => return Ok(Err(refusal)),
        Token::SpentBySame => {}
        // SPENT BEFORE ANSWERED: of two that ask at once the version lets one through.
        Token::Fresh => spend(&secrets, &join, &question.spender).await?,
    }
    seal(&foundation, keys.newest()).map(Ok)
}

/// What a token is worth.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Fresh,
    SpentBySame,
    Refused(String),
}

fn standing(join: &Secret, token: &str, spender: &str) -> Token {
    let name = join.name_any();
    let entries = texts(join);
    let again = format!("delete Secret {name} of this site and copy the one that is made in its place");
    if entries.get(TOKEN).is_none_or(|known| known != token) {
        return Token::Refused(format!("the token is not the one in Secret {name}: {again}"));
    }
    match entries.get(SPENT_BY) {
        None => Token::Fresh,
        Some(known) if known == spender => Token::SpentBySame,
        Some(known) => Token::Refused(format!("StorageCluster {known} has spent the token: {again}")),
    }
}

async fn spend(secrets: &Api<Secret>, join: &Secret, spender: &str) -> Result<(), OperatorError> {
    let name = join.name_any();
    // The key goes: what is spent need not lie about.
    let spent = json!({"metadata": {"resourceVersion": join.metadata.resource_version},
        "stringData": {SPENT_BY: spender}, "data": {"tls.key": null}});
    let patched = secrets.patch(&name, &PatchParams::default(), &Patch::Merge(&spent)).await;
    patched.map(drop).asked(|| format!("write into Secret {name} that its token is spent"))
}

fn seal(foundation: &Foundation, key: &ClusterKey) -> Result<Answer, OperatorError> {
    let internal = |error: &dyn std::fmt::Display| OperatorError::Internal(format!("a join: {error}"));
    let secret = JoinedSecret {
        authority_key: foundation.authority.key_pem(),
        rest_token: foundation.rest_token.clone(),
    };
    let plain = postcard::to_stdvec(&secret).map_err(|error| internal(&error))?;
    let mut nonce = Nonce::default();
    rand::rng().fill_bytes(&mut nonce);
    let sealed = key.seal_for_join(foundation.cluster, &nonce, &plain).map_err(|error| internal(&error))?;
    Ok(Answer { cluster: foundation.cluster, authority: foundation.authority.certificate_pem(), sealed })
}

fn open(answer: Answer, key: &ClusterKey) -> Result<Joined, String> {
    let plain = key.open_from_join(answer.cluster, &answer.sealed).map_err(|_| {
        "the two sites have different cluster keys: put the other site's into the Secret that \
         encryption.keySecretRef names"
            .to_owned()
    })?;
    let secret =
        postcard::from_bytes(&plain).map_err(|error| format!("the answer can't be read: {error}"))?;
    Ok(Joined { cluster: answer.cluster, authority: answer.authority, secret })
}

/// Asks the other site to let this one join; Ok(None): this is not the site that joins.
pub async fn ask(
    cluster: &StorageCluster,
    secrets: &BTreeMap<String, Secret>,
    resolved: &BTreeMap<String, SocketAddr>,
) -> Result<Option<Joined>, String> {
    let Some(peer) = cluster.spec.peer.as_ref().filter(|_| joins(&cluster.spec)) else { return Ok(None) };
    let join = peer.join_secret_ref.as_ref().ok_or("peer.joinSecretRef is needed")?;
    let found =
        |name: &str, how: &str| secrets.get(name).ok_or_else(|| format!("Secret {name} is not there: {how}"));
    let how = format!("copy Secret <StorageCluster>-join of site {} here under that name", peer.site);
    let token = found(&join.name, &how)?;
    let entry = |name: &str| text(token, name).map_err(|error| format!("{error}: {how}"));
    let key = &cluster.spec.encryption.key_secret_ref.name;
    let keys = cluster_keys(found(key, "it holds the cluster key")?)?;
    let issued =
        Issued::from_pem(&entry("tls.crt")?, &entry("tls.key")?).map_err(|error| error.to_string())?;
    let own = Credentials::new(&issued).map_err(|error| error.to_string())?;
    let site: SiteName = peer.site.parse().map_err(|error| format!("peer.site: {error}"))?;
    let doors: Vec<SocketAddr> =
        peer.endpoints.iter().filter_map(|endpoint| resolved.get(endpoint).copied()).collect();
    let client = PeerClient::new(&doors, &site, own.identity().cluster, &own, CutSwitch::default())
        .map_err(|error| error.to_string())?;
    let question = JoinQuestion { spender: cluster.uid().unwrap_or_default() };
    let asked = tokio::time::timeout(LIMIT, client.join(&question)).await;
    let answer = asked.map_err(|_| format!("site {site} did not answer in {LIMIT:?}"))?;
    open(answer.map_err(|error| error.to_string())?, keys.newest()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join_secret(entries: &[(&str, &str)]) -> Secret {
        let data = entries
            .iter()
            .map(|(name, value)| ((*name).to_owned(), k8s_openapi::ByteString(value.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(data.collect()), ..Secret::default() };
        secret.metadata.name = Some("main-join".to_owned());
        secret
    }

    #[test]
    fn a_token_is_spent_by_the_first_who_may_ask_again() {
        let fresh = join_secret(&[(TOKEN, "t1")]);
        assert_eq!(standing(&fresh, "t1", "west-uid"), Token::Fresh);
        let spent = join_secret(&[(TOKEN, "t1"), (SPENT_BY, "west-uid")]);
        assert_eq!(standing(&spent, "t1", "west-uid"), Token::SpentBySame);
        let Token::Refused(other) = standing(&spent, "t1", "another-uid") else { panic!("it is spent") };
        assert!(other.contains("west-uid has spent the token: delete Secret main-join"), "{other}");
        let Token::Refused(old) = standing(&fresh, "t0", "west-uid") else { panic!("it is another's") };
        assert!(old.contains("not the one in Secret main-join"), "{old}");
    }

    #[test]
    fn what_crosses_opens_with_the_same_cluster_key_only() {
        let made = Foundation::create().expect("it is made");
        let key = ClusterKey::new([1; 32]);
        let answer = seal(&made, &key).expect("it seals");
        assert!(!String::from_utf8_lossy(&answer.sealed).contains("PRIVATE KEY"));
        let joined = open(answer.clone(), &key).expect("it opens");
        let theirs = Foundation::joined(&joined).expect("an authority");
        assert_eq!(theirs.authority.fingerprint(), made.authority.fingerprint());
        assert_eq!((theirs.cluster, theirs.rest_token), (made.cluster, made.rest_token));
        let error = open(answer, &ClusterKey::new([2; 32])).err().expect("another key");
        assert!(error.contains("different cluster keys"), "{error}");
    }
}
