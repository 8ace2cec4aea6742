//! Two clusters, and the product in both: east by `kubectl apply -f crds/` and `crds.enabled=false`, west by the chart alone.
//! Paths are those of the checkout that `cargo xtask` runs in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diptych::client::endpoints::{
    AgentEndpoint, CloudflareEndpoint, Endpoints, S3Endpoint, SiteEndpoint, WitnessEndpoint,
};
use serde_json::Value;

use super::Up;
use super::cluster::{Cluster, NAMESPACE, Node};
use super::network;
use super::outside::{ORIGIN_PORTS, Outside, ZONE};
use super::state::State;
use crate::demo::installation::until;
use crate::demo::table::Table;

const IMAGE: &str = "diptych/diptych:dev";
/// Pods of a site start one after the other.
const PATIENCE: Duration = Duration::from_mins(10);
/// The StorageCluster that the values of the demo declare.
pub const STORAGE_CLUSTER: &str = "main";

/// Both sites.
pub fn clusters(state: &State) -> [Cluster; 2] {
    ["east", "west"].map(|site| Cluster::new(state, site))
}

/// Makes everything; what is up already is kept.
pub async fn up(table: &mut Table, state: &State, options: &Up) -> Result<()> {
    let [east, west] = clusters(state);
    let made_before = east.is_made().await? || west.is_made().await?;
    let running = Outside::running(state)?;
    ensure!(
        running.is_some() == made_before,
        "of the clusters and what runs beside them only one is there: run `cargo xtask kind down` first"
    );
    table
        .step("two kind clusters", async {
            if !made_before {
                network::make().await?;
            }
            let (east, west) = tokio::try_join!(make(&east), make(&west))?;
            Ok(((), format!("{east}; {west}")))
        })
        .await?;
    let mut outside = match running {
        Some(outside) => outside,
        None => Outside::start(state, random_token()?).await?,
    };
    let key = cluster_key(state)?;
    table
        .step("east: kubectl apply -f crds/, helm install with crds.enabled=false", async {
            prepare(&east, &key, &outside.token).await?;
            east.kubectl(&["apply", "--server-side", "-f", "crds"]).await?;
            install(&east, options, &outside, false).await?;
            outside.start_witness(state, &east).await?;
            Ok(((), waits(&east).await?))
        })
        .await?;
    table
        .step("west: joins east, helm install alone; both are Ready", async {
            prepare(&west, &key, &outside.token).await?;
            copy_join(&east, &west).await?;
            install(&west, options, &outside, true).await?;
            let printed = format!("{}; {}", ready(&east).await?, ready(&west).await?);
            let spent = east.get(&["secret", "main-join"]).await?;
            ensure!(spent.pointer("/data/tls.key").is_none(), "the join token is not spent");
            Ok(((), printed))
        })
        .await?;
    write_endpoints(state, &outside, &[&east, &west]).await
}

/// Removes everything.
pub async fn down(state: &State) -> Result<()> {
    for cluster in clusters(state) {
        cluster.delete().await?;
    }
    Outside::stop(state)?;
    std::fs::remove_dir_all(&state.folder).with_context(|| format!("{}", state.folder.display()))
}

async fn make(cluster: &Cluster) -> Result<String> {
    if !cluster.is_made().await? {
        cluster.create(&Path::new("kind-config").join(format!("{}.yaml", cluster.site))).await?;
        cluster.load(IMAGE).await?;
    }
    let nodes = cluster.nodes().await?;
    Ok(format!("{} nodes: {}", nodes.len(), names(&nodes)))
}

fn names(nodes: &[Node]) -> String {
    nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The namespace, and the Secrets that the StorageCluster names.
pub async fn prepare(cluster: &Cluster, key: &str, token: &str) -> Result<()> {
    let manifest = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": cluster.namespace(), "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cluster-key", "namespace": cluster.namespace()},
            "stringData": {"key": key}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cloudflare", "namespace": cluster.namespace()},
            "stringData": {"token": token}},
    ]});
    cluster.apply(&manifest.to_string()).await
}

/// The preferred site's join Secret is carried to the other one by hand.
async fn copy_join(east: &Cluster, west: &Cluster) -> Result<()> {
    east.secret("main-join", "fingerprint").await?;
    let mut secret = east.get(&["secret", "main-join"]).await?;
    let data = secret.get_mut("data").map(Value::take).context("the join Secret is empty")?;
    let copy = serde_json::json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "join", "namespace": NAMESPACE}, "data": data});
    west.apply(&copy.to_string()).await
}

async fn install(cluster: &Cluster, options: &Up, outside: &Outside, definitions: bool) -> Result<()> {
    let nodes = cluster.nodes().await?;
    // Two of its machines are known to the world; either may die.
    let public: Vec<&str> = nodes.iter().filter_map(|node| node.address.as_deref()).take(2).collect();
    let failover = "cluster.spec.failover";
    let sets = [
        format!("crds.enabled={definitions}"),
        format!("cluster.spec.acknowledge={}", options.acknowledge),
        format!("cluster.spec.gateway.publicAddresses={{{}}}", public.join(",")),
        format!("{failover}.witness.outsideNode.endpoint={}", outside.witness_address()),
        format!("{failover}.dns.cloudflare.apiBaseURL=http://{}/client/v4", outside.api()),
        // The prober of drills reaches the public name as the demo's clients do.
        format!("{failover}.drills.publicUrl=http://{}", outside.edges().1),
    ];
    let values = format!("kind-config/values-{}.yaml", cluster.site);
    let mut words = vec!["upgrade", "--install", "diptych", "charts/diptych", "--values", values.as_str()];
    words.extend(sets.iter().flat_map(|set| ["--set", set.as_str()]));
    cluster.helm(&words).await.map(drop)
}

