//! A site without agents, for tests of what it does with its catalog.

use std::sync::Arc;

use diptych_catalog::{RedbCatalog, RedbOptions};
use diptych_core::ids::{ClusterId, Epoch, KeeperNumber, SiteName};
use diptych_core::keyring::ClusterKey;
use diptych_core::placement::PlacementMap;
use diptych_core::planner::Survive;
use diptych_wire::authority::{Authority, Request};
use diptych_wire::identity::{Identity, Role};
use diptych_wire::tls::Credentials;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::agents::Agents;
use crate::config::{Acknowledge, OutsideConfig, Policy};
use crate::context::{LoopOptions, SiteContext, Standing};
use crate::drill::CutSwitch;
use crate::notify::Notifier;
use crate::place::Outside;

pub(crate) const CLUSTER: ClusterId = ClusterId([1; 16]);

/// Of a keeper of site `west`.
pub(crate) fn credentials() -> Credentials {
    let site: SiteName = "west".parse().expect("a name");
    let identity = Identity { cluster: CLUSTER, site, role: Role::Operator, name: "keeper".to_owned() };
    let authority = Authority::create(CLUSTER).expect("an authority");
    let request = Request::new(identity, std::time::Duration::from_hours(1));
    Credentials::new(&authority.issue(&request).expect("a certificate")).expect("credentials")
}

/// Site `west`, whose other site is `east`; the folder holds its catalog.
pub(crate) fn west() -> (SiteContext, TempDir) {
    let site: SiteName = "west".parse().expect("a name");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("catalog.redb");
    let catalog = RedbCatalog::open(&path, site.clone(), &RedbOptions::default()).expect("a catalog");
    let standing = Standing { active: false, epoch: Epoch(1), keeper: KeeperNumber(1) };
    let context = SiteContext {
        site: site.clone(),
        peer: Some("east".parse().expect("a name")),
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
        failback: watch::Sender::default(),
        policy: Policy::default(),
        acknowledge: Acknowledge::OneSite,
        cut: CutSwitch::default(),
        notifier: Notifier::default(),
        generation: 0,
        options: LoopOptions::default(),
        survive: Survive::default(),
        cluster_key: Arc::new(ClusterKey::new([9; 32])),
        journaled: watch::Sender::default(),
    };
    (context, folder)
}
