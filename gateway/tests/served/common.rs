//! A whole site in one process: a catalog on disk, three node-agents with two devices each, a gateway.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses some of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, RedbCatalog, RedbOptions, Write};
use diptych_core::access::seal_secret;
use diptych_core::cipher::SecretKey;
use diptych_core::ids::{ClusterId, DeviceId, ExtentId, Generation, KeeperNumber, NodeName, Row, SiteName};
use diptych_core::keyring::{Keyring, NewRingKey};
use diptych_core::keys::{self, Key};
use diptych_core::placement::{MapDevice, MapDeviceState, MapNode, NodeState, PlacementMap};
use diptych_core::planner::Survive;
use diptych_core::records::{CodingPlan, Gate, Placement, Record};
use diptych_core::session::User;
use diptych_gateway::agents::AgentDial;
use diptych_gateway::authority::{Authority as _, SingleSite};
use diptych_gateway::cipher::AwsLcAesGcm;
use diptych_gateway::rest::{RestToken, Reviewer, Reviews};
use diptych_gateway::{Dependencies, Gateway, GatewayOptions, Limits, PeerConfirmation, PeerRows};
use diptych_node_agent::{AgentOptions, DeviceOption, RunningAgent};
use diptych_wire::agent::{ReadItem, RowAt};
use diptych_wire::authority::{Authority, Request};
use diptych_wire::client::{AgentClient, ClientOptions, Endpoint};
use diptych_wire::identity::{Identity, Role};
use diptych_wire::peer::RowSpan;
use diptych_wire::tls::Credentials;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "a-token-of-the-tests";
pub const ACCESS_KEY: &str = "TESTKEY";
pub const SECRET_KEY: &str = "test-secret-of-some-length";
const NODES: u32 = 3;
const DEVICES: u32 = 2;

pub struct TestNode {
    pub name: NodeName,
    pub client: AgentClient,
    options: AgentOptions,
    running: Option<(RunningAgent, CancellationToken)>,
}

/// The rows of another site.
#[derive(Default)]
pub struct OtherSite {
    pub rows: Mutex<BTreeMap<(ExtentId, Row), Bytes>>,
}

#[async_trait]
impl PeerRows for OtherSite {
    async fn read(
        &self,
        extent: ExtentId,
        spans: Vec<RowSpan>,
    ) -> Result<Vec<Result<Bytes, String>>, String> {
        let rows = self.rows.lock().expect("no panic");
        let one = |span: RowSpan| {
            let row = rows.get(&(extent, span.row)).ok_or_else(|| "it is not there".to_owned())?;
            Ok(row.slice(span.offset as usize..(span.offset + span.len) as usize))
        };
        Ok(spans.into_iter().map(one).collect())
    }
}

/// Others whose word counts.
#[derive(Default)]
pub struct Others {
    /// Writes wait for it.
    pub peer: Option<Arc<dyn PeerConfirmation>>,
    /// Tokens that the site does not know are reviewed by it.
    pub reviewer: Option<Arc<dyn Reviewer>>,
    /// Nodes beyond three.
    pub more_nodes: u32,
}

pub struct TestSite {
    /// Rows that are not here.
    pub other: Arc<OtherSite>,
    pub site: SiteName,
    pub catalog: Arc<RedbCatalog>,
    pub gateway: Option<Gateway>,
    pub nodes: Vec<TestNode>,
    pub http: reqwest::Client,
    stamp: diptych_core::ids::Stamp,
    folder: TempDir,
    authority: Authority,
    dial: AgentDial,
}

fn credentials(
    authority: &Authority,
    cluster: ClusterId,
    site: &SiteName,
    role: Role,
    name: &str,
) -> Credentials {
    let identity = Identity { cluster, site: site.clone(), role, name: name.to_owned() };
    let issued = authority.issue(&Request::new(identity, Duration::from_hours(1))).expect("a certificate");
    Credentials::new(&issued).expect("credentials")
}

fn node_name(number: u32) -> NodeName {
    format!("n{number}").parse().expect("a name")
}

impl TestSite {
    pub async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    pub async fn start_with(limits: Limits) -> Self {
        Self::start_on(limits, Arc::new(SingleSite { keeper: KeeperNumber(1) }), |catalog| catalog).await
    }

