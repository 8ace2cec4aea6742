//! How many more losses an extent survives, and what to call its state.
//!
//! Any k rows from anywhere are enough, so what counts is how many rows are left when the fullest nodes, devices or the
//! worse site go. Only rows that can be read are counted, each once; outside rows count for the margin, never for what was
//! declared.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{DeviceId, Row, SiteName};
use crate::placement::PlacementMap;
use crate::planner::Survive;

/// The rows of an extent that can be read in one place: a site, or outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceRows {
    /// Name of the site, or `outside`.
    pub place: SiteName,
    /// f of the extent's coding in this site. Outside: 0, its rows are margin only.
    pub expected: u8,
    /// The rows.
    pub present: Vec<PresentRow>,
}

/// A row that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentRow {
    /// The row.
    pub row: Row,
    /// Its device.
    pub device: DeviceId,
    /// Number of the node in its place: all rows with the same number fall together.
    pub node: usize,
}

impl PlaceRows {
    /// The rows of `placement` that lie on devices which the map knows and which are not dead.
    pub fn from_map(
        place: SiteName,
        expected: u8,
        map: &PlacementMap,
        placement: impl IntoIterator<Item = (Row, DeviceId)>,
    ) -> Self {
        let find = |(row, id): (Row, DeviceId)| {
            let (node, map_node, device) = map.find(id)?;
            map_node.readable(device).then_some(PresentRow { row, device: id, node })
        };
        Self { place, expected, present: placement.into_iter().filter_map(find).collect() }
    }

    fn is_site(&self) -> bool {
        self.place != SiteName::outside()
    }

    /// How many rows there are, a row that lies twice counted once.
    fn count(&self) -> usize {
        self.present.iter().map(|row| row.row).collect::<BTreeSet<_>>().len()
    }

    /// Rows that were made for this site and can't be read.
    fn missing(&self) -> usize {
        usize::from(self.expected).saturating_sub(self.count())
    }
}

/// How many more losses of one kind are survived, whichever they are; of one kind at a time. Ordered by what is lost
/// as a whole: nodes, then devices, then rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Further {
    /// Nodes.
    pub nodes: u32,
    /// Devices.
    pub devices: u32,
    /// Fragments: rows more than k.
    pub fragments: u32,
}

/// How many more losses an extent survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Margin {
    /// Rows that can be read, anywhere.
    pub present: u32,
    /// k.
    pub needed: u8,
    /// As it stands; none: it is unrecoverable.
    pub now: Option<Further>,
    /// After the loss of the site whose loss hurts most; none: that loss loses the extent.
    pub after_a_site: Option<Further>,
}

/// The state of an extent, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Whole, and survives what was declared.
    Healthy,
    /// Whole, and survives less than was declared: there are too few live nodes or devices.
    Crowded,
    /// Rows are missing; each site has k.
    Degraded,
    /// The loss of one site would lose it, although that was to be survived.
    Exposed,
    /// Fewer than k rows are left anywhere.
    Unrecoverable,
}

impl Class {
    /// Label of metrics and status, in lower case.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Crowded => "crowded",
            Self::Degraded => "degraded",
            Self::Exposed => "exposed",
            Self::Unrecoverable => "unrecoverable",
        }
    }
}

impl Margin {
    /// Of rows in these places; `needed` is k.
    pub fn new(needed: u8, places: &[PlaceRows]) -> Self {
        let all: Vec<&PlaceRows> = places.iter().collect();
        let without = |lost: &PlaceRows| places.iter().filter(|&place| place != lost).collect::<Vec<_>>();
        let sites = places.iter().filter(|place| place.is_site());
        Self {
            present: distinct_rows(&all) as u32,
            needed,
            now: further(needed, &all),
            after_a_site: sites.map(|site| further(needed, &without(site))).min().flatten(),
        }
    }

    /// Further losses of fragments; below zero: so many are lacking.
    pub fn fragments(&self) -> i64 {
        i64::from(self.present) - i64::from(self.needed)
    }

    /// Further losses of sites: 1, or 0.
    pub fn sites(&self) -> u32 {
        u32::from(self.after_a_site.is_some())
    }
}

