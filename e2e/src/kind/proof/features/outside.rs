//! A node in neither site: declared, joined by its token, given rows, freed of them and taken away.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diptych_core::ids::SiteName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::store::Store;
use super::{MOVES_IN, a_file, declare, printed, rows};
use crate::demo::installation::{signal, until};
use crate::demo::reach::program;
use crate::demo::table::Table;
use crate::kind::cluster::Cluster;
use crate::kind::install::STORAGE_CLUSTER;
use crate::kind::network::gateway_address;
use crate::kind::proof::ground::{Ground, then_put_back};
use crate::kind::spec;

/// Where both sites reach the agent.
const PORT: u16 = 18_446;
const JOINS_IN: Duration = Duration::from_mins(3);
const ENDS_IN: Duration = Duration::from_secs(30);
/// The device in a bucket of a store outside, and where rows lie in it.
const BUCKET: &str = "margin";
const ROWS: &str = "o2/rows/";

/// Its device is a folder.
pub(super) async fn joins_with_a_folder(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let folder = folder(ground)?;
    let device = folder.path().join("d0");
    std::fs::create_dir_all(&device)?;
    let node = OutsideNode::new(ground, 1, &device.display().to_string(), folder).await?;
    table
        .step("a node outside joins by the token of its Secret, holds a row of each extent, and gives them back", async {
            let agent = Command::new(program()?);
            Ok(((), node.comes_and_goes(ground, agent, async || Ok(String::new())).await?))
        })
        .await
}

/// Its device is a prefix of a bucket.
pub(super) async fn joins_with_a_bucket(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let node = OutsideNode::new(ground, 2, &format!("s3://{BUCKET}/o2"), folder(ground)?).await?;
    table
        .step("the same with its device in a bucket of another store: rows are objects there", async {
            let store = Store::start(ground, BUCKET).await?;
            let mut agent = Command::new(program()?);
            agent.env("AWS_ACCESS_KEY_ID", &store.endpoint.access_key);
            agent.env("AWS_SECRET_ACCESS_KEY", &store.endpoint.secret_key);
            let objects = async || {
                let there = store.bucket.list(ROWS).await?.len();
                ensure!(there > 0, "there is no row in the bucket");
                Ok(format!("{there} objects in the bucket; "))
            };
            let more = ["--bucket-endpoint", &store.endpoint.endpoint, "--bucket-capacity", "1099511627776"];
            let node = OutsideNode { more: more.map(str::to_owned).to_vec(), ..node };
            let seen = Box::pin(node.comes_and_goes(ground, agent, objects)).await;
            Ok(((), then_put_back(async { seen }, store.stop()).await?))
        })
        .await
}

fn folder(ground: &Ground<'_>) -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("outside-").tempdir_in(&ground.state.folder)?)
}

/// As it is declared, and where its agent keeps what it is.
struct OutsideNode {
    name: String,
    device: Value,
    address: String,
    more: Vec<String>,
    folder: TempDir,
}

impl OutsideNode {
    /// Of two of a run: no device ever has another one's number.
    async fn new(ground: &Ground<'_>, number: u64, path: &str, folder: TempDir) -> Result<Self> {
        let id = ground.run / 1_000 % 500_000_000 * 2 + number;
        Ok(Self {
            name: format!("o{number}-{}", ground.run),
            device: json!({"id": id, "path": path}),
            address: format!("{}:{PORT}", gateway_address().await?),
            more: Vec::new(),
            folder,
        })
    }

    /// Of its StorageNode, and of the Secret with its token.
    fn declared_as(&self) -> String {
        format!("main-outside-{}", self.name)
    }

    fn object(&self) -> String {
        format!("storagenode/{}", self.declared_as())
    }

    fn manifest(&self) -> Value {
        json!({"apiVersion": "diptych.dev/v1alpha1", "kind": "StorageNode",
            "metadata": {"name": self.declared_as()},
            "spec": {"clusterRef": {"name": STORAGE_CLUSTER}, "node": self.name,
                "outside": {"address": self.address}, "devices": [self.device]}})
    }

