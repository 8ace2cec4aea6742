//! What all loops of a site share.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diptych_catalog::Catalog;
use diptych_core::ids::{Epoch, KeeperNumber, SiteName, Stamp};
use diptych_core::placement::PlacementMap;
use diptych_wire::agent::Door;
use tokio::sync::watch;

use crate::agents::Agents;
use crate::keeper::KeeperState;

/// What this keeper knows of its right to command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether this site takes writes.
    pub active: bool,
    /// Newest epoch known; stands on commands to agents.
    pub epoch: Epoch,
    /// This keeper.
    pub keeper: KeeperNumber,
}

impl Standing {
    /// For commands to agents.
    pub fn stamp(&self) -> Stamp {
        Stamp { epoch: self.epoch, keeper: self.keeper }
    }
}

/// Times and limits of the loops.
#[derive(Debug, Clone)]
pub struct LoopOptions {
    /// Without a sign of life for so long, a node's rows are rebuilt elsewhere.
    pub node_dead_after: Duration,
    /// Between two looks at the nodes.
    pub look_every: Duration,
    /// Repairs under way at once.
    pub repairs_at_once: usize,
    /// Rows of what is condemned are freed so long after.
    pub free_after: Duration,
    /// Rows that no catalog names are freed so long after they were found.
    pub orphan_hold: Duration,
    /// Between two comparisons of all devices with the catalog.
    pub inventory_every: Duration,
    /// Bytes a second that repair may move in the site.
    pub repair_lan: u64,
    /// Bytes a second that repair may bring over from the other site.
    pub repair_wan: u64,
}

impl Default for LoopOptions {
    fn default() -> Self {
        Self {
            node_dead_after: Duration::from_mins(1),
            look_every: Duration::from_millis(500),
            repairs_at_once: 4,
            free_after: Duration::from_hours(1),
            orphan_hold: Duration::from_hours(24),
            inventory_every: Duration::from_mins(10),
            repair_lan: 200 << 20,
            repair_wan: 50 << 20,
        }
    }
}

/// A site's keeper, as its loops see it.
pub struct SiteContext {
    /// The site.
    pub site: SiteName,
    /// The other one.
    pub peer: Option<SiteName>,
    /// The other one's listeners; none with one site.
    pub doors: Vec<Door>,
    /// Its catalog.
    pub catalog: Arc<dyn Catalog>,
    /// Its node-agents.
    pub agents: Arc<Agents>,
    /// Changes with each term.
    pub standing: watch::Receiver<Standing>,
    /// Changes with each renewal.
    pub lease: watch::Receiver<KeeperState>,
    /// Changes with each node that comes, goes or dies.
    pub map: watch::Receiver<Arc<PlacementMap>>,
    /// Times and limits.
    pub options: LoopOptions,
    /// Why the public name can't be kept; None: it can.
    pub name_trouble: watch::Sender<Option<String>>,
}

impl SiteContext {
    /// For commands to agents.
    pub fn stamp(&self) -> Stamp {
        self.standing.borrow().stamp()
    }

    /// The epoch under which this site may commit role-owned keys; None while it is not active.
    pub fn active_epoch(&self) -> Option<Epoch> {
        let standing = *self.standing.borrow();
        standing.active.then_some(standing.epoch)
    }

    /// The map as it is now.
    pub fn map(&self) -> Arc<PlacementMap> {
        self.map.borrow().clone()
    }
}

/// Milliseconds since 1970 by this machine's clock: for people and for ages, never for leases.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
