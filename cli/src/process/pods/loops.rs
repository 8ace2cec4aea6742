//! The keeper and the loops of a site, in an operator's pod.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use axum::Router;
use diptych_catalog::Catalog;
use diptych_core::ids::Epoch;
use diptych_operator::PodConfig;
use diptych_site::agents::Agents;
use diptych_site::context::SiteContext;
use diptych_site::fleet::Fleet;
use diptych_site::keeper::{Keeper, KeeperHandle, KeeperParts, election};
use diptych_site::loops;
use diptych_site::nodes::NodeWatch;
use diptych_wire::identity::{Expected, Role};
use diptych_wire::tls::Credentials;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::cluster_key;
use crate::process::credentials;
use crate::process::hands::{Hands, Parts, Writers};
use crate::process::site::following::Following;
use crate::process::site::peer::Links;
use crate::process::site::{doors, endpoint, lease, rest, seeds, standing};

/// Waits until this process speaks for the site, then does so until another does.
pub(super) async fn run(
    config: &PodConfig,
    catalog: &Arc<dyn Catalog>,
    listener: &TcpListener,
    holder: &str,
    of_api_server: Router,
) -> Result<()> {
    let own = credentials(&config.site.identity)?;
    let number = election::elect(catalog.as_ref(), holder, election::PATIENCE).await?;
    let links = Links::new(&config.site, &own)?;
    let hands = Arc::new(Hands::default());
    let site = &config.site;
    let parts = KeeperParts {
        catalog: Arc::clone(catalog),
        config: Arc::new(lease(site)),
        number,
        peer: links.as_ref().map(Links::to_keeper),
        witness: links.as_ref().map(Links::witness),
        hands: hands.clone(),
    };
    let (keeper, handle) = Keeper::begin(parts).await?;
    let fleet = Fleet::new(handle.clone());
    let (context, nodes) = context(config, catalog, &own, &handle).await?;
    let following = links.map(|links| {
        let from = links.config.site.clone();
        Following::new(&from, links.peer, links.name, &context, &handle, site.policy.max_loss_age_ms)
    });
    if let Some(following) = &following {
        fleet.follows(following.followed());
    }
    let progress = following.as_ref().map(Following::progress);
    hands.begin(Parts {
        writers: fleet.clone(),
        progress: progress.clone(),
        loss: following.as_ref().map(Following::loss_gate),
    });
    let first_start = seeds::tell_devices(handle.clone(), nodes.seen(), site.nodes.len());
    let seeding =
        seeds::sow(Arc::new(site.clone()), Arc::clone(catalog), handle.clone(), cluster_key(config)?);
    let name = Arc::clone(&hands.name);
    let following = async {
        match following {
            Some(following) => following.run(name).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = keeper.run() => anyhow::bail!("another keeper speaks for this site"),
        () = loops::run(Arc::clone(&context), nodes, progress) => Ok(()),
        () = election::beat(catalog.as_ref(), number, holder) => anyhow::bail!("another keeper was elected"),
        ended = answer_gateways(listener, &own, &context, &handle, fleet, of_api_server) => ended,
        () = following => Ok(()),
        ended = seeding => ended,
        () = first_start => Ok(()),
    }
}

async fn context(
    config: &PodConfig,
    catalog: &Arc<dyn Catalog>,
    own: &Credentials,
    handle: &KeeperHandle,
) -> Result<(Arc<SiteContext>, NodeWatch)> {
    let site = &config.site;
    let options = site.policy.loop_options(site.node_dead_after_s);
    let agents = Arc::new(Agents::new(site.site.clone(), own.clone()));
    let standing = standing(handle);
    let declared = site.nodes.iter().map(endpoint).collect();
    let nodes = NodeWatch::begin(
        Arc::clone(catalog),
        Arc::clone(&agents),
        declared,
        standing.clone(),
        options.node_dead_after,
    )
    .await?;
    let context = SiteContext {
        site: site.site.clone(),
        peer: site.peer.as_ref().map(|peer| peer.site.clone()),
        doors: site.peer.iter().flat_map(doors).collect(),
        catalog: Arc::clone(catalog),
        agents,
        standing,
        lease: handle.watch(),
        map: nodes.map(),
        options,
        name_trouble: watch::Sender::default(),
    };
    Ok((Arc::new(context), nodes))
}

/// Only gateways of this site may ask.
async fn answer_gateways(
    listener: &TcpListener,
    own: &Credentials,
    context: &Arc<SiteContext>,
    handle: &KeeperHandle,
    fleet: Arc<Fleet>,
    of_api_server: Router,
) -> Result<()> {
    let identity = own.identity();
    let expected = Expected {
        cluster: identity.cluster,
        site: Some(identity.site.clone()),
        roles: vec![Role::Gateway],
        name: None,
    };
    let service =
        fleet.router().merge(rest::router(Arc::clone(context), handle.clone())).merge(of_api_server);
    // The listener is the process's, the keeper comes and goes.
    let listener = TcpListener::from_std(std::net::TcpListener::from(duplicate(listener)?))?;
    Ok(diptych_wire::http::serve(listener, own, expected, service).await?)
}

fn duplicate(listener: &TcpListener) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsFd;
    Ok(listener.as_fd().try_clone_to_owned()?)
}

#[async_trait]
impl Writers for Fleet {
    async fn hold(&self) {
        Self::hold(self).await;
    }

    fn release(&self) {
        Self::release(self);
    }

    async fn stop(&self, epoch: Epoch) {
        Self::stop(self, epoch).await;
    }
}
