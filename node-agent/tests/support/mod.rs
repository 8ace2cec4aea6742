//! Agents in this process, on loopback and temporary folders.
#![expect(dead_code, reason = "each test binary uses a part of it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diptych_core::erasure::Encoder;
use diptych_core::ids::{
    ClusterId, DeviceId, Epoch, ExtentId, Generation, Hlc, InstanceId, KeeperNumber, Row, Stamp,
};
use diptych_core::layout::StripeBuilder;
use diptych_core::records::Holds;
use diptych_node_agent::{AgentOptions, DeviceOption, RunningAgent, start};
use diptych_store::OpenOptions;
use diptych_wire::agent::{ExtentFacts, ReadItem, RowAt, RowHead};
use diptych_wire::authority::{Authority, Request};
use diptych_wire::client::{AgentClient, ClientOptions, Endpoint};
use diptych_wire::identity::{Identity, Role};
use diptych_wire::tls::Credentials;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const CLUSTER: ClusterId = ClusterId([9; 16]);
pub(crate) const MAP: Generation = Generation(1);

pub(crate) fn stamp(epoch: u64, keeper: u64) -> Stamp {
    Stamp { epoch: Epoch(epoch), keeper: KeeperNumber(keeper) }
}

pub(crate) fn credentials(authority: &Authority, site: &str, role: Role, name: &str) -> Credentials {
    let identity =
        Identity { cluster: CLUSTER, site: site.parse().expect("a name"), role, name: name.to_owned() };
    let issued = authority.issue(&Request::new(identity, Duration::from_hours(1))).expect("a certificate");
    Credentials::new(&issued).expect("credentials")
}

/// A site, `east` unless it is said otherwise, whose nodes `n0`, `n1`, … have two devices each: node i has devices 2 i and
/// 2 i + 1.
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) authority: Arc<Authority>,
    pub(crate) folder: TempDir,
    pub(crate) agents: Vec<Node>,
    store: OpenOptions,
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    running: Option<RunningAgent>,
}

impl Site {
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::start_on(nodes, store_options()).await
    }

    /// On devices that are opened so.
    pub(crate) async fn start_on(nodes: usize, store: OpenOptions) -> Self {
        let authority = Arc::new(Authority::create(CLUSTER).expect("an authority"));
        Self::start_in("east", authority, nodes, store).await
    }

    /// Nodes in neither site, of the same cluster.
    pub(crate) async fn start_outside(&self, nodes: usize) -> Self {
        Self::start_in("outside", Arc::clone(&self.authority), nodes, store_options()).await
    }

    async fn start_in(
        name: &'static str,
        authority: Arc<Authority>,
        nodes: usize,
        store: OpenOptions,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut site = Self { name, authority, folder, agents: Vec::new(), store };
        for number in 0..nodes {
            let node = site.launch(number).await;
            site.agents.push(node);
        }
        site
    }

    pub(crate) fn device_path(&self, device: u32) -> PathBuf {
        self.folder.path().join(format!("d{device}"))
    }

    pub(crate) fn socket(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("n{node}.sock"))
    }

    pub(crate) fn options(&self, number: usize) -> AgentOptions {
        let name = format!("n{number}");
        let device = |device: u32| {
            let path = self.device_path(device);
            std::fs::create_dir_all(&path).expect("a folder for the device");
            DeviceOption { path, device: Some(DeviceId(device)), capacity: self.store.capacity }
        };
        let devices = vec![device(2 * number as u32), device(2 * number as u32 + 1)];
        let mut options =
            AgentOptions::new(credentials(&self.authority, self.name, Role::Agent, &name), devices);
        options.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        options.socket = Some(self.socket(number));
        options.look = Duration::from_millis(50);
        options.store = self.store.clone();
        options
    }

    async fn launch(&self, number: usize) -> Node {
        let stop = CancellationToken::new();
        let running = start(self.options(number), stop.clone()).await.expect("the agent starts");
        let address = running.address().expect("it listens");
        Node { name: format!("n{number}"), address, stop, running: Some(running) }
    }

    pub(crate) async fn stop(&mut self, number: usize) {
        self.agents[number].stop.cancel();
        if let Some(running) = self.agents[number].running.take() {
            running.stopped().await;
        }
    }

    pub(crate) async fn restart(&mut self, number: usize) {
        self.stop(number).await;
        self.agents[number] = self.launch(number).await;
    }

    pub(crate) fn client_as(&self, number: usize, who: &Credentials) -> AgentClient {
        let node = &self.agents[number];
        let endpoint = Endpoint {
            site: self.name.parse().expect("a name"),
            node: node.name.parse().expect("a name"),
            address: node.address.to_string(),
            socket: None,
        };
        AgentClient::new(endpoint, who, ClientOptions::default()).expect("a client")
    }

    pub(crate) fn operator(&self, number: usize) -> AgentClient {
        self.client_as(number, &credentials(&self.authority, "east", Role::Operator, "op"))
    }

    pub(crate) fn gateway(&self, number: usize) -> AgentClient {
        self.client_as(number, &credentials(&self.authority, "east", Role::Gateway, "gw"))
    }

    /// All agents hear epoch 1 of keeper 1.
    pub(crate) async fn raise_all(&self) {
        for number in 0..self.agents.len() {
            self.operator(number).raise(stamp(1, 1)).await.expect("the epoch is heard");
        }
    }
}

