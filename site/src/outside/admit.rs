//! The active site's keeper admits an outside node: by a token that nobody has spent, and by signing for a key that stays
//! with the node.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, Expect, Guard, View, Write};
use diptych_core::access::open_authority_key;
use diptych_core::ids::{ClusterId, NodeName, SiteName};
use diptych_core::keys;
use diptych_core::records::{Cluster, OutsideNode, Record};
use diptych_wire::authority::{Authority, Request, chain_pem, key_of_request};
use diptych_wire::identity::{Identity, Role};
use diptych_wire::peer::{OutsideAnswer, OutsideQuestion};
use http::StatusCode;
use tokio::sync::watch;

use super::declared;
use crate::context::{SiteContext, Standing};
use crate::error::SiteError;
use crate::keys::KeyProvider;

/// Where a keeper is asked; the token's name follows.
pub const ADMIT: &str = "/keeper/v1/join-outside";
/// Life of an outside agent's certificate.
const VALIDITY: Duration = Duration::from_hours(365 * 24);

/// Lets outside nodes join, by a token each.
#[async_trait]
pub trait OutsideJoins: Send + Sync + 'static {
    /// The answer to an [`OutsideQuestion`], as it came, of the one that holds the token of this name.
    async fn join_outside(&self, token: &str, question: Bytes) -> Response;
}

/// What a keeper admits outside nodes with.
#[derive(Clone)]
pub struct Admission {
    catalog: Arc<dyn Catalog>,
    cluster_keys: Arc<KeyProvider>,
    standing: watch::Receiver<Standing>,
}

/// The keeper's service for outside nodes that join; it is handed on by gateways.
pub fn router(admission: Admission) -> Router {
    let admit = |State(admission): State<Admission>, Path(token): Path<String>, question: Bytes| async move {
        admission.join_outside(&token, question).await
    };
    Router::new().route(&format!("{ADMIT}/{{token}}"), post(admit)).with_state(admission)
}

#[async_trait]
impl OutsideJoins for Admission {
    async fn join_outside(&self, token: &str, question: Bytes) -> Response {
        let Ok(question) = postcard::from_bytes::<OutsideQuestion>(&question) else {
            return (StatusCode::BAD_REQUEST, "the question can't be read").into_response();
        };
        match self.admit(token, &question.csr).await {
            Ok(Ok(answer)) => match postcard::to_stdvec(&answer) {
                Ok(bytes) => bytes.into_response(),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
            },
            Ok(Err(refusal)) => {
                tracing::warn!(token, refusal, "an outside node may not join");
                (StatusCode::GONE, refusal).into_response()
            }
            Err(error) => {
                tracing::info!(token, %error, "an outside node can't join now");
                (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
            }
        }
    }
}

impl Admission {
    /// Of this site.
    pub fn of(context: &SiteContext) -> Self {
        Self {
            catalog: Arc::clone(&context.catalog),
            cluster_keys: Arc::clone(&context.cluster_keys),
            standing: context.standing.clone(),
        }
    }

    /// The answer, or why there is none; the error: not now.
    async fn admit(&self, token: &str, csr: &str) -> Result<Result<OutsideAnswer, String>, SiteError> {
        let standing = *self.standing.borrow();
        if !standing.active {
            return Err(SiteError::NotYet("the active site admits outside nodes, and this one is passive"));
        }
        let spender = match key_of_request(csr) {
            Ok(spender) => spender,
            Err(error) => return Ok(Err(format!("the signing request can't be read: {error}"))),
        };
        let view = self.catalog.view().await?;
        let found = declared(view.as_ref())?.into_iter().find(|(_, (_, node))| node.token == token);
        let Some((name, (raw, node))) = found else { return Ok(Err(unknown(token))) };
        let (cluster, authority) = self.authority(view.as_ref())?;
        drop(view);
        match node.spent_by {
            Some(known) if known == spender => {}
            Some(_) => return Ok(Err(spent(&name))),
            None => {
                // SPENT BEFORE ANSWERED: of two that ask at once the compare lets one through.
                let key = keys::outside_node(&name);
                let record = OutsideNode { spent_by: Some(spender), ..node.clone() };
                let change = Change {
                    guards: vec![Guard { key: key.clone(), expect: Expect::Value(raw) }],
                    writes: vec![Write::Put(key, Bytes::from(record.encode()))],
                };
                let committed = self.catalog.commit(Batch::one(Some(standing.epoch), change)).await?;
                if !committed.all_applied() {
                    return Err(SiteError::Changed);
                }
                tracing::info!(%name, token, "an outside node joined");
            }
        }
        let identity =
            Identity { cluster, site: SiteName::outside(), role: Role::Agent, name: name.to_string() };
        let chain = authority.sign(csr, &Request::new(identity, VALIDITY)).map_err(signing)?;
        Ok(Ok(OutsideAnswer { cluster, node: name, chain: chain_pem(&chain), devices: node.devices }))
    }

