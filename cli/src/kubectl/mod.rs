//! `kubectl diptych`: what people ask of an installation by Kubernetes. A thin layer over the custom resources: everything here can
//! be done by `kubectl` alone, with more words.

mod bucket;
mod drill;
mod gateway;
mod losses;
mod status;
mod switch;
mod verify;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use diptych_api::StorageCluster;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};

use crate::command::bucket::Buckets;
use crate::command::keys::Keys;
use crate::command::losses::{Conflicts, Exposed, Ledger};

/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Ask an installation on Kubernetes: link the program as `kubectl-diptych`, and it is `kubectl diptych`
#[derive(Debug, clap::Args)]
pub struct Kubectl {
    #[command(subcommand)]
    command: Command,
    /// Context of the kubeconfig: one of the two sites
    #[arg(long, global = true)]
    context: Option<String>,
    /// Namespace of the installation; the context's own if left out
    #[arg(long, short, global = true)]
    namespace: Option<String>,
    /// The StorageCluster; needed where there are several
    #[arg(long, global = true)]
    cluster: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say who is active, what is exposed, and what a failover would be like
    Status,
    /// Rehearse a failover and follow it
    Drill(drill::Drill),
    /// Have this site take over
    Promote(switch::Promote),
    /// Let a site go on that has lost the record of its vote, as the other one has
    ForceVote(switch::ForceVote),
    /// Have the other site take over, losing nothing
    Handover(switch::Handover),
    /// Read a file from this site's own rows alone and verify every tag
    Verify(verify::Verify),
    /// List the objects of which this site was told and whose bytes it lacks: a promotion would lose them
    Exposed(losses::Asked<Exposed>),
    /// Say what was lost, kept aside or not done, and how it ended
    Ledger(losses::Asked<Ledger>),
    /// List, restore and discard versions that a return or a takeover kept beside the head of their key
    Conflicts(losses::Asked<Conflicts>),
    /// Say what buckets promise their writers where both sites acknowledge, and set it
    Bucket(losses::Asked<Buckets>),
    /// Say which keys are in use and how far an exchange of the cluster key is; make another ring key
    Keys(losses::Asked<Keys>),
}

impl Kubectl {
    /// Runs it.
    pub async fn run(self) -> Result<()> {
        diptych_wire::tls::install_provider();
        let site = Site::reach(self.context, self.namespace, self.cluster).await?;
        match self.command {
            Command::Status => status::run(&site),
            Command::Drill(drill) => drill.run(&site).await,
            Command::Promote(promote) => promote.run(&site).await,
            Command::ForceVote(force) => force.run(&site).await,
            Command::Handover(handover) => handover.run(&site).await,
            Command::Verify(verify) => verify.run(&site).await,
            Command::Exposed(exposed) => exposed.run(&site).await,
            Command::Ledger(ledger) => ledger.run(&site).await,
            Command::Conflicts(conflicts) => conflicts.run(&site).await,
            Command::Bucket(bucket) => bucket.run(&site).await,
            Command::Keys(keys) => keys.run(&site).await,
        }
    }
}

/// One site: a StorageCluster and the way to it.
struct Site {
    client: Client,
    namespace: String,
    cluster: StorageCluster,
}

impl Site {
    async fn reach(context: Option<String>, namespace: Option<String>, name: Option<String>) -> Result<Self> {
        let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
        let kubeconfig =
            Kubeconfig::read().context("there is no kubeconfig: set KUBECONFIG, or run `kubectl config`")?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let config = config.context("the kubeconfig names no cluster: look at --context")?;
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config)?;
        let api: Api<StorageCluster> = Api::namespaced(client.clone(), &namespace);
        let found = api.list(&ListParams::default()).await;
        let found =
            found.with_context(|| format!("the StorageClusters of namespace {namespace} can't be listed"))?;
        let cluster = chosen(found.items, name.as_deref(), &namespace)?;
        Ok(Self { client, namespace, cluster })
    }

    fn clusters(&self) -> Api<StorageCluster> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn look(&self) -> Result<StorageCluster> {
        Ok(self.clusters().get(&self.cluster.name_any()).await?)
    }

    /// `active`, `passive`, `fenced`.
    fn role(cluster: &StorageCluster) -> &str {
        cluster.status.as_ref().and_then(|status| status.role.as_deref()).unwrap_or("unknown")
    }
}

fn chosen(mut found: Vec<StorageCluster>, name: Option<&str>, namespace: &str) -> Result<StorageCluster> {
    let names = found.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", ");
    if let Some(name) = name {
        let Some(cluster) = found.into_iter().find(|cluster| cluster.name_any() == name) else {
            bail!("there is no StorageCluster {name} in namespace {namespace}; there is: {names}");
        };
        return Ok(cluster);
    }
    match (found.pop(), found.is_empty()) {
        (Some(cluster), true) => Ok(cluster),
        (Some(_), false) => {
            bail!("namespace {namespace} has several StorageClusters, {names}: say which by --cluster")
        }
        (None, _) => bail!("namespace {namespace} has no StorageCluster: look at --namespace and --context"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster(name: &str) -> StorageCluster {
        serde_json::from_value(json!({
            "apiVersion": "diptych.dev/v1alpha1", "kind": "StorageCluster", "metadata": {"name": name},
            "spec": {"site": "east", "survive": {"sites": 0, "nodes": 1}, "encryption": {"keySecretRef": {"name": "key"}},
                "nodeAgents": {"devices": [{"path": "/d0"}]}},
        }))
        .expect("a StorageCluster")
    }

    #[test]
    fn the_only_cluster_need_not_be_named_and_of_several_one_must_be() {
        assert_eq!(chosen(vec![cluster("main")], None, "n").expect("the only one").name_any(), "main");
        let two = || vec![cluster("main"), cluster("other")];
        assert_eq!(chosen(two(), Some("other"), "n").expect("the named one").name_any(), "other");
        let error = chosen(two(), None, "n").expect_err("which?").to_string();
        assert!(error.contains("main, other") && error.contains("--cluster"), "{error}");
        let error = chosen(Vec::new(), None, "n").expect_err("none").to_string();
        assert!(error.contains("--namespace"), "{error}");
    }
}