    /// With another authority, or with something between gateway and catalog.
    pub async fn start_on(
        limits: Limits,
        authority_given: Arc<dyn diptych_gateway::authority::Authority>,
        wrap: impl FnOnce(Arc<dyn Catalog>) -> Arc<dyn Catalog>,
    ) -> Self {
        Self::start_beside(limits, authority_given, Others::default(), wrap).await
    }

    /// With others whose word counts, too.
    pub async fn start_beside(
        limits: Limits,
        authority_given: Arc<dyn diptych_gateway::authority::Authority>,
        others: Others,
        wrap: impl FnOnce(Arc<dyn Catalog>) -> Arc<dyn Catalog>,
    ) -> Self {
        // Whichever test comes first sets it for all.
        diptych_wire::tls::install_provider();
        let folder = tempfile::tempdir().expect("a folder");
        let cluster = ClusterId([7; 16]);
        let site: SiteName = "east".parse().expect("a name");
        let authority = Authority::create(cluster).expect("an authority");
        let dial = AgentDial {
            credentials: credentials(&authority, cluster, &site, Role::Gateway, "g0"),
            options: ClientOptions { window: 2, ..ClientOptions::default() },
        };
        let stamp = diptych_core::ids::Stamp { epoch: SingleSite::EPOCH, keeper: KeeperNumber(1) };
        let mut nodes = Vec::new();
        for number in 0..NODES + others.more_nodes {
            nodes.push(
                TestNode::start(&authority, cluster, &site, number, folder.path().to_path_buf(), &dial).await,
            );
        }
        for node in &nodes {
            node.client.raise(stamp).await.expect("the agent hears its epoch");
        }
        let new = NewRingKey { key: SecretKey::new([3; 32]), nonce: [4; 12], made_ms: 1 };
        let keyring = Keyring::create(cluster, new);
        let path = folder.path().join("catalog.redb");
        let catalog = RedbCatalog::open(&path, site.clone(), &RedbOptions::default()).expect("a catalog");
        let catalog = Arc::new(catalog);
        seed(&catalog, &site, &map(&nodes), &keyring).await;
        let other = Arc::new(OtherSite::default());
        let given = Dependencies {
            site: site.clone(),
            catalog: wrap(catalog.clone()),
            authority: authority_given,
            keyring,
            cipher: Arc::new(AwsLcAesGcm),
            dial: dial.clone(),
            survive: Survive { sites: 0, nodes: 1, devices: 1 },
            peer: others.peer,
            peer_rows: Some(Arc::clone(&other) as Arc<dyn PeerRows>),
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let token = RestToken { token: TOKEN.to_owned().into(), namespace: "default".to_owned() };
        let options = GatewayOptions {
            s3: any,
            rest: any,
            tls: None,
            tokens: vec![token],
            reviews: others.reviewer.map(|reviewer| Reviews::new(reviewer, "default".to_owned())),
            limits,
            forwarder: None,
            more: None,
            open: None,
        };
        let gateway = Gateway::start(options, given).await.expect("a gateway");
        let http = reqwest::Client::new();
        Self { other, site, catalog, gateway: Some(gateway), nodes, http, stamp, folder, authority, dial }
    }

    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("it runs")
    }

