//! The active site's keeper admits an outside node: by a token that nobody has spent, and by signing for a key that stays
//! with the node. It signs again for the same key before the certificate ends.

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
use diptych_core::ids::{ClusterId, Epoch, NodeName, SiteName};
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
/// Where a keeper is asked to renew a certificate; the node's name follows.
pub const RENEW: &str = "/keeper/v1/renew-outside";
/// Life of an outside agent's certificate, as of one inside. The agent asks for the next one when a third is left.
const VALIDITY: Duration = Duration::from_hours(90 * 24);

/// Lets outside nodes join, by a token each, and stay.
#[async_trait]
pub trait OutsideJoins: Send + Sync + 'static {
    /// The answer to an [`OutsideQuestion`], as it came, of the one that holds the token of this name.
    async fn join_outside(&self, token: &str, question: Bytes) -> Response;

    /// The answer to an [`OutsideQuestion`], as it came, of the agent of this node.
    async fn renew_outside(&self, node: &str, question: Bytes) -> Response;
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
    let renew = |State(admission): State<Admission>, Path(node): Path<String>, question: Bytes| async move {
        admission.renew_outside(&node, question).await
    };
    Router::new()
        .route(&format!("{ADMIT}/{{token}}"), post(admit))
        .route(&format!("{RENEW}/{{node}}"), post(renew))
        .with_state(admission)
}

#[async_trait]
impl OutsideJoins for Admission {
    async fn join_outside(&self, token: &str, question: Bytes) -> Response {
        match postcard::from_bytes::<OutsideQuestion>(&question) {
            Ok(question) => respond(token, self.admit(token, &question.csr).await),
            Err(_) => unreadable(),
        }
    }

    async fn renew_outside(&self, node: &str, question: Bytes) -> Response {
        match postcard::from_bytes::<OutsideQuestion>(&question) {
            Ok(question) => respond(node, self.renew(node, &question.csr).await),
            Err(_) => unreadable(),
        }
    }
}

fn unreadable() -> Response {
    (StatusCode::BAD_REQUEST, "the question can't be read").into_response()
}

