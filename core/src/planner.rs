//! From what the user declares to survive to a coding: k, the same for both sites, and f rows for each.
//!
//! The arithmetic is docs/design.md, "Coding across the hinge". Only *declared* nodes and devices go in: a dead one never
//! changes the plan. Where nodes differ in devices, rows lie as level as the devices allow, the node that is left out as
//! spare is the one with the most devices, and a loss takes the fullest nodes: the worst case in each step.

mod refusal;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::SiteName;
use crate::records::CodingPlan;

pub use refusal::{Refusal, Shortfall};

/// Most rows that may be needed to decode.
pub const MAX_NEEDED: u8 = 16;

/// Most rows a site: two sites and 16 outside rows stay within the 256 that GF(2^8) has.
pub const MAX_ROWS_PER_SITE: u8 = 120;

/// Where two plans cost the same, the one with more rows wins up to here: larger shards gain nothing past it, and more
/// rows mean more requests.
const PREFERRED_ROWS: u8 = 8;

/// Fewest nodes of which one is left out of the sum, so that after a death for good there is room to be whole again.
const NODES_FOR_A_SPARE: usize = 4;

/// What is survived at the same instant: `sites` whole sites and, in the other, any `nodes` nodes or any `devices` devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survive {
    /// 0 or 1.
    pub sites: u32,
    /// Nodes of the site that is left.
    pub nodes: u32,
    /// Devices of the site that is left.
    #[serde(default = "one")]
    pub devices: u32,
}

const fn one() -> u32 {
    1
}

impl Default for Survive {
    fn default() -> Self {
        Self { sites: 1, nodes: 1, devices: 1 }
    }
}

impl fmt::Display for Survive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{{sites: {}, nodes: {}, devices: {}}}", self.sites, self.nodes, self.devices)
    }
}

/// The nodes that a site declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteTopology {
    /// Name of the site.
    pub site: SiteName,
    /// Devices of each node. A node without devices counts for nothing.
    pub nodes: Vec<u32>,
}

/// A coding that survives what was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// k: rows that are needed to decode, anywhere.
    pub needed: u8,
    /// f: rows that each site holds, in the order in which the sites were given.
    pub rows: Vec<(SiteName, u8)>,
}

impl Plan {
    /// Stored bytes for each byte of ciphertext: Σf / k.
    pub fn overhead(&self) -> f64 {
        f64::from(self.total()) / f64::from(self.needed)
    }

    /// f of a site, if it was planned.
    pub fn rows_of(&self, site: &SiteName) -> Option<u8> {
        self.rows.iter().find(|(name, _)| name == site).map(|&(_, rows)| rows)
    }

    fn total(&self) -> u32 {
        self.rows.iter().map(|&(_, rows)| u32::from(rows)).sum()
    }

    fn most(&self) -> u8 {
        self.rows.iter().map(|&(_, rows)| rows).max().unwrap_or(0)
    }

    /// Less is better: least Σf/k, then the greatest f up to 8, then the least.
    fn compare(&self, other: &Self) -> Ordering {
        let cost = |plan: &Self, other: &Self| plan.total() * u32::from(other.needed);
        let rows = |plan: &Self| match plan.most() {
            most if most <= PREFERRED_ROWS => (0, PREFERRED_ROWS - most),
            most => (1, most),
        };
        cost(self, other)
            .cmp(&cost(other, self))
            .then_with(|| rows(self).cmp(&rows(other)))
            .then_with(|| self.total().cmp(&other.total()))
    }
}

/// `4 of 6 in east, 4 of 6 in west, 3.00 times the bytes`.
impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (site, rows) in &self.rows {
            write!(formatter, "{} of {rows} in {site}, ", self.needed)?;
        }
        write!(formatter, "{:.2} times the bytes", self.overhead())
    }
}

impl From<&Plan> for CodingPlan {
    fn from(plan: &Plan) -> Self {
        Self { needed: plan.needed, rows: plan.rows.clone() }
    }
}