    pub fn rest(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway().rest())
    }

    pub fn file_url(&self, id: &str) -> String {
        let encoded = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
        self.rest(&format!("/api/v1/files/{encoded}"))
    }

    pub async fn post(&self, id: &str, bytes: impl Into<Bytes>) -> reqwest::Response {
        let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
        let url = self.rest(&format!("/api/v1/files?id={id}"));
        let request = self.http.post(url).bearer_auth(TOKEN).body(bytes.into());
        request.send().await.expect("an answer")
    }

    pub async fn get(&self, id: &str) -> reqwest::Response {
        self.http.get(self.file_url(id)).bearer_auth(TOKEN).send().await.expect("an answer")
    }

    pub async fn range(&self, id: &str, first: usize, last: usize) -> reqwest::Response {
        let request = self.http.get(self.file_url(id)).bearer_auth(TOKEN);
        request.header("range", format!("bytes={first}-{last}")).send().await.expect("an answer")
    }

    /// All placements of the site.
    pub async fn placements(&self) -> Vec<(ExtentId, Placement)> {
        let view = self.catalog.view().await.expect("a view");
        let page = view.scan(&keys::placements(&self.site), 10_000).expect("it reads");
        page.entries
            .iter()
            .map(|(key, raw)| {
                (keys::extent_of(key).expect("an extent"), Placement::decode(raw).expect("a placement"))
            })
            .collect()
    }

    /// Number of keys that begin with `prefix`.
    pub async fn count(&self, prefix: &[u8]) -> usize {
        let view = self.catalog.view().await.expect("a view");
        view.scan(&keys::prefix_range(prefix), 100_000).expect("it reads").entries.len()
    }

    /// Deletes rows of an extent behind the catalog's back.
    pub async fn lose_rows(&self, extent: ExtentId, placement: &Placement, rows: &[u8]) {
        for placed in placement.rows.iter().filter(|placed| rows.contains(&placed.row.0)) {
            let node = &self.nodes[(placed.device.0 / DEVICES) as usize];
            let at =
                RowAt { device: placed.device, extent, row: placed.row, instance: Some(placed.instance) };
            let deleted = node.client.delete(self.stamp, vec![at]).await.expect("an answer");
            assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        }
        self.gateway().context().return_loans();
    }

    /// The folder of a device.
    pub fn device_path(&self, device: DeviceId) -> PathBuf {
        let mut devices = self.node_of(device).options.devices.iter();
        devices.find(|option| option.device == Some(device)).expect("it has one").path.clone()
    }

    /// The agent that has a device.
    pub fn node_of(&self, device: DeviceId) -> &TestNode {
        &self.nodes[(device.0 / DEVICES) as usize]
    }

    pub fn stamp(&self) -> diptych_core::ids::Stamp {
        self.stamp
    }

    pub async fn put_keys(&self, writes: Vec<(Key, Bytes)>) {
        let writes = writes.into_iter().map(|(key, value)| Write::Put(key, value)).collect();
        let committed =
            self.catalog.commit(Batch::one(None, Change::blind(writes))).await.expect("it commits");
        assert!(committed.all_applied());
    }

    /// Deletes every key that begins with `prefix`.
    pub async fn delete_all(&self, prefix: &[u8]) {
        let view = self.catalog.view().await.expect("a view");
        let page = view.scan(&keys::prefix_range(prefix), 100).expect("it reads");
        let writes = page.entries.into_iter().map(|(key, _)| Write::Delete(key)).collect();
        let committed =
            self.catalog.commit(Batch::one(None, Change::blind(writes))).await.expect("it commits");
        assert!(committed.all_applied());
    }

    /// From here on extents have six rows in a second site as well.
    pub async fn plan_for_two_sites(&self) {
        let west = "west".parse().expect("a name");
        let plan = CodingPlan { needed: 4, rows: vec![(self.site.clone(), 6), (west, 6)] };
        self.put_keys(vec![(keys::plan(2), plan.encode().into())]).await;
        self.gateway().context().refresh_now().await.expect("it reads");
    }

    /// A node in neither site, of which the gateway knows.
    pub async fn start_outside(&self) -> TestNode {
        let folder = self.folder.path().join("outside");
        std::fs::create_dir_all(&folder).expect("a folder");
        let outside = SiteName::outside();
        let node =
            TestNode::start(&self.authority, ClusterId([7; 16]), &outside, 0, folder, &self.dial).await;
        node.client.raise(self.stamp).await.expect("the agent hears the epoch");
        let map = map(std::slice::from_ref(&node));
        self.put_keys(vec![(keys::map(&outside), map.encode().into())]).await;
        self.gateway().context().refresh_now().await.expect("it reads");
        node
    }

    /// All bytes of rows.
    pub async fn rows(&self, extent: ExtentId, placement: &Placement, rows: &[u8]) -> Vec<Bytes> {
        let mut read = Vec::new();
        for placed in placement.rows.iter().filter(|placed| rows.contains(&placed.row.0)) {
            let at =
                RowAt { device: placed.device, extent, row: placed.row, instance: Some(placed.instance) };
            let client = &self.node_of(placed.device).client;
            let len = client.describe(at).await.expect("it is there").head.len;
            read.push(client.read(ReadItem { at, offset: 0, len }).await.expect("it reads"));
        }
        read
    }

    pub async fn stop(mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().await;
        }
        for node in &mut self.nodes {
            node.stop().await;
        }
    }
}

