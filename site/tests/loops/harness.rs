//! A site `east` of three agents with two devices each, its catalog, and a door of `west` that gives one extent.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, RedbCatalog, RedbOptions, Write};
use diptych_core::cipher::SecretKey;
use diptych_core::ids::{DeviceId, Epoch, ExtentId, Generation, InstanceId, KeeperNumber, Row, SiteName};
use diptych_core::journal::Progress;
use diptych_core::keyring::{ClusterKey, ClusterKeys, Keyring, NewRingKey};
use diptych_core::keys::{self, Key};
use diptych_core::placement::{MapDevice, MapDeviceState, MapNode, NodeShare, NodeState, PlacementMap};
use diptych_core::planner::Survive;
use diptych_core::records::{
    CodingPlan, Cursor, Extent, ExtentState, Gate, Holds, PlacedRow, Placement, Position, Record,
};
use diptych_site::agents::{Agents, NodeEndpoint};
use diptych_site::config::{Acknowledge, OutsideConfig, Policy};
use diptych_site::context::{LoopOptions, SiteContext, Standing};
use diptych_site::drill::CutSwitch;
use diptych_site::journal;
use diptych_site::nodes::Rotten;
use diptych_site::notify::Notifier;
use diptych_site::peer::cross;
use diptych_site::peer::reached::Reached;
use diptych_site::place::Outside;
use diptych_site::status::JournalStatus;
use diptych_site::survey::{Scope, Survey, survey};
use diptych_wire::agent::{Door, ExtentFacts, SealedKeyring};
use diptych_wire::http::{full, serve};
use diptych_wire::identity::{Expected, Role};
use http::{Response, StatusCode};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::{
    CLUSTER, Site, at, content, credentials, extent_id, facts, place, rows_of, stamp, until, whole,
};

pub(crate) const EPOCH: Epoch = Epoch(1);
/// k of all extents here; each site has six rows.
pub(crate) const NEEDED: u8 = 4;
pub(crate) const ROWS: u8 = 6;

pub(crate) fn east() -> SiteName {
    "east".parse().expect("a name")
}

pub(crate) fn west() -> SiteName {
    "west".parse().expect("a name")
}

pub(crate) struct East {
    pub(crate) site: Site,
    pub(crate) context: SiteContext,
    _folder: TempDir,
    standing: watch::Sender<Standing>,
    map: watch::Sender<Arc<PlacementMap>>,
    outside_map: watch::Sender<Arc<PlacementMap>>,
}

/// An extent that lies in `east`, row by row on devices 0 to 5.
pub(crate) struct Stored {
    pub(crate) extent: ExtentId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) placement: Placement,
}

impl East {
    pub(crate) async fn start(peer: Option<SiteName>, options: LoopOptions) -> Self {
        Self::start_on(Site::start(3).await, peer, options).await
    }

    pub(crate) async fn start_on(site: Site, peer: Option<SiteName>, options: LoopOptions) -> Self {
        site.raise_all().await;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("catalog.redb");
        let catalog = RedbCatalog::open(&path, east(), &RedbOptions::default()).expect("a catalog");
        let own = credentials(&site.authority, "east", Role::Operator, "op");
        let agents = Agents::new(east(), own.clone());
        for node in &site.agents {
            agents.declare(&endpoint(node)).expect("a client");
        }
        let standing = Standing { active: true, epoch: EPOCH, keeper: KeeperNumber(1) };
        let (standing_sender, standing) = watch::channel(standing);
        let (map_sender, map) = watch::channel(Arc::new(map(&site)));
        let outside_map: watch::Sender<Arc<PlacementMap>> = watch::Sender::default();
        let outside = Outside {
            config: OutsideConfig::default(),
            agents: Arc::new(Agents::new(SiteName::outside(), own)),
            map: outside_map.subscribe(),
        };
        let everything = Position { revision: u64::MAX, ..catalog.position().await.expect("a position") };
        let context = SiteContext {
            site: east(),
            peer,
            preferred: east(),
            doors: Vec::new(),
            catalog: Arc::new(catalog),
            agents: Arc::new(agents),
            standing,
            lease: watch::Sender::new(diptych_site::keeper::KeeperState::at_start()).subscribe(),
            witness: None,
            map,
            outside,
            followed: watch::Sender::default(),
            name: watch::Sender::default(),
            edge: watch::Sender::default(),
            edge_hint: Arc::default(),
            failback: watch::Sender::default(),
            policy: Policy::default(),
            acknowledge: Acknowledge::OneSite,
            cut: CutSwitch::default(),
            notifier: Notifier::default(),
            generation: 0,
            options,
            survive: Survive { sites: 0, nodes: 1, devices: 1 },
            cluster_keys: Arc::new(ClusterKeys::from(ClusterKey::new([9; 32])).into()),
            journaled: watch::Sender::new(Some(everything)),
        };
        let east =
            Self { site, context, _folder: folder, standing: standing_sender, map: map_sender, outside_map };
        east.put(vec![(keys::site_gate(&east.context.site), Gate::Open(EPOCH).encode()), accounted(EPOCH)])
            .await;
        east
    }

