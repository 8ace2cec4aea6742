//! Why a topology can't survive what is declared: the sum, and what would do.

use std::fmt;

use thiserror::Error;

use super::{Laid, MAX_ROWS_PER_SITE, SiteOptions, SiteTopology, Survive};
use crate::ids::SiteName;

/// What can't survive as declared.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Nothing to plan for.
    #[error("no site is declared: declare one or two")]
    NoSite,
    /// More than two sites.
    #[error("{given} sites are declared, a codeword spans two at most: declare one or two")]
    ThirdSite {
        /// Number of sites.
        given: usize,
    },
    /// More lost sites than there can be.
    #[error("survive.sites is {sites}: of two sites one can be lost, so 0 or 1 will do")]
    TooManySites {
        /// What was declared.
        sites: u32,
    },
    /// One site can't survive itself.
    #[error("survive.sites is 1 and {site} is the only site: declare a peer, or survive.sites: 0")]
    NoOtherSite {
        /// The only site.
        site: SiteName,
    },
    /// The arithmetic does not come out.
    #[error("survive {survive} can't be met; {}", sentences(.shortfalls))]
    CannotSurvive {
        /// What was declared.
        survive: Survive,
        /// The sum, for each site in which it does not come out.
        shortfalls: Vec<Shortfall>,
    },
}

fn sentences(shortfalls: &[Shortfall]) -> String {
    let sentences: Vec<String> = shortfalls.iter().map(ToString::to_string).collect();
    sentences.join("; ")
}

/// The sum of a site that can't survive what is declared, for the best f that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// The site.
    pub site: SiteName,
    /// Its nodes that have devices.
    pub nodes: usize,
    /// Of which so many are left out, as room to be whole again after a death for good.
    pub spare: usize,
    /// f.
    pub rows: u8,
    /// Rows of each node in the sum, the fullest first.
    pub rows_per_node: Vec<u32>,
    /// Rows that the declared number of nodes takes at worst.
    pub taken_by_nodes: u32,
    /// Rows that the declared number of devices takes at worst.
    pub taken_by_devices: u32,
    /// Rows that are left; k is 1 at least.
    pub left: u32,
    /// What would do, in words for a person, each by itself.
    pub remedies: Vec<String>,
    survive: Survive,
}

impl Refusal {
    pub(super) fn cannot_survive(survive: Survive, sites: &[SiteTopology], options: &[SiteOptions]) -> Self {
        let short = sites.iter().zip(options).filter(|(_, options)| options.least(1).is_none());
        let shortfalls = short.map(|(site, options)| Shortfall::new(survive, site, options)).collect();
        Self::CannotSurvive { survive, shortfalls }
    }
}

impl Shortfall {
    fn new(survive: Survive, site: &SiteTopology, options: &SiteOptions) -> Self {
        let nothing = Laid { rows: 0, per_node: Vec::new(), taken_by_nodes: 0, taken_by_devices: 0 };
        let best = options.best().unwrap_or(&nothing);
        Self {
            site: site.site.clone(),
            nodes: options.nodes,
            spare: options.spare,
            rows: best.rows,
            rows_per_node: best.per_node.clone(),
            taken_by_nodes: best.taken_by_nodes,
            taken_by_devices: best.taken_by_devices,
            left: best.left(),
            remedies: remedies(survive, &site.nodes),
            survive,
        }
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, nodes, spare, rows, taken_by_nodes, taken_by_devices, left, survive, .. } = self;
        if *rows == 0 {
            write!(formatter, "{site} declares no node with a device")?;
        } else {
            let level = self.rows_per_node.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
            write!(
                formatter,
                "{site}: of {nodes} nodes {spare} are kept spare; at best {rows} rows lie {level}, "
            )?;
            write!(formatter, "{} nodes take {taken_by_nodes} of them, ", survive.nodes)?;
            write!(formatter, "{} devices take {taken_by_devices}, ", survive.devices)?;
            write!(formatter, "{left} are left and 1 is needed at least")?;
        }
        match self.remedies.as_slice() {
            [] => Ok(()),
            remedies => write!(formatter, " (what would do: {})", remedies.join(", or ")),
        }
    }
}

/// Each change, by itself, that makes the sum of this site come out; the least of its kind.
fn remedies(survive: Survive, nodes: &[u32]) -> Vec<String> {
    let fits = |survive: Survive, nodes: &[u32]| SiteOptions::new(survive, nodes).least(1).is_some();
    let devices = nodes.iter().copied().filter(|&devices| devices > 0).min().unwrap_or(1);
    let limit = u32::from(MAX_ROWS_PER_SITE);
    let added = (1..=limit).find(|&added| {
        let more = nodes.iter().copied().chain((0..added).map(|_| devices)).collect::<Vec<_>>();
        fits(survive, &more)
    });
    let fewer_nodes =
        (0..survive.nodes.min(limit)).rev().find(|&lost| fits(Survive { nodes: lost, ..survive }, nodes));
    let fewer_devices =
        (0..survive.devices.min(limit)).rev().find(|&lost| fits(Survive { devices: lost, ..survive }, nodes));
    let plural = |number: u32| if number == 1 { "" } else { "s" };
    let added = added
        .map(|added| format!("{added} more node{} with {devices} device{}", plural(added), plural(devices)));
    let fewer_nodes = fewer_nodes.map(|lost| format!("survive.nodes: {lost}"));
    let fewer_devices = fewer_devices.map(|lost| format!("survive.devices: {lost}"));
    [added, fewer_nodes, fewer_devices].into_iter().flatten().collect()
}
