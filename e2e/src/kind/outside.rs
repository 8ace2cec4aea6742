//! What stands outside both sites: the witness, and the stand-in for Cloudflare. They go on when this program ends.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::network::gateway_address;
use super::state::State;
use crate::demo::installation::signal;
use crate::demo::reach::program;

/// The zone that the demo's Cloudflare has.
pub const ZONE: &str = "example.com";
/// The public name.
pub const HOSTNAME: &str = "files.example.com";
/// NodePorts of S3 and REST in both clusters.
pub const ORIGIN_PORTS: (u16, u16) = (30_080, 30_081);
const FILE: &str = "outside.json";

/// Addresses of what runs outside, as containers and this machine reach them; kept in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outside {
    /// Of the network that both clusters share.
    pub address: String,
    /// Token for the API.
    pub token: String,
    /// Process id of the stand-in for Cloudflare.
    pub cloudflare: u32,
    /// Process id of the witness; 0 until it runs.
    pub witness: u32,
}

impl Outside {
    /// `host:port` of the v4 API.
    pub fn api(&self) -> String {
        format!("{}:18400", self.address)
    }

    /// `host:port` of the DNS server.
    pub fn dns(&self) -> String {
        format!("{}:18453", self.address)
    }

    /// `host:port` of S3 and of REST by the public name.
    pub fn edges(&self) -> (String, String) {
        (format!("{}:18480", self.address), format!("{}:18481", self.address))
    }

    /// `host:port` of the witness.
    pub fn witness_address(&self) -> String {
        format!("{}:18443", self.address)
    }

    /// What was started before and runs.
    pub fn running(state: &State) -> Result<Option<Self>> {
        Ok(Self::started(state)?.filter(|known| is_ours(known.cloudflare)))
    }

    fn started(state: &State) -> Result<Option<Self>> {
        match std::fs::read(state.folder.join(FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(_) => Ok(None),
        }
    }

    fn write(&self, state: &State) -> Result<()> {
        std::fs::write(state.folder.join(FILE), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// Starts the stand-in for Cloudflare. The network of the clusters must be there.
    pub async fn start(state: &State, token: String) -> Result<Self> {
        let mut outside = Self { address: gateway_address().await?, token, cloudflare: 0, witness: 0 };
        let (s3, rest) = outside.edges();
        outside.cloudflare = spawn(
            state,
            "cloudflare",
            &[
                "cloudflare-emulator".to_owned(),
                format!("--listen={}", outside.api()),
                format!("--dns={}", outside.dns()),
                format!("--edge={s3}={}", ORIGIN_PORTS.0),
                format!("--edge={rest}={}", ORIGIN_PORTS.1),
                format!("--zone={ZONE}"),
                format!("--token={}", outside.token),
                format!("--default-host={HOSTNAME}"),
                "--propagation=1".to_owned(),
            ],
        )?;
        outside.write(state)?;
        Ok(outside)
    }

    /// Starts the witness with the identity that the first site's operator made for it; one that runs goes on.
    pub async fn start_witness(&mut self, state: &State, cluster: &Cluster) -> Result<()> {
        if is_ours(self.witness) {
            return Ok(());
        }
        let secret = "main-witness-identity";
        let folder = state.folder.join("witness");
        std::fs::create_dir_all(&folder)?;
        for entry in ["ca.crt", "tls.crt", "tls.key"] {
            std::fs::write(folder.join(entry), cluster.secret(secret, entry).await?)?;
        }
        let path = |name: &str| folder.join(name).display().to_string();
        self.witness = spawn(
            state,
            "witness",
            &[
                "witness".to_owned(),
                format!("--cluster={}", cluster.secret("main-authority", "cluster-id").await?.trim()),
                format!("--listen={}", self.witness_address()),
                format!("--state={}", path("record")),
                format!("--authority={}", path("ca.crt")),
                format!("--certificate={}", path("tls.crt")),
                format!("--key={}", path("tls.key")),
            ],
        )?;
        self.write(state)
    }

    /// Ends what runs.
    pub fn stop(state: &State) -> Result<()> {
        if let Some(outside) = Self::started(state)? {
            for pid in [outside.cloudflare, outside.witness].into_iter().filter(|pid| is_ours(*pid)) {
                signal(pid, "TERM")?;
            }
        }
        Ok(())
    }
}

/// A process id may have been given to another program since.
fn is_ours(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        line.split(|byte| *byte == 0).next().is_some_and(|first| first.ends_with(b"diptych"))
    })
}

fn spawn(state: &State, name: &str, words: &[String]) -> Result<u32> {
    let log = |name: &Path| OpenOptions::new().create(true).append(true).open(name);
    let path = state.folder.join(format!("{name}.log"));
    let out = log(&path).with_context(|| format!("{} can't be written", path.display()))?;
    let child = Command::new(program()?)
        .args(words)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        // A signal to the terminal's group must not reach it: it outlives this program.
        .process_group(0)
        .spawn()
        .with_context(|| format!("{name} can't be started"))?;
    Ok(child.id())
}
