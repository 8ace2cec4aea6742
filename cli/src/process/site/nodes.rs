//! `/api/v1/nodes/<node>/drain`: what a person wants emptied, where no StorageNode says it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use diptych_core::ids::{Epoch, NodeName, SiteName};
use diptych_core::placement::{MapNode, NodeState, PlacementMap};
use diptych_core::records::Drain;
use diptych_site::context::SiteContext;
use diptych_site::drain;
use http::StatusCode;
use serde_json::json;

use super::rest::{refuse, unavailable};

/// Behind the same tokens as the files.
pub(super) fn router(context: Arc<SiteContext>) -> Router {
    Router::new().route("/api/v1/nodes/{node}/drain", post(begin).delete(take_back)).with_state(context)
}

/// Where a node is, and by which right it is written of.
struct Found {
    place: SiteName,
    node: MapNode,
    epoch: Option<Epoch>,
}

/// A node of this site or, while it is active, one outside.
fn find(context: &SiteContext, name: &str) -> Result<Found, Box<Response>> {
    let of = |map: &PlacementMap| map.nodes.iter().find(|node| node.name.as_str() == name).cloned();
    let here = context.map();
    if let Some(node) = of(&here) {
        return Ok(Found { place: context.site.clone(), node, epoch: None });
    }
    let outside = context.outside_nodes();
    if let Some(outside) = &outside
        && let Some(node) = of(&outside.map)
    {
        return Ok(Found { place: outside.name.clone(), node, epoch: outside.epoch });
    }
    let maps = std::iter::once(&here).chain(outside.as_ref().map(|outside| &outside.map));
    let known: Vec<&str> = maps.flat_map(|map| &map.nodes).map(|node| node.name.as_str()).collect();
    let message = format!("{name} is no node of {}: there are {}", context.site, known.join(", "));
    Err(Box::new(refuse(StatusCode::NOT_FOUND, "NoSuchNode", message)))
}

async fn begin(State(context): State<Arc<SiteContext>>, Path(name): Path<String>, body: Bytes) -> Response {
    let wanted: Drain = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => {
            let message = format!("the body is no {{\"devices\": […]}}: {error}");
            return refuse(StatusCode::BAD_REQUEST, "InvalidDrain", message);
        }
    };
    let found = match find(&context, &name) {
        Ok(found) => found,
        Err(refused) => return *refused,
    };
    if found.node.state == NodeState::Dead {
        let message = format!(
            "{name} is dead: its rows are made anew elsewhere, and nothing is asked of it. Take it away when nothing is degraded"
        );
        return refuse(StatusCode::CONFLICT, "NodeDead", message);
    }
    let devices: Vec<u32> = found.node.devices.iter().map(|device| device.id.0).collect();
    if let Some(unknown) = wanted.devices.iter().find(|device| !devices.contains(&device.0)) {
        let message = format!("{name} has no device {unknown}: it has {devices:?}");
        return refuse(StatusCode::NOT_FOUND, "NoSuchDevice", message);
    }
    write(&context, &found, Some(&wanted)).await
}

async fn take_back(State(context): State<Arc<SiteContext>>, Path(name): Path<String>) -> Response {
    match find(&context, &name) {
        Ok(found) => write(&context, &found, None).await,
        Err(refused) => *refused,
    }
}

async fn write(context: &SiteContext, found: &Found, wanted: Option<&Drain>) -> Response {
    let Found { place, node, epoch } = found;
    let name: &NodeName = &node.name;
    match drain::ask(context.catalog.as_ref(), place, name, wanted, *epoch).await {
        Ok(_) => Json(json!({"node": name, "drain": wanted})).into_response(),
        Err(error) => unavailable(error),
    }
}