/// The first of two sites has no term before the other has spoken, and says so.
async fn waits(cluster: &Cluster) -> Result<String> {
    until(&format!("{} waits for the other site", cluster.site), PATIENCE, || async {
        let ready = cluster.condition(STORAGE_CLUSTER, "Ready").await?;
        // Installed before, both may serve already.
        let there = ready["status"] == "True" || ready["reason"] == "FirstStart";
        Ok(if there {
            Ok(format!("Ready={} {}", ready["status"], ready["message"]))
        } else {
            Err(ready.to_string())
        })
    })
    .await
}

/// Waits until the site says that it is ready; the line that kubectl prints of it.
async fn ready(cluster: &Cluster) -> Result<String> {
    until(&format!("StorageCluster of {} is Ready", cluster.site), PATIENCE, || async {
        let ready = cluster.condition(STORAGE_CLUSTER, "Ready").await?;
        Ok(if ready["status"] == "True" { Ok(()) } else { Err(ready.to_string()) })
    })
    .await?;
    let printed = cluster.kubectl(&["get", "storagecluster", STORAGE_CLUSTER, "--no-headers"]).await?;
    Ok(printed.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The same file that `diptych dev` writes, so that the same commands work on both.
async fn write_endpoints(state: &State, outside: &Outside, clusters: &[&Cluster]) -> Result<()> {
    let east = clusters.first().context("no cluster")?;
    let (s3, rest) = outside.edges();
    let mut endpoints = Endpoints {
        public: format!("http://{rest}"),
        token: east.secret("main-authority", "rest-token").await?,
        s3: S3Endpoint {
            endpoint: format!("http://{s3}"),
            access_key: east.secret("demo", "accessKeyId").await?,
            secret_key: east.secret("demo", "secretAccessKey").await?,
        },
        cloudflare: Some(CloudflareEndpoint {
            api: format!("http://{}/client/v4", outside.api()),
            token: outside.token.clone(),
            zone: ZONE.to_owned(),
            dns: outside.dns(),
            pid: outside.cloudflare,
        }),
        witness: Some(WitnessEndpoint { address: outside.witness_address(), pid: outside.witness }),
        sites: std::collections::BTreeMap::new(),
        outside: Vec::new(),
        outside_store: None,
    };
    for cluster in clusters {
        endpoints.sites.insert(cluster.site.to_owned(), site(cluster).await?);
    }
    endpoints.write(&state.folder)
}

async fn site(cluster: &Cluster) -> Result<SiteEndpoint> {
    let nodes = cluster.nodes().await?;
    let first = nodes.iter().find_map(|node| node.address.clone()).context("no machine has an address")?;
    let rest = format!("http://{first}:{}", ORIGIN_PORTS.1);
    let devices =
        |node: &Node| ["d0", "d1"].map(|device| root_of(node).join("var/lib/diptych").join(device)).to_vec();
    let agents = nodes.iter().map(|node| AgentEndpoint {
        name: node.name.clone(),
        pid: 0,
        address: format!("{}:7443", node.address.clone().unwrap_or_default()),
        devices: devices(node),
    });
    Ok(SiteEndpoint {
        s3: format!("http://{first}:{}", ORIGIN_PORTS.0),
        metrics: rest.clone(),
        rest,
        pid: 0,
        agents: agents.collect(),
    })
}

/// Where a machine's file system is found on this one.
pub fn root_of(node: &Node) -> PathBuf {
    Path::new("/proc").join(node.pid.to_string()).join("root")
}

fn random_bytes() -> Result<[u8; 32]> {
    use std::io::Read;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// 64 hexadecimal digits.
pub fn random_token() -> Result<String> {
    Ok(hex::encode(random_bytes()?))
}

/// The cluster key, the same in both sites; made once.
pub fn cluster_key(state: &State) -> Result<String> {
    if let Ok(key) = std::fs::read_to_string(cluster_key_file(state)) {
        return Ok(key);
    }
    let key = new_cluster_key()?;
    keep_cluster_key(state, &key)?;
    Ok(key)
}

/// From here on this one is the cluster key.
pub fn keep_cluster_key(state: &State, key: &str) -> Result<()> {
    let path = cluster_key_file(state);
    std::fs::write(&path, key).with_context(|| format!("{} can't be written", path.display()))
}

/// 32 bytes in base64, as `openssl rand -base64 32` makes them.
pub fn new_cluster_key() -> Result<String> {
    use base64::Engine as _;
    Ok(base64::engine::general_purpose::STANDARD.encode(random_bytes()?))
}

fn cluster_key_file(state: &State) -> PathBuf {
    state.folder.join("cluster.key")
}
