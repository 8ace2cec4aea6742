//! What the loss of a node does to a site of N nodes: how long repair takes.
//!
//! Extents are placed by `placement::place`, repaired by `repair::RepairQueue`, most urgent first, and paid for from the budget
//! `repair.lan`. A node is lost with all its bytes and comes back empty. The figures stand in docs/scale.md.
//!
//! `cargo run --release -p diptych-core --example scale`

#![expect(clippy::print_stdout, reason = "a person reads the tables")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diptych_core::ids::{DeviceId, ExtentId, Generation, NodeName, Row, SiteName};
use diptych_core::margin::{Margin, PlaceRows};
use diptych_core::placement::{
    MapDevice, MapDeviceState, MapNode, NodeState, PlacementMap, Promise, place, replace,
};
use diptych_core::planner::{SiteTopology, Survive, plan};
use diptych_core::repair::{Cause, Lane, Next, Repair, RepairPriority, RepairQueue, TokenBucket};

/// Extents that are placed; each stands for its share of the bytes of all of them.
const EXTENTS: u64 = 3_000;
const DEVICES: u32 = 4;
const TIB: f64 = (1_u64 << 40) as f64;
/// Bytes of rows on each node.
const NODE_BYTES: f64 = 8.0 * TIB;
const MIB: u64 = 1 << 20;
const HOUR: f64 = 3_600.0;

fn main() {
    println!(
        "seed {SEED}; {} TiB of rows a node, {DEVICES} devices a node, {EXTENTS} extents\n",
        NODE_BYTES / TIB
    );
    repair_times();
}

const SEED: u64 = 19;

/// The site after one node is lost, by how much repair may move a second.
fn repair_times() {
    println!("| nodes | k of f | 200 MiB/s in all: hours | 50 MiB/s a node: hours |");
    println!("|---|---|---|---|");
    for nodes in [3, 4, 6, 12, 24, 48, 96] {
        let fixed = Site::new(nodes, 200 * MIB);
        let (needed, rows) = (fixed.needed, fixed.rows);
        let grown = Site::new(nodes, 50 * MIB * u64::from(nodes));
        let one = |mut site: Site| {
            site.lose(0);
            site.repair_all() / HOUR
        };
        println!("| {nodes} | {needed} of {rows} | {:.1} | {:.1} |", one(fixed), one(grown));
    }
}

/// A site, its extents, and the clock of the simulation in seconds.
struct Site {
    name: SiteName,
    map: PlacementMap,
    needed: u8,
    rows: u8,
    placed: BTreeMap<ExtentId, Vec<(Row, DeviceId)>>,
    queue: RepairQueue,
    /// Bytes of a row of the bytes that an extent stands for.
    row_bytes: f64,
    now: f64,
}

impl Site {
    fn new(nodes: u32, budget: u64) -> Self {
        let name: SiteName = "east".parse().expect("a name");
        let topology = |site: &str| SiteTopology {
            site: site.parse().expect("a name"),
            nodes: vec![DEVICES; nodes as usize],
        };
        let survive = Survive { sites: 1, nodes: 1, devices: 1 };
        let plan = plan(survive, &[topology("east"), topology("west")]).expect("it can survive that");
        let (needed, rows) = (plan.needed, plan.rows_of(&name).expect("planned"));
        let map = map(nodes);
        let all: Vec<Row> = (0..rows).map(Row).collect();
        let mut random = Random(SEED);
        let placed = (0..EXTENTS).map(|_| {
            let extent = ExtentId(random.bytes());
            (extent, place(&map, Promise { needed, nodes: 1 }, extent, &all).expect("live devices").rows)
        });
        let placed = placed.collect();
        let budget = TokenBucket::new(budget, Duration::ZERO);
        let row_bytes = NODE_BYTES * f64::from(nodes) / (EXTENTS as f64 * f64::from(rows));
        let queue = RepairQueue::new(budget.clone(), budget);
        Self { name, map, needed, rows, placed, queue, row_bytes, now: 0.0 }
    }

    /// A node is gone with all that lay on it, and an empty one stands in its place at once.
    fn lose(&mut self, node: usize) {
        let devices: BTreeSet<DeviceId> =
            self.map.nodes[node].devices.iter().map(|device| device.id).collect();
        let mut hurt = Vec::new();
        for (extent, placed) in &mut self.placed {
            let before = placed.len();
            placed.retain(|(_, device)| !devices.contains(device));
            if placed.len() < before {
                hurt.push(*extent);
            }
        }
        for extent in hurt {
            self.ask_for(extent);
        }
    }

    fn ask_for(&mut self, extent: ExtentId) {
        let placed = self.placed[&extent].clone();
        let missing = usize::from(self.rows) - placed.len();
        let place = PlaceRows::from_map(self.name.clone(), self.rows, &self.map, placed);
        let margin = Margin::new(self.needed, &[place]);
        let priority = RepairPriority::new(Cause::Lacking, &margin, self.now as u64);
        // As repair counts them: k rows are read for each row that is made.
        let bytes = self.row_bytes * f64::from(self.needed) * missing as f64;
        self.queue.push(Repair { extent, priority, lane: Lane::Lan, bytes: bytes as u64 });
    }

    /// Repairs until `until`; false: nothing is left to do.
    fn repair(&mut self, until: f64) -> bool {
        loop {
            match self.queue.pop(Duration::from_secs_f64(self.now)) {
                Next::Start(repair) => self.make_rows(repair.extent),
                Next::WaitUntil(at) if at.as_secs_f64() <= until => self.now = at.as_secs_f64(),
                Next::WaitUntil(_) => {
                    self.now = until;
                    return true;
                }
                Next::Paused | Next::Idle => return false,
            }
        }
    }

    fn make_rows(&mut self, extent: ExtentId) {
        self.queue.finish(extent);
        let placed = self.placed.get_mut(&extent).expect("known");
        let there: BTreeSet<Row> = placed.iter().map(|(row, _)| *row).collect();
        let missing: Vec<Row> = (0..self.rows).map(Row).filter(|row| !there.contains(row)).collect();
        let made = replace(&self.map, Promise { needed: self.needed, nodes: 1 }, extent, placed, &missing)
            .expect("live devices");
        placed.extend(made.rows);
    }

    /// Seconds until all is whole.
    fn repair_all(&mut self) -> f64 {
        let begun = self.now;
        self.repair(f64::from(u32::MAX));
        self.now - begun
    }
}

fn map(nodes: u32) -> PlacementMap {
    let device = |id: u32| MapDevice { id: DeviceId(id), weight: 1, state: MapDeviceState::Live };
    let node = |number: u32| -> MapNode {
        let name: NodeName = format!("n{number}").parse().expect("a name");
        let devices = (0..DEVICES).map(|at| device(number * DEVICES + at)).collect();
        MapNode {
            name,
            address: String::new(),
            socket: None,
            state: NodeState::Live,
            domain: None,
            weight: None,
            distance: None,
            devices,
        }
    };
    PlacementMap { generation: Generation(1), nodes: (0..nodes).map(node).collect() }
}

/// SplitMix64: the same figures everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self) -> [u8; 16] {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes()
    }
}
