//! Secrets with wrong contents: each is named by a condition before it does harm, and put right again.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::ground::{Ground, random, then_put_back};
use crate::demo::installation::until;
use crate::demo::table::Table;
use crate::kind::cluster::Cluster;
use crate::kind::install::cluster_key;
use crate::kind::spec;

/// 32 bytes, and not the cluster's.
const ANOTHER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
/// The AccessKey that the values of site east declare.
const DECLARED_KEY: &str = "accesskey/demo";
const GATEWAYS: &str = "app.kubernetes.io/component=gateway";

async fn set(cluster: &Cluster, secret: &str, entry: &str, value: &str) -> Result<()> {
    let patch = json!({"stringData": {entry: value}}).to_string();
    cluster.kubectl(&["patch", "secret", secret, "--type=merge", "-p", patch.as_str()]).await.map(drop)
}

/// A token that Cloudflare does not know, in the site that would need it at a takeover.
pub(super) async fn wrong_token(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("a wrong Cloudflare token is named by the passive site before it is needed", async {
            let (_, passive) = ground.sites().await?;
            let right = passive.secret("cloudflare", "token").await?;
            let (key, bytes) = (format!("token-{}", ground.run), random(64 << 10)?);
            let look = async {
                set(passive, "cloudflare", "token", &"wrong".repeat(8)).await?;
                let said = spec::says(passive, "PublicNameKept", "False Unauthorized").await?;
                ground.s3()?.put(&key, bytes.clone()).await?;
                Ok(said)
            };
            let put_back = async {
                set(passive, "cloudflare", "token", &right).await?;
                spec::says(passive, "PublicNameKept", "True CouldPointHere").await?;
                spec::rolled(passive).await
            };
            let said = then_put_back(look, put_back).await?;
            Ok(((), format!("{said}; {}", ground.read_in_both(&key, &bytes).await?)))
        })
        .await
}

async fn gateways(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let pods = cluster.kubectl(&["get", "pods", "-l", GATEWAYS, "-o", "name"]).await?;
    Ok(pods.lines().map(str::to_owned).collect())
}

/// Has the operator look at an AccessKey now: it looks by itself once a minute.
async fn look_at_access_key(cluster: &Cluster, why: &str) -> Result<()> {
    let annotation = format!("proof.diptych.dev/look={why}");
    cluster.kubectl(&["annotate", DECLARED_KEY, &annotation, "--overwrite"]).await.map(drop)
}

/// Another key in the Secret that `encryption.keySecretRef` names. What runs goes on with the one that it has.
pub(super) async fn wrong_cluster_key(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("another cluster key opens nothing: a condition names it, a gateway that starts ends, reads go on", async {
            let east = &ground.clusters[0];
            let right = cluster_key(ground.state)?;
            let (key, bytes) = (format!("key-{}", ground.run), random(64 << 10)?);
            ground.s3()?.put(&key, bytes.clone()).await?;
            let before = gateways(east).await?;
            let look = async {
                set(east, "cluster-key", "key", ANOTHER_KEY).await?;
                look_at_access_key(east, "wrong").await?;
                let said = spec::said_of(east, DECLARED_KEY, "Ready", "False Secret").await?;
                let words = "the cluster key is not the one that wrapped this keyring";
                ensure!(said.contains(words), "{words:?} is not in {said}");
                one_more_gateway_ends(east, &before, words).await?;
                Ok(format!("{said}; {}", ground.read_in_both(&key, &bytes).await?))
            };
            let put_back = async {
                set(east, "cluster-key", "key", &right).await?;
                // Those that have failed wait ever longer before they start again.
                for pod in gateways(east).await?.difference(&before) {
                    east.kubectl(&["delete", pod, "--grace-period=0", "--force"]).await?;
                }
                spec::rolled(east).await?;
                look_at_access_key(east, "right").await?;
                spec::said_of(east, DECLARED_KEY, "Ready", "True Entered").await.map(drop)
            };
            Ok(((), Box::pin(then_put_back(look, put_back)).await?))
        })
        .await
}

/// A gateway is deleted; the one in its place says these words and ends.
async fn one_more_gateway_ends(cluster: &Cluster, before: &BTreeSet<String>, words: &str) -> Result<()> {
    let Some(one) = before.first() else { anyhow::bail!("there is no gateway") };
    cluster.kubectl(&["delete", one, "--grace-period=0", "--force"]).await?;
    until("the gateway in its place ends", Duration::from_mins(2), || async {
        let mut said = String::new();
        for pod in gateways(cluster).await?.difference(before) {
            said = cluster.kubectl(&["logs", pod, "--tail=40"]).await?;
            if said.contains(words) {
                return Ok(Ok(()));
            }
        }
        Ok(Err(said))
    })
    .await
}