    /// Two nodes in neither site, for so many rows of each extent.
    pub(crate) async fn start_outside(&mut self, rows: u8) -> Site {
        let outside = self.site.start_outside(2).await;
        outside.raise_all().await;
        for node in &outside.agents {
            self.context.outside.agents.declare(&endpoint(node)).expect("a client");
        }
        self.context.outside.config.rows = rows;
        self.outside_map.send_replace(Arc::new(map(&outside)));
        outside
    }

    /// A node is back, at another address.
    pub(crate) async fn restart(&mut self, number: usize) {
        self.site.restart(number).await;
        self.site.raise_all().await;
        let node = &self.site.agents[number];
        let name = node.name.parse().expect("a name");
        let endpoint = NodeEndpoint {
            name,
            address: node.address.to_string(),
            socket: None,
            share: NodeShare::default(),
        };
        self.context.agents.declare(&endpoint).expect("a client");
    }

    /// The nodes and devices are so from now on.
    pub(crate) fn set_map(&self, map: PlacementMap) {
        self.map.send_replace(Arc::new(map));
    }

    /// An outside node is given up, or emptied, from now on.
    pub(crate) fn outside_node_is(&self, number: usize, state: NodeState) {
        let mut map = PlacementMap::clone(&self.outside_map.borrow());
        map.nodes[number].state = state;
        self.outside_map.send_replace(Arc::new(map));
    }

    /// What a survey finds when these rows do not read.
    pub(crate) async fn survey(&self, unreadable: &[Rotten]) -> Survey {
        let view = self.context.catalog.view().await.expect("a view");
        let (map, outside) = (self.context.map(), self.context.outside.map_from_here());
        let scope = Scope {
            site: &self.context.site,
            peer: self.context.peer.as_ref(),
            map: &map,
            outside: &outside,
            outside_rows: self.context.active_epoch().map(|_| self.context.outside.config.rows),
            unreadable: &unreadable.iter().copied().collect(),
            survive: self.context.survive,
            looks_for_moves: true,
        };
        survey(view.as_ref(), &scope).expect("it reads")
    }

    pub(crate) async fn put(&self, values: Vec<(Key, Vec<u8>)>) {
        let writes = values.into_iter().map(|(key, value)| Write::Put(key, Bytes::from(value))).collect();
        let committed = self.context.catalog.commit(Batch::one(None, Change::blind(writes))).await;
        assert!(committed.expect("it commits").all_applied());
    }

    pub(crate) async fn get(&self, key: &Key) -> Option<Bytes> {
        self.context.catalog.view().await.expect("a view").get(key).expect("it reads")
    }

    /// What a site makes at its first start, as far as the journal needs it: keyring and plan of one site.
    pub(crate) async fn seed(&self) {
        let new = NewRingKey { key: SecretKey::new([3; 32]), nonce: [4; 12], made_ms: 1 };
        let keyring = Keyring::create(CLUSTER, new).seal(self.context.cluster_keys.keys().newest());
        let plan = CodingPlan { needed: NEEDED, rows: vec![(east(), ROWS)] };
        self.put(vec![(keys::keyring(), keyring.clone()), (keys::plan(0), plan.encode())]).await;
        let generation = Keyring::generation_of(&keyring).expect("a keyring");
        for number in 0..self.site.agents.len() {
            let keyring = SealedKeyring { generation, sealed: keyring.clone() };
            self.site.operator(number).put_keyring(stamp(1, 1), keyring).await.expect("it is kept");
        }
    }

    /// The site is active in another epoch from now on, and has lost nothing by it.
    pub(crate) async fn take_office(&mut self, epoch: Epoch) {
        self.put(vec![accounted(epoch)]).await;
        self.take_over(epoch).await;
    }

    /// The site is active in another epoch from now on.
    pub(crate) async fn take_over(&mut self, epoch: Epoch) {
        self.standing.send_replace(Standing { active: true, epoch, keeper: KeeperNumber(1) });
        self.put(vec![(keys::site_gate(&self.context.site), Gate::Open(epoch).encode())]).await;
    }

    /// The other site is active in another epoch from now on.
    pub(crate) async fn leave_office(&mut self, epoch: Epoch) {
        self.standing.send_replace(Standing { active: false, epoch, keeper: KeeperNumber(1) });
        self.put(vec![(keys::site_gate(&self.context.site), Gate::Closed.encode())]).await;
    }

