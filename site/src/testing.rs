//! A site without agents, for tests of what it does with its catalog.

use std::sync::Arc;

use diptych_catalog::{RedbCatalog, RedbOptions};
use diptych_core::ids::{ClusterId, Epoch, KeeperNumber, SiteName};
use diptych_core::placement::PlacementMap;
use diptych_wire::authority::{Authority, Request};
use diptych_wire::identity::{Identity, Role};
use diptych_wire::tls::Credentials;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::agents::Agents;
use crate::context::{LoopOptions, SiteContext, Standing};

/// Site `west`, whose other site is `east`; the folder holds its catalog.
pub(crate) fn west() -> (SiteContext, TempDir) {
    let site: SiteName = "west".parse().expect("a name");
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = ClusterId([1; 16]);
    let identity = Identity { cluster, site: site.clone(), role: Role::Operator, name: "keeper".to_owned() };
    let authority = Authority::create(cluster).expect("an authority");
    let request = Request::new(identity, std::time::Duration::from_hours(1));
    let issued = authority.issue(&request).expect("a certificate");
    let credentials = Credentials::new(&issued).expect("credentials");
    let path = folder.path().join("catalog.redb");
    let catalog = RedbCatalog::open(&path, site.clone(), &RedbOptions::default()).expect("a catalog");
    let standing = Standing { active: false, epoch: Epoch(1), keeper: KeeperNumber(1) };
    let context = SiteContext {
        site: site.clone(),
        peer: Some("east".parse().expect("a name")),
        doors: Vec::new(),
        catalog: Arc::new(catalog),
        agents: Arc::new(Agents::new(site, credentials)),
        standing: watch::Sender::new(standing).subscribe(),
        lease: watch::Sender::new(crate::keeper::KeeperState::at_start()).subscribe(),
        map: watch::Sender::new(Arc::new(PlacementMap::default())).subscribe(),
        name_trouble: watch::Sender::default(),
        options: LoopOptions::default(),
    };
    (context, folder)
}
