//! Specs that can't be valid are refused by the API server, one that can't survive by a condition; what was declared before goes on.

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::ground::{BUCKET, Ground, random, then_put_back};
use crate::demo::table::Table;
use crate::kind::cluster::Cluster;
use crate::kind::install::STORAGE_CLUSTER;
use crate::kind::spec;

/// Fields of a StorageCluster, and what the refusal says.
fn impossible() -> Vec<(Value, &'static str)> {
    let devices = |path: &str| json!({"nodeAgents": {"devices": [{"path": path}]}});
    vec![
        (json!({"site": "north"}), "site can't change"),
        (json!({"peer": null}), "a peer can't be taken away"),
        (json!({"acknowledge": "Sometimes"}), "Unsupported value"),
        (json!({"failover": {"lease": {"duration": "100ms"}}}), "a lease of 1s to 1m"),
        (json!({"failover": {"preferred": "north"}}), "must be one of the two sites"),
        (
            json!({"encryption": {"keySecretRef": {"name": "other"}}}),
            "the Secret stays, the cluster key in it is exchanged",
        ),
        (devices("/var/lib/../../etc"), "may not contain '..'"),
        (devices("d0"), "should match"),
    ]
}

fn file(name: &str, content: &Value) -> Value {
    json!({"apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject", "metadata": {"name": name},
        "spec": {"clusterRef": {"name": STORAGE_CLUSTER}, "bucket": BUCKET, "key": name, "content": content}})
}

/// The last line of the refusal, which has these words in it.
fn must_be_refused(outcome: Result<()>, words: &str, what: &Value) -> Result<String> {
    let Err(error) = outcome else { bail!("it was taken: {what}") };
    let said = format!("{error:#}");
    ensure!(said.contains(words), "{words:?} is not in {said}");
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    Ok(last.unwrap_or_default().trim().to_owned())
}

/// What the schema and its rules refuse.
pub(super) async fn refused(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let cluster = &ground.clusters[0];
    table
        .step("what can't be valid is refused by the API server, nothing of it is taken", async {
            let before = generation(cluster).await?;
            let mut refusals = 0;
            for (fields, words) in impossible() {
                must_be_refused(spec::patch(cluster, &fields).await, words, &fields)?;
                refusals += 1;
            }
            ensure!(generation(cluster).await? == before, "the spec was changed");
            Ok(((), format!("{refusals} specs of a StorageCluster, generation {before} as before")))
        })
        .await?;
    table
        .step("a FileObject of two contents, of none, or of more than 256 KiB is refused", async {
            let contents = [
                (json!({"text": "one", "base64": "b25l"}), "exactly one of text, base64"),
                (json!({}), "exactly one of text, base64"),
                (json!({"text": "x".repeat(262_145)}), "Too long"),
                (json!({"base64": "not base64!"}), "should match"),
            ];
            let mut said = Vec::new();
            for (content, words) in contents {
                let manifest = file("refused", &content);
                let made = cluster.feed(&["create", "-f", "-"], &manifest.to_string()).await.map(drop);
                // The manifest may be long: its name tells enough.
                said.push(must_be_refused(made, words, &manifest["metadata"])?);
            }
            let there =
                cluster.kubectl(&["get", "fileobject", "refused", "--ignore-not-found", "-o", "name"]);
            ensure!(there.await?.is_empty(), "a FileObject was made");
            Ok(((), said.join("; ")))
        })
        .await
}

async fn generation(cluster: &Cluster) -> Result<i64> {
    let seen = cluster.get(&[spec::OBJECT]).await?;
    Ok(seen.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default())
}

/// The coding in force, and the gateways' template.
async fn runs_with(cluster: &Cluster) -> Result<(Value, Value)> {
    let coding = cluster.get(&[spec::OBJECT]).await?["status"]["coding"].take();
    let gateways = cluster.get(&["deployment/main-gateway"]).await?["spec"]["template"].take();
    Ok((coding, gateways))
}

/// The nodes that there are can't keep the promise: the sum says so, and what was in force stays.
pub(super) async fn cannot_survive(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step(
            "a topology that can't survive is refused with the sum, and the one in force serves on",
            async {
                let (active, _) = ground.sites().await?;
                let before = runs_with(active).await?;
                let look = async {
                    spec::patch(active, &json!({"survive": {"nodes": 4}})).await?;
                    spec::says(active, "Ready", "False CannotSurvive").await?;
                    let sum = spec::says(active, "TopologySurvives", "False CannotSurvive").await?;
                    ensure!(sum.contains("what would do"), "the sum says nothing of what would do: {sum}");
                    ensure!(runs_with(active).await? == before, "coding or gateways are others");
                    let (key, bytes) = (format!("meanwhile-{}", ground.run), random(64 << 10)?);
                    ground.s3()?.put(&key, bytes.clone()).await?;
                    Ok(format!("{sum}; meanwhile {}", ground.read_in_both(&key, &bytes).await?))
                };
                let put_back = async {
                    spec::declare(active, &json!({"survive": {"nodes": 1}})).await?;
                    spec::says(active, "Ready", "True Serving").await.map(drop)
                };
                Ok(((), Box::pin(then_put_back(look, put_back)).await?))
            },
        )
        .await
}