/// The cheapest coding with which each site, alone, keeps k rows through what is declared.
///
/// One site alone (`sites: 0`) is planned the same way.
///
/// # Errors
/// `Refusal` shows the arithmetic for each site that can't survive what is declared, and what would do.
pub fn plan(survive: Survive, sites: &[SiteTopology]) -> Result<Plan, Refusal> {
    check_sites(survive, sites)?;
    let options: Vec<SiteOptions> = sites.iter().map(|site| SiteOptions::new(survive, &site.nodes)).collect();
    let candidates = (1..=MAX_NEEDED).filter_map(|needed| {
        let rows = sites
            .iter()
            .zip(&options)
            .map(|(site, options)| Some((site.site.clone(), options.least(needed)?)));
        Some(Plan { needed, rows: rows.collect::<Option<_>>()? })
    });
    candidates.min_by(Plan::compare).ok_or_else(|| Refusal::cannot_survive(survive, sites, &options))
}

fn check_sites(survive: Survive, sites: &[SiteTopology]) -> Result<(), Refusal> {
    match (survive.sites, sites.len()) {
        (_, 0) => Err(Refusal::NoSite),
        (_, given @ 3..) => Err(Refusal::ThirdSite { given }),
        (sites @ 2.., _) => Err(Refusal::TooManySites { sites }),
        (1, 1) => Err(Refusal::NoOtherSite { site: sites[0].site.clone() }),
        _ => Ok(()),
    }
}

/// The sum of one site, for each f that it has devices for.
#[derive(Debug)]
struct SiteOptions {
    /// Nodes with devices.
    nodes: usize,
    /// Of which so many are left out of the sum.
    spare: usize,
    /// f = 1, 2, …
    laid: Vec<Laid>,
}

/// f rows, laid level.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Laid {
    rows: u8,
    /// Rows of each node that is not spare, the fullest first.
    per_node: Vec<u32>,
    /// Rows that the declared number of nodes takes at worst.
    taken_by_nodes: u32,
    /// Rows that the declared number of devices takes at worst.
    taken_by_devices: u32,
}

impl Laid {
    fn left(&self) -> u32 {
        u32::from(self.rows).saturating_sub(self.taken_by_nodes.max(self.taken_by_devices))
    }
}

impl SiteOptions {
    fn new(survive: Survive, nodes: &[u32]) -> Self {
        let mut capacities: Vec<u32> = nodes.iter().copied().filter(|&devices| devices > 0).collect();
        capacities.sort_unstable();
        let nodes = capacities.len();
        let spare = usize::from(nodes >= NODES_FOR_A_SPARE && survive.nodes > 0);
        capacities.truncate(nodes - spare);
        Self { nodes, spare, laid: lay(survive, &capacities) }
    }

    /// The least f of which `needed` are left. What is left never falls when a row is added: the row adds at most one
    /// to what is taken.
    fn least(&self, needed: u8) -> Option<u8> {
        self.laid.iter().find(|laid| laid.left() >= u32::from(needed)).map(|laid| laid.rows)
    }

    /// What a refusal shows: the most that can be left, with the number of rows that the planner would prefer.
    fn best(&self) -> Option<&Laid> {
        self.laid.iter().take(usize::from(PREFERRED_ROWS)).max_by_key(|laid| (laid.left(), laid.rows))
    }
}

/// Adds row after row, each to the emptiest node that has a device left.
fn lay(survive: Survive, capacities: &[u32]) -> Vec<Laid> {
    let mut filled = vec![0_u32; capacities.len()];
    let mut laid = Vec::new();
    for rows in 1..=MAX_ROWS_PER_SITE {
        let free = (0..filled.len()).filter(|&node| filled[node] < capacities[node]);
        let Some(node) = free.min_by_key(|&node| filled[node]) else { break };
        filled[node] += 1;
        let mut per_node = filled.clone();
        per_node.sort_unstable_by(|a, b| b.cmp(a));
        let taken_by_nodes = per_node.iter().take(survive.nodes as usize).sum();
        laid.push(Laid {
            rows,
            per_node,
            taken_by_nodes,
            taken_by_devices: survive.devices.min(u32::from(rows)),
        });
    }
    laid
}