/// To a token or a node.
fn respond(asker: &str, outcome: Result<Result<OutsideAnswer, String>, SiteError>) -> Response {
    match outcome {
        Ok(Ok(answer)) => match postcard::to_stdvec(&answer) {
            Ok(bytes) => bytes.into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        },
        Ok(Err(refusal)) => {
            tracing::warn!(asker, refusal, "an outside node gets no certificate");
            (StatusCode::GONE, refusal).into_response()
        }
        Err(error) => {
            tracing::info!(asker, %error, "an outside node gets no certificate now");
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
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
        let epoch = self.epoch()?;
        let spender = match key_of(csr) {
            Ok(spender) => spender,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let view = self.catalog.view().await?;
        let found = declared(view.as_ref())?.into_iter().find(|(_, (_, node))| node.token == token);
        // The operator shows a token a moment before the catalog hears of it.
        let (name, (raw, node)) = found.ok_or_else(|| SiteError::UnknownToken(token.to_owned()))?;
        let authority = self.authority(view.as_ref())?;
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
                let committed = self.catalog.commit(Batch::one(Some(epoch), change)).await?;
                if !committed.all_applied() {
                    return Err(SiteError::Changed);
                }
                tracing::info!(%name, token, "an outside node joined");
            }
        }
        certified(&authority, csr, name, node).map(Ok)
    }

    /// The next certificate for the key that spent the node's token, or why there is none; the error: not now. Nothing is
    /// written: whoever is asked knows as much.
    async fn renew(&self, node: &str, csr: &str) -> Result<Result<OutsideAnswer, String>, SiteError> {
        self.epoch()?;
        let holder = match key_of(csr) {
            Ok(holder) => holder,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let view = self.catalog.view().await?;
        let found = declared(view.as_ref())?.into_iter().find(|(name, _)| name.as_str() == node);
        let Some((name, (_, record))) = found else { return Ok(Err(removed(node))) };
        if record.spent_by != Some(holder) {
            return Ok(Err(replaced(&name)));
        }
        let authority = self.authority(view.as_ref())?;
        tracing::info!(%name, "the certificate of an outside node is renewed");
        certified(&authority, csr, name, record).map(Ok)
    }

    /// The epoch under which this site is active.
    fn epoch(&self) -> Result<Epoch, SiteError> {
        let standing = *self.standing.borrow();
        if standing.active {
            return Ok(standing.epoch);
        }
        Err(SiteError::NotYet("the active site admits outside nodes, and this one is passive"))
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

fn key_of(csr: &str) -> Result<[u8; 32], String> {
    key_of_request(csr).map_err(|error| format!("the signing request can't be read: {error}"))
}

/// What a node runs with.
fn certified(
    (cluster, authority): &(ClusterId, Authority),
    csr: &str,
    name: NodeName,
    node: OutsideNode,
) -> Result<OutsideAnswer, SiteError> {
    let (cluster, site) = (*cluster, SiteName::outside());
    let identity = Identity { cluster, site, role: Role::Agent, name: name.to_string() };
    let chain = authority.sign(csr, &Request::new(identity, VALIDITY)).map_err(signing)?;
    Ok(OutsideAnswer { cluster, node: name, chain: chain_pem(&chain), devices: node.devices })
}

fn signing(error: impl std::fmt::Display) -> SiteError {
    SiteError::Signing(error.to_string())
}

fn spent(node: &NodeName) -> String {
    format!(
        "the token of node {node} was spent by another key: delete its Secret and take the one that is made in its place"
    )
}

fn removed(node: &str) -> String {
    format!(
        "node {node} is not declared outside any more: declare it again, and start its agent with the token that is made for it"
    )
}

fn replaced(node: &NodeName) -> String {
    format!(
        "the token that node {node} has now was not spent by this key: start its agent with the one in its Secret, or delete that \
         Secret and take the one that is made in its place"
    )
}

#[cfg(test)]
mod tests {
    use diptych_wire::authority::{Issued, signing_request};
    use diptych_wire::tls::identity_of;

    use super::*;
    use crate::testing::{CLUSTER, admission as prepared};

    /// Site `west`, active, that declares node `o1` with token `t1`.
    async fn admission() -> (Admission, watch::Sender<Standing>, tempfile::TempDir) {
        let authority = Authority::create(CLUSTER).expect("an authority");
        let (context, standing, folder) = prepared(&authority).await;
        (Admission::of(&context), standing, folder)
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
    async fn a_token_that_is_not_known_yet_may_be_shown_again_and_a_request_that_is_none_is_refused_for_good()
    {
        let (admission, _standing, _folder) = admission().await;
        let (_, csr) = signing_request().expect("a request");
        let reason = admission.admit("t0", &csr).await.expect_err("the catalog has not heard of it");
        assert!(reason.to_string().contains("token t0 is no outside node's of this cluster yet"), "{reason}");
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

    /// What is declared of `o1` changes.
    async fn declares(admission: &Admission, change: impl FnOnce(OutsideNode) -> Option<OutsideNode>) {
        let view = admission.catalog.view().await.expect("a view");
        let name: NodeName = "o1".parse().expect("a name");
        let (_, node) = declared(view.as_ref()).expect("it reads").remove(&name).expect("it is declared");
        let key = keys::outside_node(&name);
        let write = match change(node) {
            Some(node) => Write::Put(key, Bytes::from(node.encode())),
            None => Write::Delete(key),
        };
        admission.catalog.commit(Batch::one(None, Change::blind(vec![write]))).await.expect("it commits");
    }

    #[tokio::test]
    async fn the_key_that_spent_the_token_is_renewed_and_no_other() {
        let (admission, standing, _folder) = admission().await;
        let (key, csr) = signing_request().expect("a request");
        let early = admission.renew("o1", &csr).await.expect("it is active").expect_err("it did not join");
        assert!(early.contains("start its agent with the one in its Secret"), "{early}");
        let first = admission.admit("t1", &csr).await.expect("it is active").expect("it is fresh");
        let next = admission.renew("o1", &csr).await.expect("it is active").expect("it has joined");
        assert_ne!(first.chain, next.chain);
        let issued = Issued::from_pem(&next.chain, &key).expect("the key fits");
        let identity = identity_of(&issued.chain[0]).expect("an identity");
        assert_eq!(identity.to_string(), format!("diptych://{CLUSTER}/outside/agent/o1"));
        let (_, another) = signing_request().expect("a request");
        admission.renew("o1", &another).await.expect("it is active").expect_err("it is another key");
        admission.renew("o2", &csr).await.expect("it is active").expect_err("it is another's key");
        standing.send_modify(|standing| standing.active = false);
        admission.renew("o1", &csr).await.expect_err("the other site is asked");
    }

    #[tokio::test]
    async fn a_node_that_was_given_another_token_or_was_taken_away_is_not_renewed() {
        let (admission, _standing, _folder) = admission().await;
        let (_, csr) = signing_request().expect("a request");
        admission.admit("t1", &csr).await.expect("it is active").expect("it is fresh");
        declares(&admission, |node| Some(OutsideNode { token: "t2".to_owned(), spent_by: None, ..node }))
            .await;
        admission.renew("o1", &csr).await.expect("it is active").expect_err("it was revoked");
        admission.admit("t2", &csr).await.expect("it is active").expect("it joins again");
        admission.renew("o1", &csr).await.expect("it is active").expect("it is a member again");
        declares(&admission, |_| None).await;
        let gone = admission.renew("o1", &csr).await.expect("it is active").expect_err("it is gone");
        assert!(gone.contains("node o1 is not declared outside any more"), "{gone}");
    }
}