    /// The cluster's authority: either site can open it.
    fn authority(&self, view: &dyn View) -> Result<(ClusterId, Authority), SiteError> {
        let sealed = view.get(&keys::keyring())?.ok_or(SiteError::NothingYet("keyring"))?;
        let keyring = self.cluster_keys.open(&sealed)?;
        let cluster = view.get(&keys::cluster())?.ok_or(SiteError::NothingYet("authority"))?;
        let cluster = Cluster::decode(&cluster)?;
        let key = open_authority_key(&keyring, &cluster.sealed_authority_key).map_err(signing)?;
        Ok((cluster.id, Authority::from_pem(&cluster.authority, &key).map_err(signing)?))
    }
}

fn signing(error: impl std::fmt::Display) -> SiteError {
    SiteError::Signing(error.to_string())
}

fn unknown(token: &str) -> String {
    format!(
        "token {token} is no outside node's of this cluster, or no longer: declare the node, and take the token that is made for it"
    )
}

fn spent(node: &NodeName) -> String {
    format!(
        "the token of node {node} was spent by another key: delete its Secret and take the one that is made in its place"
    )
}

#[cfg(test)]
mod tests {
    use diptych_core::access::seal_authority_key;
    use diptych_core::cipher::SecretKey;
    use diptych_core::ids::{Epoch, KeeperNumber};
    use diptych_core::keyring::{Keyring, NewRingKey};
    use diptych_core::placement::NodeShare;
    use diptych_core::records::Gate;
    use diptych_wire::authority::{Issued, signing_request};
    use diptych_wire::tls::identity_of;

    use super::*;
    use crate::testing::{CLUSTER, west};

    /// Site `west`, active, that declares node `o1` with token `t1`.
    async fn admission() -> (Admission, watch::Sender<Standing>, tempfile::TempDir) {
        let (context, folder) = west();
        let authority = Authority::create(CLUSTER).expect("an authority");
        let new = NewRingKey { key: SecretKey::new([3; 32]), nonce: [4; 12], made_ms: 1 };
        let keyring = Keyring::create(CLUSTER, new);
        let cluster = Cluster {
            id: CLUSTER,
            authority: authority.certificate_pem(),
            sealed_authority_key: seal_authority_key(&keyring, &authority.key_pem(), &[5; 12])
                .expect("it seals"),
        };
        let node = OutsideNode {
            address: "192.0.2.1:8446".to_owned(),
            devices: vec![(diptych_core::ids::DeviceId(1), "/d0".to_owned())],
            declared_by: context.site.clone(),
            token: "t1".to_owned(),
            spent_by: None,
            share: NodeShare::default(),
        };
        let put = |key, value: Vec<u8>| Write::Put(key, Bytes::from(value));
        let writes = vec![
            put(keys::site_gate(&context.site), Gate::Open(Epoch(1)).encode()),
            put(keys::keyring(), keyring.seal(context.cluster_keys.keys().newest())),
            put(keys::cluster(), cluster.encode()),
            put(keys::outside_node(&"o1".parse().expect("a name")), node.encode()),
        ];
        context.catalog.commit(Batch::one(None, Change::blind(writes))).await.expect("it commits");
        let standing =
            watch::Sender::new(Standing { active: true, epoch: Epoch(1), keeper: KeeperNumber(1) });
        let admission = Admission { standing: standing.subscribe(), ..Admission::of(&context) };
        (admission, standing, folder)
    }

    #[tokio::test]
    async fn a_token_is_spent_by_the_first_key_whose_holder_may_ask_again() {
        let (admission, _standing, _folder) = admission().await;
        let (key, csr) = signing_request().expect("a request");
        let answer = admission.admit("t1", &csr).await.expect("it is active").expect("it is fresh");
        let issued = Issued::from_pem(&answer.chain, &key).expect("the key fits");
        let identity = identity_of(&issued.chain[0]).expect("an identity");
        assert_eq!(identity.to_string(), format!("diptych://{CLUSTER}/outside/agent/o1"));
        admission.admit("t1", &csr).await.expect("it is active").expect("an answer can be lost");
        let (_, another) = signing_request().expect("a request");
        let reason = admission.admit("t1", &another).await.expect("it is active").expect_err("it is spent");
        assert!(reason.contains("node o1 was spent by another key: delete its Secret"), "{reason}");
    }

    #[tokio::test]
    async fn a_token_that_nobody_made_and_a_request_that_is_none_are_refused_for_good() {
        let (admission, _standing, _folder) = admission().await;
        let (_, csr) = signing_request().expect("a request");
        let reason = admission.admit("t0", &csr).await.expect("it is active").expect_err("nobody made it");
        assert!(reason.contains("token t0 is no outside node's of this cluster"), "{reason}");
        admission.admit("t1", "no request").await.expect("it is active").expect_err("it is no request");
        admission.admit("t1", &csr).await.expect("it is active").expect("what was refused spent nothing");
    }

    #[tokio::test]
    async fn a_passive_site_admits_nobody_and_spends_nothing() {
        let (admission, standing, _folder) = admission().await;
        let (_, csr) = signing_request().expect("a request");
        standing.send_modify(|standing| standing.active = false);
        admission.admit("t1", &csr).await.expect_err("not now");
        standing.send_modify(|standing| standing.active = true);
        let (_, another) = signing_request().expect("a request");
        admission.admit("t1", &another).await.expect("it is active").expect("it was not spent");
    }
}