/// The state of an extent with k = `needed`, of which `survive` is expected.
pub fn classify(survive: Survive, needed: u8, places: &[PlaceRows]) -> Class {
    let margin = Margin::new(needed, places);
    let mut sites = places.iter().filter(|place| place.is_site());
    let keeps_declared = |site: &PlaceRows| {
        let alone = further(needed, &[site]);
        alone.is_some_and(|further| further.nodes >= survive.nodes && further.devices >= survive.devices)
    };
    if margin.now.is_none() {
        Class::Unrecoverable
    } else if survive.sites > 0 && margin.after_a_site.is_none() {
        Class::Exposed
    } else if sites.clone().any(|site| site.missing() > 0) {
        Class::Degraded
    } else if sites.all(keeps_declared) {
        Class::Healthy
    } else {
        Class::Crowded
    }
}

fn distinct_rows(places: &[&PlaceRows]) -> usize {
    places.iter().flat_map(|place| &place.present).map(|row| row.row).collect::<BTreeSet<_>>().len()
}

/// What `places` survive together; none where k rows are not there.
fn further(needed: u8, places: &[&PlaceRows]) -> Option<Further> {
    let spare = (distinct_rows(places)).checked_sub(usize::from(needed))?;
    let mut nodes: BTreeMap<(&SiteName, usize), BTreeSet<Row>> = BTreeMap::new();
    let mut devices: BTreeMap<(&SiteName, DeviceId), BTreeSet<Row>> = BTreeMap::new();
    for place in places {
        for row in &place.present {
            nodes.entry((&place.place, row.node)).or_default().insert(row.row);
            devices.entry((&place.place, row.device)).or_default().insert(row.row);
        }
    }
    Some(Further {
        nodes: survived(nodes.values().map(BTreeSet::len), spare),
        devices: survived(devices.values().map(BTreeSet::len), spare),
        fragments: spare as u32,
    })
}

