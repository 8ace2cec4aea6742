//! A site `east` of three agents with two devices each, its catalog, and a door of `west` that gives one extent.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, RedbCatalog, RedbOptions, Write};
use diptych_core::ids::{
    DeviceId, Epoch, ExtentId, Generation, Hlc, InstanceId, KeeperNumber, Row, SiteName,
};
use diptych_core::keys::{self, Key};
use diptych_core::placement::{MapDevice, MapDeviceState, MapNode, NodeState, PlacementMap};
use diptych_core::records::{Extent, ExtentKind, ExtentState, Gate, PlacedRow, Placement, Position, Record};
use diptych_site::agents::{Agents, NodeEndpoint};
use diptych_site::context::{LoopOptions, SiteContext, Standing};
use diptych_wire::agent::Door;
use diptych_wire::http::{full, serve};
use diptych_wire::identity::{Expected, Role};
use http::{Response, StatusCode};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::{CLUSTER, Site, at, content, credentials, extent_id, facts, place, rows_of, whole};

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
    _standing: watch::Sender<Standing>,
    _map: watch::Sender<Arc<PlacementMap>>,
}

/// An extent that lies in `east`, row by row on devices 0 to 5.
pub(crate) struct Stored {
    pub(crate) extent: ExtentId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) placement: Placement,
}

impl East {
    pub(crate) async fn start(peer: Option<SiteName>, options: LoopOptions) -> Self {
        let site = Site::start(3).await;
        site.raise_all().await;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("catalog.redb");
        let catalog = RedbCatalog::open(&path, east(), &RedbOptions::default()).expect("a catalog");
        let agents = Agents::new(east(), credentials(&site.authority, "east", Role::Operator, "op"));
        for node in &site.agents {
            let name = node.name.parse().expect("a name");
            agents
                .declare(&NodeEndpoint { name, address: node.address.to_string(), socket: None })
                .expect("a client");
        }
        let standing = Standing { active: true, epoch: EPOCH, keeper: KeeperNumber(1) };
        let (standing_sender, standing) = watch::channel(standing);
        let (map_sender, map) = watch::channel(Arc::new(map(&site)));
        let context = SiteContext {
            site: east(),
            peer,
            doors: Vec::new(),
            catalog: Arc::new(catalog),
            agents: Arc::new(agents),
            standing,
            lease: watch::Sender::new(diptych_site::keeper::KeeperState::at_start()).subscribe(),
            map,
            name_trouble: watch::Sender::default(),
            options,
        };
        let east = Self { site, context, _folder: folder, _standing: standing_sender, _map: map_sender };
        east.put(vec![(keys::site_gate(&east.context.site), Gate::Open(EPOCH).encode())]).await;
        east
    }

    pub(crate) async fn put(&self, values: Vec<(Key, Vec<u8>)>) {
        let writes = values.into_iter().map(|(key, value)| Write::Put(key, Bytes::from(value))).collect();
        let committed = self.context.catalog.commit(Batch::one(None, Change::blind(writes))).await;
        assert!(committed.expect("it commits").all_applied());
    }

    pub(crate) async fn get(&self, key: &Key) -> Option<Bytes> {
        self.context.catalog.view().await.expect("a view").get(key).expect("it reads")
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
        let record = Extent {
            state: ExtentState::Live,
            kind: ExtentKind::Data,
            length: length as u32,
            payload: length as u32,
            hash: facts.hash,
            needed: NEEDED,
            rows: vec![(east(), Row(0), ROWS), (west(), Row(ROWS), ROWS)],
            epoch: EPOCH,
            hlc: Hlc(u64::from(number)),
        };
        let placement = Placement { rows, verified_day: 0 };
        self.put(vec![
            (keys::extent(extent), record.encode()),
            (keys::placement(&east(), extent), placement.encode()),
        ])
        .await;
        Stored { extent, bytes, placement }
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
        let device = placed.device.0;
        let client = self.site.operator(device as usize / 2);
        let at = at(extent, device, placed.row.0, Some(placed.instance));
        let length = client.describe(at).await.ok()?.head.len as usize;
        client.read(whole(at, length)).await.ok()
    }

    /// Records on all devices.
    pub(crate) async fn records(&self) -> usize {
        let mut records = 0;
        for device in 0..6u32 {
            let client = self.site.operator(device as usize / 2);
            records += client.inventory(DeviceId(device), None, 1_000).await.expect("a page").records.len();
        }
        records
    }

    /// Opens a door of `west` that gives these bytes for whatever is asked.
    pub(crate) async fn open_door(&mut self, bytes: &[u8]) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let who = credentials(&self.site.authority, "west", Role::Gateway, "gw");
        let bytes = Bytes::copy_from_slice(bytes);
        let service = tower::service_fn(move |_: http::Request<hyper::body::Incoming>| {
            let answer = Response::builder().status(StatusCode::OK).body(full(bytes.clone()));
            async move { Ok::<_, Infallible>(answer.expect("an answer")) }
        });
        tokio::spawn(async move { serve(listener, &who, Expected::any_of(CLUSTER), service).await });
        self.context.doors = vec![Door { address, site: west() }];
    }
}

fn map(site: &Site) -> PlacementMap {
    let device = |id: u32| MapDevice { id: DeviceId(id), weight: 1, state: MapDeviceState::Live };
    let node = |(number, node): (usize, &crate::support::Node)| MapNode {
        name: node.name.parse().expect("a name"),
        address: node.address.to_string(),
        socket: None,
        state: NodeState::Live,
        devices: vec![device(2 * number as u32), device(2 * number as u32 + 1)],
    };
    PlacementMap { generation: Generation(1), nodes: site.agents.iter().enumerate().map(node).collect() }
}

/// Nothing is waited for.
pub(crate) fn at_once() -> LoopOptions {
    LoopOptions { free_after: Duration::ZERO, orphan_hold: Duration::ZERO, ..LoopOptions::default() }
}