    /// Waits until the journal has all that is committed.
    pub(crate) async fn all_journaled(&self) {
        let position = self.position().await;
        until("all is in the journal", || async {
            self.context.journaled.borrow().is_some_and(|journaled| journaled >= position)
        })
        .await;
    }

    /// Waits for the first checkpoint.
    pub(crate) async fn whole_checkpoint(&self) {
        until("a checkpoint", || async {
            progress(&self.context).await.is_some_and(|known| known.checkpoint.is_some())
        })
        .await;
    }

    pub(crate) async fn position(&self) -> Position {
        self.context.catalog.position().await.expect("a position")
    }

    /// Stores an extent; the rows `forged` have other bytes under right checksums.
    pub(crate) async fn store(&self, number: u8, length: usize, forged: &[u8]) -> Stored {
        let (extent, bytes) = (extent_id(number), content(u64::from(number), length));
        let facts = facts(extent, NEEDED, &bytes);
        let mut rows = Vec::new();
        for (row, mut row_bytes) in (0..ROWS).zip(rows_of(NEEDED, &bytes, ROWS)) {
            if forged.contains(&row) {
                row_bytes[0] ^= 1;
            }
            let client = self.site.gateway(usize::from(row) / 2);
            let instance = place(&client, &facts, u32::from(row), row, &row_bytes).await;
            rows.push(PlacedRow { row: Row(row), device: DeviceId(u32::from(row)), instance });
        }
        let placement = self.enter(&facts, rows).await;
        Stored { extent, bytes, placement }
    }

    /// Enters an extent of both sites into the catalog, with its rows here.
    pub(crate) async fn enter(&self, facts: &ExtentFacts, rows: Vec<PlacedRow>) -> Placement {
        let record = Extent {
            state: ExtentState::Live,
            holds: Holds::Data,
            length: facts.length,
            payload: facts.length,
            hash: facts.hash,
            needed: NEEDED,
            rows: vec![(east(), Row(0), ROWS), (west(), Row(ROWS), ROWS)],
            epoch: EPOCH,
            hlc: facts.birth_hlc,
        };
        let placement = Placement { rows, verified_day: 0 };
        self.put(vec![
            (keys::extent(facts.extent), record.encode()),
            (keys::placement(&east(), facts.extent), placement.encode()),
        ])
        .await;
        placement
    }

    /// The other site has confirmed all up to now.
    pub(crate) async fn confirm(&self) {
        let position = self.position().await;
        let cursor = Cursor { applied: position, confirmed: position };
        self.put(vec![(keys::cursor(&west()), cursor.encode())]).await;
    }

    /// As the other site tells it: it has its six rows of an extent.
    pub(crate) async fn whole_in_west(&self, extent: ExtentId) {
        let row = |index: u8| PlacedRow {
            row: Row(ROWS + index),
            device: DeviceId(u32::from(index)),
            instance: InstanceId([index; 8]),
        };
        let placement = Placement { rows: (0..ROWS).map(row).collect(), verified_day: 0 };
        let map = map(&self.site);
        self.put(vec![
            (keys::placement(&west(), extent), placement.encode()),
            (keys::map(&west()), map.encode()),
        ])
        .await;
    }

    /// Sees to what is wanted until this extent is here; its rows.
    pub(crate) async fn brought_here(self, extent: ExtentId) -> Vec<(Row, Bytes)> {
        let Self { site, context, _folder, .. } = self;
        let context = Arc::new(context);
        let reached = Arc::new(Reached::new(Arc::clone(&context)));
        let placement = async || {
            let view = context.catalog.view().await.expect("a view");
            view.get(&keys::placement(&context.site, extent)).expect("it reads")
        };
        tokio::select! {
            () = cross::run(Arc::clone(&context), reached) => unreachable!("it goes on for ever"),
            () = until("it is here", || async { placement().await.is_some() }) => {}
        }
        let raw = placement().await.expect("it is placed");
        let mut rows = Vec::new();
        for placed in Placement::decode(&raw).expect("it reads").rows {
            rows.extend(read_row(&site, extent, &placed).await.map(|bytes| (placed.row, bytes)));
        }
        rows
    }

    /// Whether the placement is whole and every row of it reads as it should.
    pub(crate) async fn is_right(&self, stored: &Stored) -> bool {
        let raw = self.get(&keys::placement(&east(), stored.extent)).await.expect("it is placed");
        let placement = Placement::decode(&raw).expect("it reads");
        let wanted = rows_of(NEEDED, &stored.bytes, ROWS);
        for placed in &placement.rows {
            if self.read(stored.extent, placed).await.as_deref()
                != Some(&wanted[usize::from(placed.row.0)][..])
            {
                return false;
            }
        }
        placement.rows.len() == usize::from(ROWS)
    }