impl TestNode {
    async fn start(
        authority: &Authority,
        cluster: ClusterId,
        site: &SiteName,
        number: u32,
        folder: PathBuf,
        dial: &AgentDial,
    ) -> Self {
        let name = node_name(number);
        let own = credentials(authority, cluster, site, Role::Agent, name.as_str());
        let device = |device: u32| {
            let path = folder.join(format!("{name}-d{device}"));
            std::fs::create_dir_all(&path).expect("a folder for the device");
            DeviceOption { path, device: Some(DeviceId(number * DEVICES + device)), capacity: Some(4 << 30) }
        };
        let socket = folder.join(format!("{name}.sock"));
        let mut options = AgentOptions::new(own, (0..DEVICES).map(device).collect());
        options.socket = Some(socket.clone());
        let endpoint = Endpoint {
            site: site.clone(),
            node: name.clone(),
            address: "127.0.0.1:9".to_owned(),
            socket: Some(socket),
        };
        let operator = credentials(authority, cluster, site, Role::Operator, "o0");
        let client = AgentClient::new(endpoint, &operator, dial.options.clone()).expect("a client");
        let mut node = Self { name, client, options, running: None };
        node.run().await;
        node
    }

    pub async fn run(&mut self) {
        let stop = CancellationToken::new();
        let running = diptych_node_agent::start(self.options.clone(), stop.clone()).await.expect("an agent");
        self.running = Some((running, stop));
    }

    pub async fn stop(&mut self) {
        if let Some((running, stop)) = self.running.take() {
            stop.cancel();
            running.stopped().await;
        }
    }
}

pub fn map(nodes: &[TestNode]) -> PlacementMap {
    let node = |node: &TestNode| MapNode {
        name: node.name.clone(),
        address: node.client.endpoint().address.clone(),
        socket: node.client.endpoint().socket.as_ref().map(|path| path.display().to_string()),
        state: NodeState::Live,
        domain: None,
        weight: None,
        distance: None,
        devices: node
            .options
            .devices
            .iter()
            .map(|device| MapDevice {
                id: device.device.expect("numbered"),
                weight: 1,
                state: MapDeviceState::Live,
            })
            .collect(),
    };
    PlacementMap { generation: Generation(1), nodes: nodes.iter().map(node).collect() }
}

async fn seed(catalog: &RedbCatalog, site: &SiteName, map: &PlacementMap, keyring: &Keyring) {
    let plan = CodingPlan { needed: 4, rows: vec![(site.clone(), 6)] };
    let access = seal_secret(keyring, ACCESS_KEY, SECRET_KEY, &[5; 12], "default", false).expect("sealed");
    let reader = seal_secret(keyring, "READER", SECRET_KEY, &[6; 12], "default", true).expect("sealed");
    let epoch = SingleSite { keeper: KeeperNumber(1) }.epoch();
    let writes = vec![
        Write::Put(keys::site_gate(site), Gate::Open(epoch).encode().into()),
        Write::Put(keys::map(site), map.encode().into()),
        Write::Put(keys::plan(1), plan.encode().into()),
        Write::Put(keys::access_key(ACCESS_KEY), access.encode().into()),
        Write::Put(keys::access_key("READER"), reader.encode().into()),
    ];
    let committed = catalog.commit(Batch::one(None, Change::blind(writes))).await.expect("it commits");
    assert!(committed.all_applied());
}

/// Bytes that neither compress nor repeat, the same for one seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A user of a Kubernetes cluster.
pub fn user(name: &str) -> User {
    User { name: name.to_owned(), uid: None, groups: vec!["people".to_owned()], extra: BTreeMap::new() }
}

/// Waits until something holds, for at most ten seconds.
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within ten seconds");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
