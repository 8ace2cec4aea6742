use proptest::prelude::*;

use super::*;

fn site(name: &str, nodes: &[u32]) -> SiteTopology {
    SiteTopology { site: name.parse().expect("a name"), nodes: nodes.to_vec() }
}

fn alone(nodes: &[u32], survive_nodes: u32) -> Plan {
    let survive = Survive { sites: 0, nodes: survive_nodes, devices: 1 };
    plan(survive, &[site("east", nodes)]).expect("it can be planned")
}

fn refused(survive: Survive, sites: &[SiteTopology]) -> String {
    plan(survive, sites).expect_err("it can't survive").to_string()
}

#[test]
fn the_worked_examples_of_the_design_come_out() {
    for (nodes, lost, needed, rows) in [
        (&[2, 2, 2][..], 1, 4, 6),
        (&[2, 2], 1, 2, 4),
        (&[2], 0, 1, 2),
        (&[2, 2, 2, 2], 1, 4, 6),
        (&[2, 2, 2, 2, 2], 1, 6, 8),
        (&[2; 10], 1, 8, 9),
        (&[1, 1, 1, 1], 2, 1, 3),
    ] {
        let plan = alone(nodes, lost);
        assert_eq!((plan.needed, plan.rows[0].1), (needed, rows), "{nodes:?}, {lost} nodes lost");
    }
}

#[test]
fn both_sites_get_one_k_and_their_own_rows() {
    let plan = plan(Survive::default(), &[site("east", &[2; 3]), site("west", &[2; 5])]).expect("it fits");
    assert_eq!(plan.to_string(), "4 of 6 in east, 4 of 6 in west, 3.00 times the bytes");
    let uneven =
        super::plan(Survive::default(), &[site("east", &[2; 2]), site("west", &[1; 6])]).expect("it fits");
    assert_eq!(uneven.to_string(), "2 of 4 in east, 2 of 3 in west, 3.50 times the bytes");
}

#[test]
fn a_refusal_shows_the_sum_and_what_would_do() {
    let sites = [site("east", &[2, 2, 2]), site("west", &[2])];
    assert_eq!(
        refused(Survive::default(), &sites),
        "survive {sites: 1, nodes: 1, devices: 1} can't be met; west: of 1 nodes 0 are kept spare; at best 2 rows lie 2, \
         1 nodes take 2 of them, 1 devices take 1, 0 are left and 1 is needed at least \
         (what would do: 1 more node with 2 devices, or survive.nodes: 0)"
    );
}

#[test]
fn a_spare_that_is_missing_for_three_lost_of_four_is_named() {
    let survive = Survive { sites: 0, nodes: 3, devices: 1 };
    let refusal = refused(survive, &[site("east", &[2; 4])]);
    assert!(
        refusal.contains("of 4 nodes 1 are kept spare; at best 6 rows lie 2+2+2, 3 nodes take 6"),
        "{refusal}"
    );
    assert!(refusal.contains("1 more node with 2 devices, or survive.nodes: 2"), "{refusal}");
}

#[test]
fn one_site_cannot_survive_itself_and_two_can_lose_only_one() {
    let east = site("east", &[2, 2]);
    let refusal = refused(Survive::default(), std::slice::from_ref(&east));
    assert!(refusal.contains("east is the only site"), "{refusal}");
    let both = Survive { sites: 2, ..Survive::default() };
    assert!(refused(both, &[east.clone(), site("west", &[2, 2])]).contains("survive.sites is 2"));
    assert!(
        refused(Survive::default(), &[east, site("west", &[0, 0])])
            .contains("west declares no node with a device")
    );
    assert_eq!(plan(Survive::default(), &[]), Err(Refusal::NoSite));
}

#[test]
fn absurd_numbers_are_refused_quickly() {
    let survive = Survive { sites: 0, nodes: u32::MAX, devices: u32::MAX };
    let refusal = refused(survive, &[site("east", &[u32::MAX; 3])]);
    assert!(refusal.contains("0 are left"), "{refusal}");
}

#[test]
fn level_nodes_follow_the_formula_of_the_design() {
    for (nodes, lost, rows) in cases(1..=6, 0..=4, 1..=24) {
        let survive = Survive { sites: 0, nodes: lost, devices: 1 };
        let laid = lay(survive, &vec![4; nodes as usize]);
        let Some(laid) = laid.get(rows as usize - 1) else { continue };
        let formula = (lost * (rows / nodes) + lost.min(rows % nodes)).min(rows);
        assert_eq!(laid.taken_by_nodes, formula, "{rows} rows on {nodes} nodes, {lost} lost");
    }
}

fn cases(
    nodes: std::ops::RangeInclusive<u32>,
    lost: std::ops::RangeInclusive<u32>,
    rows: std::ops::RangeInclusive<u32>,
) -> impl Iterator<Item = (u32, u32, u32)> {
    nodes.flat_map(move |nodes| {
        let rows = rows.clone();
        lost.clone().flat_map(move |lost| rows.clone().map(move |rows| (nodes, lost, rows)))
    })
}