    pub(crate) async fn read(&self, extent: ExtentId, placed: &PlacedRow) -> Option<Bytes> {
        read_row(&self.site, extent, placed).await
    }

    /// Records on all devices.
    pub(crate) async fn records(&self) -> usize {
        let mut records = 0;
        for device in 0..2 * self.site.agents.len() as u32 {
            let client = self.site.operator(device as usize / 2);
            records +=
                client.inventory(DeviceId(device), None, None, 1_000).await.expect("a page").records.len();
        }
        records
    }

    /// Opens a door of `west` that gives these bytes for whatever is asked; how often it was.
    pub(crate) async fn open_door(&mut self, bytes: &[u8]) -> Arc<AtomicUsize> {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let who = credentials(&self.site.authority, "west", Role::Gateway, "gw");
        let bytes = Bytes::copy_from_slice(bytes);
        let service = tower::service_fn(move |_: http::Request<hyper::body::Incoming>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let answer = Response::builder().status(StatusCode::OK).body(full(bytes.clone()));
            async move { Ok::<_, Infallible>(answer.expect("an answer")) }
        });
        tokio::spawn(async move { serve(listener, &who, Expected::any_of(CLUSTER), service).await });
        self.context.doors = vec![Door { address, site: west() }];
        asked
    }
}

async fn read_row(site: &Site, extent: ExtentId, placed: &PlacedRow) -> Option<Bytes> {
    let device = placed.device.0;
    let client = site.operator(device as usize / 2);
    let at = at(extent, device, placed.row.0, Some(placed.instance));
    let length = client.describe(at).await.ok()?.head.len as usize;
    client.read(whole(at, length)).await.ok()
}

fn accounted(epoch: Epoch) -> (Key, Vec<u8>) {
    (keys::site_accounted(&east()), epoch.0.to_be_bytes().to_vec())
}

fn map(site: &Site) -> PlacementMap {
    let device = |id: u32| MapDevice { id: DeviceId(id), weight: 1, state: MapDeviceState::Live };
    let node = |(number, node): (usize, &crate::support::Node)| MapNode {
        name: node.name.parse().expect("a name"),
        address: node.address.to_string(),
        socket: None,
        state: NodeState::Live,
        domain: None,
        weight: None,
        distance: None,
        devices: vec![device(2 * number as u32), device(2 * number as u32 + 1)],
    };
    PlacementMap { generation: Generation(1), nodes: site.agents.iter().enumerate().map(node).collect() }
}

/// How far the journal is, by the catalog.
pub(crate) async fn progress(context: &SiteContext) -> Option<Progress> {
    let raw = context.catalog.view().await.expect("a view").get(&keys::journal()).expect("it reads")?;
    Some(Progress::decode(&raw).expect("it reads"))
}

/// Journals that are live, by the catalog.
pub(crate) async fn journals_of(east: &East) -> Vec<ExtentId> {
    let view = east.context.catalog.view().await.expect("a view");
    let all = view.scan(&keys::extents(), 100_000).expect("it reads").entries;
    let is_journal = |raw: &Bytes| {
        let record = Extent::decode(raw).expect("it reads");
        record.state == ExtentState::Live && matches!(record.holds, Holds::Journal(_))
    };
    let journals = all.iter().filter(|(_, raw)| is_journal(raw));
    journals.filter_map(|(key, _)| keys::extent_of(key)).collect()
}

/// As a site's configuration declares it.
pub(crate) fn endpoint(node: &crate::support::Node) -> NodeEndpoint {
    NodeEndpoint {
        name: node.name.parse().expect("a name"),
        address: node.address.to_string(),
        socket: None,
        share: NodeShare::default(),
    }
}

/// An agent that was started again listens elsewhere.
pub(crate) fn declare(context: &SiteContext, site: &Site, number: usize) {
    context.agents.declare(&endpoint(&site.agents[number])).expect("a client");
}

/// The journal of a site, written while something else is done.
#[derive(Default)]
pub(crate) struct Journaling {
    told: watch::Sender<JournalStatus>,
}

impl Journaling {
    pub(crate) async fn beside<T>(&self, context: &SiteContext, work: impl Future<Output = T>) -> T {
        tokio::select! {
            () = journal::run(context, &self.told) => unreachable!("it goes on for ever"),
            done = work => done,
        }
    }

    pub(crate) fn status(&self) -> JournalStatus {
        self.told.borrow().clone()
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.status().trouble
    }
}

/// Nothing is waited for.
pub(crate) fn at_once() -> LoopOptions {
    LoopOptions {
        free_after: Duration::ZERO,
        orphan_hold: Duration::ZERO,
        tombstone_hold: Duration::ZERO,
        journal_every: Duration::ZERO,
        checkpoint_after: Duration::ZERO,
        ..LoopOptions::default()
    }
}