    /// All of its life. `agent`: the program, with what is in its environment; `look`: at what lies with it, once it has rows.
    async fn comes_and_goes(
        &self,
        ground: &Ground<'_>,
        agent: Command,
        look: impl AsyncFn() -> Result<String>,
    ) -> Result<String> {
        let (active, _) = ground.sites().await?;
        let mut running = None;
        let seen = async {
            active.apply(&self.manifest().to_string()).await?;
            let token = active.secret(&self.declared_as(), "token.json").await?;
            running = Some(self.start(ground, agent, &token)?);
            let said = spec::said_within(active, &self.object(), "Ready", "True Live", JOINS_IN).await?;
            let (key, bytes) = a_file(ground, &format!("margin-{}", self.name), 1 << 20).await?;
            declare(ground, &json!({"outside": {"rows": 1}})).await?;
            let shown = has_all_its_rows(active).await?;
            until(&format!("a row of {key} is outside"), MOVES_IN, || async {
                let named = rows(ground, active.site, &key).await?;
                let there =
                    named.iter().filter(|row| row.site == SiteName::outside() && row.node == self.name);
                Ok(if there.count() > 0 { Ok(()) } else { Err(format!("{} rows elsewhere", named.len())) })
            })
            .await?;
            let (line, lies) = (printed(active, &self.object()).await?, look().await?);
            Ok(format!("{said}; {shown}; {line}; {lies}{}", ground.read_in_both(&key, &bytes).await?))
        };
        let seen = Box::pin(seen).await;
        let put_back = async {
            let freed = self.goes(ground, active).await;
            let ended = match running {
                Some(agent) => end(agent).await,
                None => Ok(()),
            };
            freed.and(ended)
        };
        Box::pin(then_put_back(async { seen }, put_back)).await
    }

    /// As docs/kubernetes.md has it started there.
    fn start(&self, ground: &Ground<'_>, mut agent: Command, token: &str) -> Result<Child> {
        let path = self.folder.path().join("token.json");
        std::fs::write(&path, token)?;
        let log = std::fs::File::create(ground.state.folder.join(format!("{}.log", self.name)))?;
        agent.arg("node-agent").arg("--token").arg(path);
        agent.arg("--folder").arg(self.folder.path()).args(["--listen", &self.address]).args(&self.more);
        agent.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        agent.spawn().context("node-agent can't be started")
    }

    /// No extent names its rows any more, then it is declared no more. Their bytes stay for readers that began before, longer than a proof
    /// waits.
    async fn goes(&self, ground: &Ground<'_>, active: &Cluster) -> Result<()> {
        declare(ground, &json!({"outside": {"rows": 0}})).await?;
        let is_there = ["get", &self.object(), "--ignore-not-found", "-o", "name"];
        if !active.kubectl(&is_there).await?.is_empty() {
            spec::shows(active, spec::OBJECT, "no row outside", MOVES_IN, |seen| {
                (seen.pointer("/status/health/outsideRows")?.as_i64()? == 0).then_some(())
            })
            .await?;
        }
        active.kubectl(&["delete", &self.object(), "--ignore-not-found", "--timeout=60s"]).await?;
        active.kubectl(&["delete", "secret", &self.declared_as(), "--ignore-not-found"]).await?;
        for cluster in ground.clusters {
            until(&format!("{} knows of no node outside", cluster.site), JOINS_IN, || async {
                let outside = ground.status(cluster.site).await?.outside;
                let known =
                    outside.is_some_and(|outside| outside.nodes.iter().any(|node| node.name == self.name));
                Ok(if known { Err(format!("it knows {}", self.name)) } else { Ok(()) })
            })
            .await?;
        }
        spec::rolled(active).await
    }
}

/// Waits until every extent has its row outside; how many there are.
async fn has_all_its_rows(active: &Cluster) -> Result<String> {
    spec::shows(active, spec::OBJECT, "a row outside of each extent", MOVES_IN, |seen| {
        let health = seen.pointer("/status/health")?;
        let (there, lacking) = (health["outsideRows"].as_i64()?, health["outsideLacking"].as_i64()?);
        (there > 0 && lacking == 0).then(|| format!("{there} rows outside"))
    })
    .await
}

async fn end(mut agent: Child) -> Result<()> {
    if let Some(pid) = agent.id() {
        signal(pid, "TERM")?;
    }
    let ended = tokio::time::timeout(ENDS_IN, agent.wait()).await;
    ended.context("the agent does not end")?.map(drop).context("the agent can't be waited for")
}
