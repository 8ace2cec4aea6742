//! One row, made anew by an agent of this site: the one that shall hold it or, for an outside node, one that has a row of the
//! extent already.

use std::time::Duration;

use diptych_core::ids::{DeviceId, NodeName, Row, SiteName};
use diptych_core::placement::PlacementMap;
use diptych_core::records::PlacedRow;
use diptych_wire::agent::{FarNode, Rebuild, Source};

use super::too_few;
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::place::Place;
use crate::survey::Need;

/// Longest time for one row: 16 MiB at a slow disk's pace, from slow neighbours.
const REBUILD_LIMIT: Duration = Duration::from_mins(2);

/// Makes `row` of what `need` names on `device` of `place`; sources that lied.
pub(super) async fn rebuild(
    context: &SiteContext,
    place: &Place,
    need: &Need,
    row: Row,
    device: DeviceId,
) -> Result<(PlacedRow, Vec<Source>), SiteError> {
    let here = context.here();
    let asked = if place.is_outside() { any_holder(need, row)? } else { device };
    let agent = here.agent_of(asked)?;
    let command = Rebuild {
        stamp: place.stamp,
        map_generation: here.map.generation,
        extent: need.facts.clone(),
        row,
        device,
        far: place.is_outside().then(|| far_node(place, device)).transpose()?,
        sources: sources(context, &here, need, (row, asked)),
        budget: None,
    };
    // FENCING: the agent answers only after it has read the row back from its device, not from its cache.
    let rebuilt = agent.rebuild(&command, REBUILD_LIMIT).await?;
    for liar in &rebuilt.liars {
        tracing::error!(site = %context.site, extent = %need.facts.extent, ?liar, "a row is wrong although its checksums are right");
    }
    Ok((PlacedRow { row, device, instance: rebuilt.instance }, rebuilt.liars))
}

/// A device of this site that has a row of the extent, another for each row that is made.
fn any_holder(need: &Need, row: Row) -> Result<DeviceId, SiteError> {
    let turn = usize::from(row.0).checked_rem(need.readable.len()).ok_or_else(|| too_few(need))?;
    Ok(need.readable[turn].device)
}

/// The agent that has an outside device.
fn far_node(place: &Place, device: DeviceId) -> Result<FarNode, SiteError> {
    let unknown = || SiteError::UnknownNode(format!("of outside device {device}"));
    let (_, node, _) = place.map.find(device).ok_or_else(unknown)?;
    Ok(FarNode {
        address: node.address.clone(),
        site: place.name.clone(),
        node: node.name.clone(),
        map_generation: place.map.generation,
    })
}

/// Where rows can be read, as the agent of device `asked` reaches them: its own first, those outside last. An outside row that
/// moves is made from the site's rows: so it crosses once, not twice.
fn sources(context: &SiteContext, here: &Place, need: &Need, (row, asked): (Row, DeviceId)) -> Vec<Source> {
    let own_node = here.map.find(asked).map(|(_, node, _)| &node.name);
    let near = need.readable.iter().filter_map(|placed| source(&here.name, &here.map, placed, own_node));
    let mut sources: Vec<Source> = near.collect();
    // What lies on the same node needs no network.
    sources.sort_by_key(|source| source.address.is_some());
    let (outside, map) = (SiteName::outside(), context.outside.map.borrow().clone());
    let others = need.outside.iter().filter(|placed| placed.row != row);
    sources.extend(others.filter_map(|placed| source(&outside, &map, placed, None)));
    sources
}

fn source(
    site: &SiteName,
    map: &PlacementMap,
    placed: &PlacedRow,
    own_node: Option<&NodeName>,
) -> Option<Source> {
    let (_, node, _) = map.find(placed.device)?;
    Some(Source {
        address: (Some(&node.name) != own_node).then(|| node.address.clone()),
        site: site.clone(),
        node: node.name.clone(),
        device: placed.device,
        row: placed.row,
        instance: placed.instance,
    })
}
