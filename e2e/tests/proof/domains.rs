//! Rows lie level over failure domains, so a rack of two nodes takes no more of a file than one of one node.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use diptych_e2e::demo::installation::{Installation, signal};
use diptych_e2e::demo::one_site::{inspect, whole};
use diptych_e2e::program::in_folder;

const PATIENCE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_mins(1);
/// 4 of 6 rows, one death promised. The first and the fourth node are in the first domain.
const THREE_DOMAINS: [&str; 8] = ["--sites", "1", "--nodes", "4", "--devices", "2", "--domains", "3"];
const FILES: u32 = 12;

fn bytes(number: u32) -> Bytes {
    (0..400_000_u32)
        .map(|at| ((at + number).wrapping_mul(2_246_822_519) >> 24) as u8)
        .collect::<Vec<_>>()
        .into()
}

fn key(number: u32) -> String {
    format!("file-{number}")
}

#[tokio::test]
async fn a_domain_of_two_nodes_dies_and_every_file_is_read() -> Result<()> {
    in_folder("domains", async |folder| {
        let installation = Installation::start(&folder.join("data"), &THREE_DOMAINS).await?;
        let s3 = installation.s3(PATIENCE)?;
        s3.create_bucket().await?;
        for number in 0..FILES {
            s3.put(&key(number), bytes(number)).await?;
        }
        whole(&installation, "east", LIMIT).await?;
        let status = installation.status("east").await?;
        let domain_of = |name: &str| status.nodes.iter().find(|node| node.name == name)?.domain.clone();
        let domains: Vec<_> = status.nodes.iter().filter_map(|node| domain_of(&node.name)).collect();
        ensure!(domains.len() == 4 && domains[0] == domains[3], "{domains:?}");
        for number in 0..FILES {
            for extent in inspect(&installation, &key(number)).await?.extents {
                let first =
                    extent.rows.iter().filter(|row| domain_of(&row.node).as_ref() == Some(&domains[0]));
                ensure!(first.count() == 2, "{extent:?}");
            }
        }

        let endpoints = installation.endpoints()?;
        let agents = endpoints.sites.values().flat_map(|site| &site.agents);
        for agent in agents.filter(|agent| domain_of(&agent.name).as_ref() == Some(&domains[0])) {
            signal(agent.pid, "KILL")?;
        }
        for number in 0..FILES {
            ensure!(s3.get(&key(number)).await?.bytes().await? == bytes(number), "{} differs", key(number));
        }
        installation.stop().await
    })
    .await
}
