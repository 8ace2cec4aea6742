//! What all loops of a site share.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diptych_catalog::Catalog;
use diptych_core::ids::{Epoch, KeeperNumber, SiteName, Stamp};
use diptych_core::journal::TOMBSTONE_HOLD;
use diptych_core::placement::PlacementMap;
use diptych_core::planner::Survive;
use diptych_core::records::Position;
use diptych_wire::agent::Door;
use tokio::sync::{Notify, watch};

use crate::agents::Agents;
use crate::config::{Acknowledge, Policy};
use crate::drill::CutSwitch;
use crate::edge::EdgeStatus;
use crate::keeper::KeeperState;
use crate::keeper::witness::Witness;
use crate::keys::KeyProvider;
use crate::name::NameSeen;
use crate::notify::Notifier;
use crate::peer::follow::Followed;
use crate::place::Outside;
use crate::status::FailbackStatus;

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
    /// Rows that no catalog names are freed so long after they were found, and a peer that is away is waited for: `gc.hold`.
    pub orphan_hold: Duration,
    /// Between two comparisons of all devices with the catalog.
    pub inventory_every: Duration,
    /// Bytes a second that repair may move in the site.
    pub repair_lan: u64,
    /// Bytes a second that repair may bring over from the other site.
    pub repair_wan: u64,
    /// Between two journals, at least.
    pub journal_every: Duration,
    /// The first checkpoint of a term is made so long after the term began: a site that has just become active has better things to do.
    pub checkpoint_after: Duration,
    /// Between two merges of small journals.
    pub merge_every: Duration,
    /// Bytes of journals below which no checkpoint is made, however small the last one is.
    pub checkpoint_least: u64,
    /// A tombstone stays for so long, so that what a resurrection finds and no journal knows is never newer than it.
    pub tombstone_hold: Duration,
    /// Between two looks at what of the own feed can be forgotten.
    pub forget_every: Duration,
    /// Entries of the feed that are forgotten at once, at least.
    pub forget_at_once: u64,
    /// Entries of the feed that are younger stay, whoever has them: who loads a mirror or a snapshot goes on from there.
    pub young_feed: Duration,
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
            journal_every: Duration::from_secs(1),
            checkpoint_after: Duration::from_secs(10),
            merge_every: Duration::from_hours(1),
            checkpoint_least: 4 << 20,
            tombstone_hold: TOMBSTONE_HOLD,
            forget_every: Duration::from_mins(1),
            forget_at_once: 4_096,
            young_feed: Duration::from_mins(10),
        }
    }
}

/// A site's keeper, as its loops see it.
pub struct SiteContext {
    /// The site.
    pub site: SiteName,
    /// The other one.
    pub peer: Option<SiteName>,
    /// The one that is active in the first term, and shall be again after a failover.
    pub preferred: SiteName,
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
    /// The third voter; None with one site.
    pub witness: Option<Arc<dyn Witness>>,
    /// Changes with each node that comes, goes or dies.
    pub map: watch::Receiver<Arc<PlacementMap>>,
    /// The nodes in neither site.
    pub outside: Outside,
    /// Of the declaration that it runs with; 0: nothing was declared.
    pub generation: i64,
    /// Times and limits.
    pub options: LoopOptions,
    /// How far the other site's feed was followed.
    pub followed: watch::Sender<Followed>,
    /// What was last seen of the public name.
    pub name: watch::Sender<NameSeen>,
    /// What the edge says of both sites; None: it is not asked, or was not yet.
    pub edge: watch::Sender<Option<EdgeStatus>>,
    /// Has the edge's verdicts looked at now: somebody hints that they turned.
    pub edge_hint: Arc<Notify>,
    /// Why the preferred site does not have the lease back; None: it has it, or this site is not active.
    pub failback: watch::Sender<Option<FailbackStatus>>,
    /// Times and budgets, as declared.
    pub policy: Policy,
    /// What a write waits for.
    pub acknowledge: Acknowledge,
    /// Whether a drill has cut this site off.
    pub cut: CutSwitch,
    /// Told what turns.
    pub notifier: Notifier,
    /// What an extent's rows must survive.
    pub survive: Survive,
    /// Opens the keyring.
    pub cluster_keys: Arc<KeyProvider>,
    /// All role-owned changes up to it are in a whole checkpoint and the journals behind it; None: no checkpoint of this catalog
    /// is whole yet, or that is not known.
    pub journaled: watch::Sender<Option<Position>>,
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
