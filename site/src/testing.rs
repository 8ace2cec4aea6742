//! A site without agents, for tests of what it does with its catalog.

use std::sync::Arc;

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, Change, RedbCatalog, RedbOptions, Write};
use diptych_core::access::seal_authority_key;
use diptych_core::cipher::SecretKey;
use diptych_core::ids::{ClusterId, DeviceId, Epoch, ExtentId, KeeperNumber, SiteName};
use diptych_core::keyring::{ClusterKey, ClusterKeys, Keyring, NewRingKey};
use diptych_core::keys;
use diptych_core::lease::Message;
use diptych_core::placement::{NodeShare, PlacementMap};
use diptych_core::planner::Survive;
use diptych_core::records::{Cluster, Gate, OutsideNode, Record};
use diptych_wire::authority::{Authority, Request};
use diptych_wire::http::serve;
use diptych_wire::identity::{Expected, Identity, Role};
use diptych_wire::peer::RowsWanted;
use diptych_wire::tls::Credentials;
use http::StatusCode;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::agents::Agents;
use crate::config::{Acknowledge, OutsideConfig, Policy};
use crate::context::{LoopOptions, SiteContext, Standing};
use crate::door::{DoorKeeper, DoorParts, ExtentSource, router};
use crate::drill::{CutSwitch, DrillOrders};
use crate::keys::KeyProvider;
use crate::notify::Notifier;
use crate::outside::OutsideJoins;
use crate::peer::PeerClient;
use crate::place::Outside;

pub(crate) const CLUSTER: ClusterId = ClusterId([1; 16]);

/// Of a keeper of site `west`.
pub(crate) fn credentials() -> Credentials {
    issued(&Authority::create(CLUSTER).expect("an authority"), "west", Role::Operator)
}

/// A certificate of this authority, with its key.
pub(crate) fn issued(authority: &Authority, site: &str, role: Role) -> Credentials {
    let site: SiteName = site.parse().expect("a name");
    let identity = Identity { cluster: CLUSTER, site, role, name: "any".to_owned() };
    let request = Request::new(identity, std::time::Duration::from_hours(1));
    Credentials::new(&authority.issue(&request).expect("a certificate")).expect("credentials")
}

/// Has nothing, and does whatever it is told.
struct Willing {
    serves: Option<Epoch>,
}

#[async_trait]
impl ExtentSource for Willing {
    async fn extent(&self, _: ExtentId, _: Option<&str>) -> Response {
        StatusCode::NOT_FOUND.into_response()
    }

    async fn rows(&self, _: RowsWanted) -> Result<Vec<Result<Vec<u8>, String>>, String> {
        Ok(Vec::new())
    }
}

impl DoorKeeper for Willing {
    fn deliver(&self, _: Message) {}

    fn serves(&self) -> Option<Epoch> {
        self.serves
    }
}

#[async_trait]
impl DrillOrders for Willing {
    async fn order(&self, _: Bytes) -> Response {
        StatusCode::OK.into_response()
    }
}

#[async_trait]
impl OutsideJoins for Willing {
    async fn join_outside(&self, _: &str, _: Bytes) -> Response {
        StatusCode::OK.into_response()
    }

    async fn renew_outside(&self, _: &str, _: Bytes) -> Response {
        StatusCode::OK.into_response()
    }
}

/// The cluster key of both sites.
pub(crate) fn cluster_keys() -> Arc<KeyProvider> {
    Arc::new(ClusterKeys::from(ClusterKey::new([9; 32])).into())
}

/// A door to a catalog for `peer`, of a site that serves under that epoch.
pub(crate) fn willing(catalog: Arc<dyn Catalog>, peer: &str, serves: Option<Epoch>) -> DoorParts {
    DoorParts {
        peer: peer.parse().expect("a name"),
        catalog,
        cluster_keys: cluster_keys(),
        keeper: Arc::new(Willing { serves }),
        extents: Arc::new(Willing { serves }),
        joins: None,
        outside: Arc::new(Willing { serves }),
        drills: Arc::new(Willing { serves }),
        cut: CutSwitch::default(),
    }
}