/// How many of the fullest groups can go before more than `spare` rows are gone. A row that lies in two groups is
/// taken for lost with the first: the margin is never said to be more than it is.
fn survived(groups: impl Iterator<Item = usize>, spare: usize) -> u32 {
    let mut groups: Vec<usize> = groups.collect();
    groups.sort_unstable_by(|a, b| b.cmp(a));
    let gone = groups.iter().scan(0, |gone, rows| {
        *gone += rows;
        Some(*gone)
    });
    gone.take_while(|&gone| gone <= spare).count() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> SiteName {
        text.parse().expect("a name")
    }

    /// So many rows on each node, a device a row.
    fn place(site: &str, expected: u8, first: u8, per_node: &[u8]) -> PlaceRows {
        let nodes = per_node.iter().enumerate().flat_map(|(node, &rows)| (0..rows).map(move |_| node));
        let present = nodes.enumerate().map(|(index, node)| PresentRow {
            row: Row(first + index as u8),
            device: DeviceId(index as u32),
            node,
        });
        PlaceRows { place: name(site), expected, present: present.collect() }
    }

    fn east(per_node: &[u8]) -> PlaceRows {
        place("east", 6, 0, per_node)
    }

    fn west(per_node: &[u8]) -> PlaceRows {
        place("west", 6, 6, per_node)
    }

    fn class(places: &[PlaceRows]) -> Class {
        classify(Survive::default(), 4, places)
    }

    #[test]
    fn each_state_has_its_name() {
        assert_eq!(class(&[east(&[2, 2, 2]), west(&[2, 2, 2])]), Class::Healthy);
        assert_eq!(class(&[east(&[3, 3]), west(&[2, 2, 2])]), Class::Crowded);
        assert_eq!(class(&[east(&[2, 2, 1]), west(&[2, 2, 2])]), Class::Degraded);
        assert_eq!(class(&[east(&[2, 2, 2]), west(&[])]), Class::Exposed);
        assert_eq!(class(&[east(&[2, 1]), west(&[2, 2, 2])]), Class::Exposed);
        assert_eq!(class(&[east(&[2, 1]), west(&[])]), Class::Unrecoverable);
    }

    #[test]
    fn one_site_alone_is_not_exposed() {
        let survive = Survive { sites: 0, ..Survive::default() };
        assert_eq!(classify(survive, 4, &[east(&[2, 2, 2])]), Class::Healthy);
        assert_eq!(classify(survive, 4, &[east(&[2, 2])]), Class::Degraded);
    }

    #[test]
    fn rows_of_both_sites_together_are_not_unrecoverable() {
        let margin = Margin::new(4, &[east(&[2]), west(&[2])]);
        assert_eq!(margin.now, Some(Further { nodes: 0, devices: 0, fragments: 0 }));
        assert_eq!((margin.sites(), margin.fragments()), (0, 0));
    }

    #[test]
    fn the_margin_counts_fragments_devices_nodes_and_sites() {
        let margin = Margin::new(4, &[east(&[2, 2, 2]), west(&[2, 2, 2])]);
        assert_eq!((margin.fragments(), margin.sites()), (8, 1));
        assert_eq!(margin.now, Some(Further { nodes: 4, devices: 8, fragments: 8 }));
        assert_eq!(margin.after_a_site, Some(Further { nodes: 1, devices: 2, fragments: 2 }));
    }

    #[test]
    fn outside_rows_are_margin_and_never_make_a_site_whole() {
        let outside = PlaceRows { place: SiteName::outside(), ..place("outside", 0, 12, &[1, 1]) };
        let with = [east(&[2, 1]), west(&[2, 2, 2]), outside];
        assert_eq!(Margin::new(4, &with).sites(), 1);
        assert_eq!(class(&with), Class::Degraded);
        assert_eq!(class(&with[..2]), Class::Exposed);
    }

    #[test]
    fn a_row_that_lies_twice_counts_once() {
        let mut twice = east(&[2, 2, 2]);
        twice.present[5].row = Row(0);
        assert_eq!(Margin::new(4, &[twice.clone()]).present, 5);
        assert_eq!(class(&[twice, west(&[2, 2, 2])]), Class::Degraded);
    }

    fn rows(first: u8) -> impl Strategy<Value = Vec<PresentRow>> {
        let row = move |(index, (node, device)): (usize, (usize, u32))| PresentRow {
            row: Row(first + index as u8),
            device: DeviceId(node as u32 * 10 + device),
            node,
        };
        prop::collection::vec((0_usize..3, 0_u32..2), 0..6)
            .prop_map(move |places| places.into_iter().enumerate().map(row).collect())
    }

    /// The most groups of which every choice can be lost, by trying every set.
    fn tried<K: Ord + Clone>(rows: &[K], needed: usize) -> Option<u32> {
        let groups: Vec<K> = rows.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let left = |set: u32| {
            rows.iter()
                .filter(|&group| {
                    let index = groups.iter().position(|other| other == group).expect("it is one of them");
                    set & (1 << index) == 0
                })
                .count()
        };
        let fatal = (0..1_u32 << groups.len()).filter(|&set| left(set) < needed).map(u32::count_ones).min();
        fatal?.checked_sub(1)
    }

    proptest! {
        #[test]
        fn the_margin_is_what_trying_every_loss_says(first in rows(0), second in rows(6), needed in 1_u8..5) {
            let sites = [
                PlaceRows { place: name("east"), expected: 6, present: first.clone() },
                PlaceRows { place: name("west"), expected: 6, present: second.clone() },
            ];
            let margin = Margin::new(needed, &sites);
            let needed = usize::from(needed);
            let nodes = |rows: &[PresentRow], site: usize| rows.iter().map(|row| (site, row.node)).collect::<Vec<_>>();
            let devices = |rows: &[PresentRow], site: usize| rows.iter().map(|row| (site, row.device)).collect::<Vec<_>>();
            let all_nodes = [nodes(&first, 0), nodes(&second, 1)].concat();
            let all_devices = [devices(&first, 0), devices(&second, 1)].concat();
            prop_assert_eq!(margin.now.map(|now| now.nodes), tried(&all_nodes, needed));
            prop_assert_eq!(margin.now.map(|now| now.devices), tried(&all_devices, needed));
            let alone = |rows: &[PresentRow]| tried(&nodes(rows, 0), needed);
            prop_assert_eq!(margin.after_a_site.map(|after| after.nodes), alone(&first).min(alone(&second)));
        }
    }
}
