//! One kind cluster: a site.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use serde_json::Value;
use tokio::process::Command;

use super::state::State;
use crate::demo::installation::until;
use crate::program::{fed, output};

/// Where the product runs.
pub const NAMESPACE: &str = "diptych";
const NODE_IMAGE: &str = "diptych/node:v1.34.4";

/// A cluster and the way to it.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The site, also the cluster's name.
    pub site: &'static str,
    kubeconfig: PathBuf,
    namespace: &'static str,
}

/// A machine of it: a container.
#[derive(Debug, Clone)]
pub struct Node {
    /// `east-worker2`.
    pub name: String,
    /// In the network that both clusters share; absent while it does not run.
    pub address: Option<String>,
    /// Of its first process; 0 while it does not run.
    pub pid: u32,
}

impl Cluster {
    /// A site's.
    pub fn new(state: &State, site: &'static str) -> Self {
        Self { site, kubeconfig: state.kubeconfig(), namespace: NAMESPACE }
    }

    /// The same cluster, and another namespace of it.
    pub fn in_namespace(&self, namespace: &'static str) -> Self {
        Self { namespace, ..self.clone() }
    }

    /// The namespace that kubectl and helm are asked about.
    pub const fn namespace(&self) -> &'static str {
        self.namespace
    }

    /// Whether it was made.
    pub async fn is_made(&self) -> Result<bool> {
        let clusters = output(Command::new("kind").args(["get", "clusters", "--quiet"])).await?;
        Ok(clusters.lines().any(|name| name == self.site))
    }

    /// Makes it, with the node image that this machine built, and waits until its names resolve.
    pub async fn create(&self, config: &Path) -> Result<()> {
        let mut kind = Command::new("kind");
        kind.args(["create", "cluster", "--image", NODE_IMAGE, "--wait", "300s", "--config"]);
        output(kind.arg(config).arg("--kubeconfig").arg(&self.kubeconfig)).await?;
        let wait = ["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=300s"];
        self.kubectl(&wait).await.map(drop)
    }

    /// Removes it, whatever became of its machines.
    pub async fn delete(&self) -> Result<()> {
        let mut kind = Command::new("kind");
        kind.args(["delete", "cluster", "--quiet", "--name", self.site]);
        output(kind.arg("--kubeconfig").arg(&self.kubeconfig)).await.map(drop)
    }

    /// Puts an image of this machine's Docker on every node.
    pub async fn load(&self, image: &str) -> Result<()> {
        output(Command::new("kind").args(["load", "docker-image", image, "--quiet", "--name", self.site]))
            .await
            .map(drop)
    }

    /// Its machines, in the order of their names; also those that do not run.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        let filter = format!("label=io.x-k8s.kind.cluster={}", self.site);
        let mut list = Command::new("docker");
        let ids = output(list.args(["ps", "--all", "--quiet", "--filter", filter.as_str()])).await?;
        let mut inspect = Command::new("docker");
        let described = output(inspect.arg("inspect").args(ids.split_whitespace())).await?;
        let described: Vec<Value> = serde_json::from_str(&described)?;
        let mut nodes: Vec<Node> = described.iter().filter_map(node).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    /// kubectl in the namespace.
    pub async fn kubectl(&self, words: &[&str]) -> Result<String> {
        output(self.command("kubectl", "--context").args(words)).await
    }

    /// The same, with something on its standard input.
    pub async fn feed(&self, words: &[&str], input: &str) -> Result<String> {
        fed(self.command("kubectl", "--context").args(words), input).await
    }

    /// Applies a manifest.
    pub async fn apply(&self, manifest: &str) -> Result<()> {
        self.feed(&["apply", "-f", "-"], manifest).await.map(drop)
    }

    /// An object, as JSON.
    pub async fn get(&self, what: &[&str]) -> Result<Value> {
        let words: Vec<&str> =
            ["get"].into_iter().chain(what.iter().copied()).chain(["-o", "json"]).collect();
        Ok(serde_json::from_str(&self.kubectl(&words).await?)?)
    }

    /// A condition of a StorageCluster; null: it has none of that type.
    pub async fn condition(&self, storage_cluster: &str, kind: &str) -> Result<Value> {
        self.condition_of(&format!("storagecluster/{storage_cluster}"), kind).await
    }

    /// A condition of any object, `KIND/NAME`; null: it has none of that type.
    pub async fn condition_of(&self, object: &str, kind: &str) -> Result<Value> {
        let seen = self.get(&[object]).await?;
        let conditions = seen.pointer("/status/conditions").and_then(Value::as_array);
        let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
        Ok(found.cloned().unwrap_or_default())
    }

    /// One entry of a Secret, as text, once it is there.
    pub async fn secret(&self, name: &str, entry: &str) -> Result<String> {
        let path = format!("jsonpath={{.data.{}}}", entry.replace('.', "\\."));
        until(&format!("Secret {name} of {}", self.site), Duration::from_mins(5), || async {
            let encoded = self.kubectl(&["get", "secret", name, "-o", path.as_str()]).await?;
            if encoded.is_empty() {
                return Ok(Err(format!("no entry {entry}")));
            }
            let text = base64::engine::general_purpose::STANDARD.decode(encoded.trim())?;
            Ok(Ok(String::from_utf8(text)?))
        })
        .await
    }

    /// helm in the namespace.
    pub async fn helm(&self, words: &[&str]) -> Result<String> {
        output(self.command("helm", "--kube-context").args(words)).await
    }

    fn command(&self, program: &str, context: &str) -> Command {
        let mut command = Command::new(program);
        command.args([context, &format!("kind-{}", self.site), "--namespace", self.namespace]);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }
}

fn node(described: &Value) -> Option<Node> {
    let address = described.pointer("/NetworkSettings/Networks/kind/IPAddress")?.as_str()?;
    Some(Node {
        name: described.get("Name")?.as_str()?.trim_start_matches('/').to_owned(),
        address: Some(address.to_owned()).filter(|address| !address.is_empty()),
        pid: described.pointer("/State/Pid")?.as_u64()?.try_into().ok()?,
    })
}

/// A command inside a machine, as root of it.
pub async fn inside(node: &Node, words: &[&str]) -> Result<String> {
    output(Command::new("docker").args(["exec", node.name.as_str()]).args(words)).await
}

/// Kills machines as a power cut would.
pub async fn kill(nodes: &[&Node]) -> Result<()> {
    let names = nodes.iter().map(|node| node.name.as_str());
    output(Command::new("docker").arg("kill").args(names)).await.map(drop)
}

/// Starts a machine again that was killed, under the address that it had: Docker gives addresses in the order of starts, and
/// the machine's kubelet knows only its old one.
pub async fn start(node: &Node) -> Result<()> {
    let name = node.name.as_str();
    if let Some(address) = &node.address {
        output(Command::new("docker").args(["network", "disconnect", "kind", name])).await?;
        output(Command::new("docker").args(["network", "connect", "--ip", address, "kind", name])).await?;
    }
    output(Command::new("docker").args(["start", name])).await.map(drop)
}

/// Removes a machine, its disks with it.
pub async fn remove(node: &Node) -> Result<()> {
    output(Command::new("docker").args(["rm", "--force", "--volumes", node.name.as_str()])).await.map(drop)
}