/// An empty catalog of `east` with its folder, and what `west` asks it by while `east` serves under that epoch.
pub(crate) async fn east(serves: Epoch) -> (Arc<dyn Catalog>, TempDir, PeerClient) {
    let site: SiteName = "east".parse().expect("a name");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("catalog.redb");
    let catalog = RedbCatalog::open(&path, site.clone(), &RedbOptions::default()).expect("a catalog");
    let catalog: Arc<dyn Catalog> = Arc::new(catalog);
    let authority = Authority::create(CLUSTER).expect("an authority");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let gateway = issued(&authority, "east", Role::Gateway);
    let door = router(willing(Arc::clone(&catalog), "west", Some(serves)));
    tokio::spawn(async move { serve(listener, &gateway, Expected::any_of(CLUSTER), door).await });
    let own = issued(&authority, "west", Role::Operator);
    let client = PeerClient::new(&[address], &site, CLUSTER, &own, CutSwitch::default()).expect("a client");
    (catalog, folder, client)
}

/// Site `west`, whose other site is `east`; the folder holds its catalog.
pub(crate) fn west() -> (SiteContext, TempDir) {
    site_of_two("west", "east")
}

/// What `west` admits outside nodes with while `standing` says that it is active: node `o1` is declared, with token `t1`.
pub(crate) async fn admission(authority: &Authority) -> (SiteContext, watch::Sender<Standing>, TempDir) {
    let (mut context, folder) = west();
    let new = NewRingKey { key: SecretKey::new([3; 32]), nonce: [4; 12], made_ms: 1 };
    let keyring = Keyring::create(CLUSTER, new);
    let sealed = seal_authority_key(&keyring, &authority.key_pem(), &[5; 12]).expect("it seals");
    let cluster =
        Cluster { id: CLUSTER, authority: authority.certificate_pem(), sealed_authority_key: sealed };
    let node = OutsideNode {
        address: "192.0.2.1:8446".to_owned(),
        devices: vec![(DeviceId(1), "/d0".to_owned())],
        declared_by: context.site.clone(),
        token: "t1".to_owned(),
        spent_by: None,
        share: NodeShare::default(),
    };
    let put = |key, value: Vec<u8>| Write::Put(key, Bytes::from(value));
    let writes = vec![
        put(keys::site_gate(&context.site), Gate::Open(Epoch(1)).encode()),
        put(keys::keyring(), keyring.seal(context.cluster_keys.keys().newest())),
        put(keys::cluster(), cluster.encode()),
        put(keys::outside_node(&"o1".parse().expect("a name")), node.encode()),
    ];
    context.catalog.commit(Batch::one(None, Change::blind(writes))).await.expect("it commits");
    let standing = Standing { active: true, epoch: Epoch(1), keeper: KeeperNumber(1) };
    let standing = watch::Sender::new(standing);
    context.standing = standing.subscribe();
    (context, standing, folder)
}

/// A site with another one; the folder holds its catalog.
pub(crate) fn site_of_two(site: &str, peer: &str) -> (SiteContext, TempDir) {
    let site: SiteName = site.parse().expect("a name");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("catalog.redb");
    let catalog = RedbCatalog::open(&path, site.clone(), &RedbOptions::default()).expect("a catalog");
    let standing = Standing { active: false, epoch: Epoch(1), keeper: KeeperNumber(1) };
    let context = SiteContext {
        site: site.clone(),
        peer: Some(peer.parse().expect("a name")),
        preferred: "east".parse().expect("a name"),
        doors: Vec::new(),
        catalog: Arc::new(catalog),
        agents: Arc::new(Agents::new(site, credentials())),
        standing: watch::Sender::new(standing).subscribe(),
        lease: watch::Sender::new(crate::keeper::KeeperState::at_start()).subscribe(),
        witness: None,
        map: watch::Sender::new(Arc::new(PlacementMap::default())).subscribe(),
        outside: Outside {
            config: OutsideConfig::default(),
            agents: Arc::new(Agents::new(SiteName::outside(), credentials())),
            map: watch::Sender::default().subscribe(),
        },
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
        options: LoopOptions::default(),
        survive: Survive::default(),
        cluster_keys: cluster_keys(),
        journaled: watch::Sender::default(),
    };
    (context, folder)
}