/// How devices are opened where a test does not say.
fn store_options() -> OpenOptions {
    OpenOptions { capacity: Some(4 << 30), zero_ahead_bytes: 1 << 20, ..OpenOptions::default() }
}

/// Bytes that differ everywhere, and by seed.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut bytes = vec![0; len];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn extent_id(number: u8) -> ExtentId {
    ExtentId([number; 16])
}

pub(crate) fn facts(extent: ExtentId, needed: u8, bytes: &[u8]) -> ExtentFacts {
    ExtentFacts {
        extent,
        needed,
        holds: Holds::Data,
        length: bytes.len() as u32,
        hash: *blake3::hash(bytes).as_bytes(),
        birth_epoch: Epoch(1),
        birth_hlc: Hlc(1 << 20),
    }
}

/// The rows `0..rows` of an extent.
pub(crate) fn rows_of(needed: u8, bytes: &[u8], rows: u8) -> Vec<Vec<u8>> {
    let encoder = Encoder::new(needed, (0..rows).map(Row)).expect("an encoder");
    let mut made = vec![Vec::new(); usize::from(rows)];
    let mut builder = StripeBuilder::new(needed);
    let mut put = |stripe: &diptych_core::layout::Stripe| {
        for (row, shard) in made.iter_mut().zip(encoder.encode(stripe)) {
            row.extend_from_slice(&shard);
        }
    };
    let mut input = bytes;
    while !input.is_empty() {
        if let Some(stripe) = builder.push(&mut input) {
            put(&stripe);
        }
    }
    if let Some(stripe) = builder.finish() {
        put(&stripe);
    }
    made
}

pub(crate) fn head(facts: &ExtentFacts, device: u32, row: u8, len: usize) -> RowHead {
    facts.head(DeviceId(device), Row(row), len as u32)
}

/// Places one row; its instance.
pub(crate) async fn place(
    client: &AgentClient,
    facts: &ExtentFacts,
    device: u32,
    row: u8,
    bytes: &[u8],
) -> InstanceId {
    let rows = vec![(head(facts, device, row, bytes.len()), Bytes::copy_from_slice(bytes))];
    let mut placed = client.place_rows(stamp(1, 1), MAP, rows).await.expect("an answer");
    placed.pop().expect("one answer").expect("it is placed")
}

pub(crate) fn at(extent: ExtentId, device: u32, row: u8, instance: Option<InstanceId>) -> RowAt {
    RowAt { device: DeviceId(device), extent, row: Row(row), instance }
}

pub(crate) fn whole(at: RowAt, len: usize) -> ReadItem {
    ReadItem { at, offset: 0, len: len as u32 }
}

/// Waits for a condition, ten seconds at most.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "in ten seconds not seen: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Most memory that this process has used so far, in bytes.
pub(crate) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the process's status");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
    kib * 1024
}

/// Segment files of a device.
pub(crate) fn segments(path: &Path) -> Vec<PathBuf> {
    diptych_store::inspect::device(path).expect("a device").segments
}