// ---- the oracle: every set of lost nodes, every set of lost devices ----

/// Every way to lay `rows` over nodes with so many devices.
fn layouts(capacities: &[u32], rows: u32) -> Vec<Vec<u32>> {
    match capacities.split_first() {
        None if rows == 0 => vec![vec![]],
        None => vec![],
        Some((&first, rest)) => (0..=first.min(rows))
            .flat_map(|here| {
                layouts(rest, rows - here).into_iter().map(move |rest| [vec![here], rest].concat())
            })
            .collect(),
    }
}

fn is_level(layout: &[u32], capacities: &[u32]) -> bool {
    layout.iter().all(|&full| {
        (0..layout.len()).all(|node| full <= layout[node] + 1 || layout[node] == capacities[node])
    })
}

/// Rows left after the worst set of `lost` of these groups, by trying every set.
fn left_at_worst(groups: &[u32], lost: u32) -> u32 {
    (0..1_u32 << groups.len())
        .filter(|set| set.count_ones() == lost.min(groups.len() as u32))
        .map(|set| {
            (0..groups.len()).filter(|&group| set & (1 << group) == 0).map(|group| groups[group]).sum()
        })
        .min()
        .unwrap_or(0)
}

/// Rows left of a layout after any declared loss; a device holds a row.
fn survives(layout: &[u32], survive: Survive) -> u32 {
    let devices = vec![1; layout.iter().sum::<u32>() as usize];
    left_at_worst(layout, survive.nodes).min(left_at_worst(&devices, survive.devices))
}

/// The nodes of the sum: all, or all but each one in turn where one is spare.
fn sums(capacities: &[u32], survive: Survive) -> Vec<Vec<u32>> {
    if capacities.len() < 4 || survive.nodes == 0 {
        return vec![capacities.to_vec()];
    }
    (0..capacities.len())
        .map(|dead| {
            capacities
                .iter()
                .enumerate()
                .filter(|(node, _)| *node != dead)
                .map(|(_, &devices)| devices)
                .collect()
        })
        .collect()
}

/// Most rows that are left of f, with the best layout on the worst choice of the spare.
fn left_of(capacities: &[u32], survive: Survive, rows: u32) -> Option<u32> {
    sums(capacities, survive)
        .iter()
        .map(|nodes| layouts(nodes, rows).iter().map(|layout| survives(layout, survive)).max())
        .min()
        .flatten()
}

fn topology() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(1_u32..=3, 1..=5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Each level layout, on all nodes and on those that are left when any one died for good, keeps k rows.
    #[test]
    fn a_plan_survives_every_declared_loss(east in topology(), west in topology(), nodes in 0_u32..=2, devices in 0_u32..=2) {
        let survive = Survive { sites: 1, nodes, devices };
        let sites = [site("east", &east), site("west", &west)];
        let Ok(plan) = plan(survive, &sites) else { return Ok(()) };
        prop_assert!(plan.needed <= MAX_NEEDED);
        for (capacities, (_, rows)) in [&east, &west].into_iter().zip(&plan.rows) {
            prop_assert!(*rows >= plan.needed);
            let mut alive = sums(capacities, survive);
            alive.push(capacities.clone());
            for nodes in alive {
                let laid = layouts(&nodes, u32::from(*rows));
                let level: Vec<_> = laid.iter().filter(|layout| is_level(layout, &nodes)).collect();
                prop_assert!(!level.is_empty(), "{rows} rows do not fit on {nodes:?}");
                for layout in level {
                    prop_assert!(survives(layout, survive) >= u32::from(plan.needed), "{plan} on {layout:?}");
                }
            }
        }
    }

    /// No other (k, f) that survives is cheaper, by any layout; what is refused has none.
    #[test]
    fn no_coding_that_survives_is_cheaper(capacities in topology(), nodes in 0_u32..=2, devices in 0_u32..=2) {
        let survive = Survive { sites: 0, nodes, devices };
        let most = capacities.iter().sum::<u32>();
        let best = (1..=most)
            .filter_map(|rows| left_of(&capacities, survive, rows).map(|left| (rows, left)))
            .filter(|&(_, left)| left > 0)
            .map(|(rows, left)| f64::from(rows) / f64::from(left.min(16)))
            .min_by(f64::total_cmp);
        match (plan(survive, &[site("east", &capacities)]), best) {
            (Ok(plan), Some(best)) => prop_assert!((plan.overhead() - best).abs() < 1e-9, "{plan}, but {best} would do"),
            (Err(_), None) => {}
            (planned, best) => prop_assert!(false, "{planned:?}, but the oracle says {best:?}"),
        }
    }
}
