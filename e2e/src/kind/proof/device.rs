//! A device that its node-agent can't open.

use anyhow::{Context, Result, ensure};

use super::ground::{Ground, random, then_put_back};
use crate::demo::table::Table;
use crate::kind::cluster::{Node, inside};
use crate::kind::spec;

/// A folder that `nodeAgents.devices` declares.
const PATH: &str = "/var/lib/diptych/d1";
const AGENTS: &str = "app.kubernetes.io/component=agent";

/// The folder of a device is closed to its agent, as a wrong owner or a broken disk would; then it is opened again.
pub(super) async fn closed_to_its_agent(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step(
            "a device that its node-agent can't open is named, its node serves on with the other one",
            async {
                let (_, passive) = ground.sites().await?;
                let nodes = passive.nodes().await?;
                let worker = |node: &&Node| node.pid != 0 && node.name.contains("worker");
                let node = nodes.iter().find(worker).context("no worker runs")?;
                let object = format!("storagenode/main-{}", node.name);
                let mode = inside(node, &["stat", "-c", "%a", PATH]).await?;
                let (key, bytes) = (format!("device-{}", ground.run), random(1 << 20)?);
                let look = async {
                    inside(node, &["chmod", "000", PATH]).await?;
                    let on_node = format!("--field-selector=spec.nodeName={}", node.name);
                    passive.kubectl(&["delete", "pods", "-l", AGENTS, &on_node, "--wait=false"]).await?;
                    let said = spec::said_of(passive, &object, "Ready", "False DevicesMissing").await?;
                    ensure!(said.contains(PATH), "{PATH} is not in {said}");
                    let ready = passive.get(&[object.as_str()]).await?["status"]["devicesReady"].take();
                    ensure!(ready == "1/2", "{ready} devices are ready");
                    ground.s3()?.put(&key, bytes.clone()).await?;
                    Ok(format!("{}: {said}; {}", node.name, ground.read_in_both(&key, &bytes).await?))
                };
                let put_back = async {
                    inside(node, &["chmod", mode.trim(), PATH]).await?;
                    spec::said_of(passive, &object, "Ready", "True Live").await.map(drop)
                };
                Ok(((), Box::pin(then_put_back(look, put_back)).await?))
            },
        )
        .await
}
