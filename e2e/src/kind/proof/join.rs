//! Sites that may not join: with a token that is not the one, or with a certificate of another authority.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use diptych_core::ids::ClusterId;
use diptych_wire::authority::{Authority, Request};
use diptych_wire::identity::{Identity, Role};
use serde_json::{Value, json};

use super::ground::{Ground, then_put_back};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::kind::cluster::Cluster;
use crate::kind::install::{cluster_key, prepare};
use crate::kind::outside::Outside;
use crate::kind::spec;

/// Namespace and release of the site that may not join.
const STRANGER: &str = "stranger";
/// The join Secret of the site that is joined.
const OFFERED: &str = "main-join";
/// What the condition says of a token that was replaced.
const REPLACED: &str = "the token is not the one in Secret main-join";
/// And of certificates that nobody here has signed.
const FOREIGN: &str = "another authority";

/// A third site, installed beside the second, that tries to join the first.
pub(super) async fn strangers(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let [east, west] = ground.clusters;
    let stranger = west.in_namespace(STRANGER);
    let spent = east.get(&["secret", OFFERED]).await?;
    let look = async {
        table
            .step("a site that joins with a token that was replaced is told so, and gets nothing", async {
                let first = offered_anew(east, &spent).await?;
                offered_anew(east, &first).await?;
                install(ground, &stranger, &first["data"]).await?;
                Ok(((), refused(&stranger, REPLACED).await?))
            })
            .await?;
        table
            .step("a site that joins with a certificate of another authority is refused by name", async {
                let forged = forged(east).await?;
                offer(&stranger, &forged).await?;
                Ok(((), refused(&stranger, FOREIGN).await?))
            })
            .await
    };
    let put_back = async {
        uninstall(&stranger).await?;
        restore(east, spent.clone()).await
    };
    then_put_back(look, put_back).await
}

/// Deletes the join Secret, as a person does who needs a token; the one that is made in its place.
async fn offered_anew(cluster: &Cluster, before: &Value) -> Result<Value> {
    cluster.kubectl(&["delete", "secret", OFFERED]).await?;
    until("a join Secret is made in its place", Duration::from_mins(1), || async {
        let found = cluster.get(&["secret", OFFERED]).await?;
        let new = found["data"]["tls.key"].is_string() && found["data"]["token"] != before["data"]["token"];
        Ok(if new { Ok(found) } else { Err("it is the old one".to_owned()) })
    })
    .await
}

async fn offer(stranger: &Cluster, data: &Value) -> Result<()> {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "join"}, "data": data});
    stranger.apply(&secret.to_string()).await
}

/// An operator and a StorageCluster with the values of the second site; nothing else is made before it has joined.
async fn install(ground: &Ground<'_>, stranger: &Cluster, join: &Value) -> Result<()> {
    let outside = Outside::running(ground.state)?.context("what runs outside the clusters is gone")?;
    prepare(stranger, &cluster_key(ground.state)?, &outside.token).await?;
    offer(stranger, join).await?;
    let witness = format!("cluster.spec.failover.witness.outsideNode.endpoint={}", outside.witness_address());
    let sets = [
        "crds.enabled=false",
        "operator.replicas=1",
        "cluster.spec.gateway.publicAddresses={192.0.2.1}",
        witness.as_str(),
    ];
    let mut words =
        vec!["upgrade", "--install", STRANGER, "charts/diptych", "--values", "kind-config/values-west.yaml"];
    words.extend(sets.iter().flat_map(|set| ["--set", set]));
    stranger.helm(&words).await.map(drop)
}

/// What the condition says; nothing of the cluster's own was handed out.
async fn refused(stranger: &Cluster, words: &str) -> Result<String> {
    let said = until(&format!("the stranger is told {words:?}"), Duration::from_mins(3), || async {
        let ready = stranger.condition_of(spec::OBJECT, "Ready").await?;
        let message = ready["message"].as_str().unwrap_or_default();
        let told = ready["reason"] == "WaitingForJoin" && message.contains(words);
        Ok(if told { Ok(message.to_owned()) } else { Err(ready.to_string()) })
    })
    .await?;
    let given = ["get", "secret", "main-authority", "--ignore-not-found", "-o", "name"];
    ensure!(stranger.kubectl(&given).await?.is_empty(), "it was given the authority");
    Ok(said)
}

/// A join Secret for the same cluster and site, by an authority of the forger's own.
async fn forged(cluster: &Cluster) -> Result<Value> {
    let id: ClusterId = cluster.secret("main-authority", "cluster-id").await?.trim().parse()?;
    let authority = Authority::create(id)?;
    let identity = Identity { cluster: id, site: "west".parse()?, role: Role::Join, name: "f0".to_owned() };
    let issued = authority.issue(&Request::new(identity, Duration::from_hours(1)))?;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    Ok(json!({"token": encode("f0"), "fingerprint": encode(&authority.fingerprint()),
        "tls.crt": encode(&issued.chain_pem()), "tls.key": encode(&issued.key_pem())}))
}

async fn uninstall(stranger: &Cluster) -> Result<()> {
    let there = stranger.kubectl(&["get", "namespace", STRANGER, "--ignore-not-found", "-o", "name"]).await?;
    if there.is_empty() {
        return Ok(());
    }
    stranger.helm(&["uninstall", STRANGER, "--ignore-not-found", "--wait"]).await?;
    stranger.kubectl(&["delete", "namespace", STRANGER, "--timeout=180s"]).await.map(drop)
}

/// The token that was spent at the real join is spent again: nobody else may use the new one.
async fn restore(cluster: &Cluster, mut secret: Value) -> Result<()> {
    if let Some(metadata) = secret["metadata"].as_object_mut() {
        metadata.retain(|entry, _| matches!(entry.as_str(), "name" | "labels" | "ownerReferences"));
    }
    cluster.feed(&["replace", "-f", "-"], &secret.to_string()).await.map(drop)
}
