//! A place whose rows a keeper makes, moves and frees: its own site in either role, the outside nodes while it is active.

use std::sync::Arc;
use std::time::Duration;

use diptych_catalog::{Batch, Catalog, Change};
use diptych_core::ids::{DeviceId, Epoch, SiteName, Stamp};
use diptych_core::latency::doublings;
use diptych_core::moving::Coding;
use diptych_core::placement::PlacementMap;
use diptych_core::planner::Survive;
use diptych_wire::client::AgentClient;
use diptych_wire::tls::Credentials;
use tokio::sync::watch;

use crate::agents::Agents;
use crate::config::OutsideConfig;
use crate::context::{SiteContext, Standing};
use crate::error::SiteError;
use crate::nodes::NodeWatch;

/// What a keeper knows of the outside nodes, in either role.
pub struct Outside {
    /// As this site's operator declares them.
    pub config: OutsideConfig,
    /// Their agents.
    pub agents: Arc<Agents>,
    /// `s/map/outside`, as the active site keeps it.
    pub map: watch::Receiver<Arc<PlacementMap>>,
}

impl Outside {
    /// With the map that the catalog has, and what watches the nodes from now on.
    pub async fn begin(
        catalog: Arc<dyn Catalog>,
        credentials: Credentials,
        standing: watch::Receiver<Standing>,
        dead_after: Duration,
        config: OutsideConfig,
    ) -> Result<(Self, NodeWatch), SiteError> {
        let agents = Arc::new(Agents::new(SiteName::outside(), credentials));
        let nodes = NodeWatch::begin_outside(catalog, Arc::clone(&agents), standing, dead_after).await?;
        Ok((Self { config, agents, map: nodes.map() }, nodes))
    }

    /// The map, with how far each node is from here: near ones get rows first. One that was not asked yet comes last.
    pub fn map_from_here(&self) -> PlacementMap {
        let mut map = PlacementMap::clone(&self.map.borrow());
        for node in &mut map.nodes {
            let client = self.agents.of_node(&node.name).ok();
            let way = client.and_then(|client| client.round_trip());
            node.distance = Some(way.map_or(u32::MAX, doublings));
        }
        map
    }
}

/// A place as it was at one moment, with the right to command its agents and to write its keys.
#[derive(Clone)]
pub struct Place {
    /// The site, or `outside`.
    pub name: SiteName,
    /// Its agents.
    pub agents: Arc<Agents>,
    /// Its nodes.
    pub map: Arc<PlacementMap>,
    /// What its rows must survive; of those outside nothing is declared.
    pub survive: Survive,
    /// For commands to agents.
    pub stamp: Stamp,
    /// Its keys are committed under this epoch; None: they are this site's in either role.
    pub epoch: Option<Epoch>,
}

impl Place {
    /// Whether it is the outside nodes.
    pub fn is_outside(&self) -> bool {
        self.name == SiteName::outside()
    }

    /// The client of the node that has a device.
    pub(crate) fn agent_of(&self, device: DeviceId) -> Result<AgentClient, SiteError> {
        self.agents.of_device(&self.map, device)
    }

    /// A change of its keys.
    pub(crate) fn batch(&self, change: Change) -> Batch {
        Batch::one(self.epoch, change)
    }
}

impl SiteContext {
    /// This site.
    pub fn here(&self) -> Place {
        Place {
            name: self.site.clone(),
            agents: Arc::clone(&self.agents),
            map: self.map(),
            survive: self.survive,
            stamp: self.stamp(),
            epoch: None,
        }
    }

    /// The outside nodes; None while this site is not active, or cut off by a drill.
    ///
    /// FENCING: role and stamp are of one moment. Keepers are numbered by site, so a site whose term is over must never
    /// send an outside agent the epoch that took over under its own number: it could shut the new keeper out.
    pub fn outside_nodes(&self) -> Option<Place> {
        let standing = *self.standing.borrow();
        (standing.active && !self.cut.is_cut()).then(|| Place {
            name: SiteName::outside(),
            agents: Arc::clone(&self.outside.agents),
            map: Arc::new(self.outside.map_from_here()),
            survive: Coding::MARGIN.survive,
            stamp: standing.stamp(),
            epoch: Some(standing.epoch),
        })
    }

    /// All of them that are this site's to care for now.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        std::iter::once(self.here()).chain(self.outside_nodes())
    }
}
