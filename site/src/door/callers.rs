//! Who may ask at the door: processes of the other site, each with its role, whoever holds a token to join, and outside agents
//! whose certificate is to be renewed.

use axum::extract::FromRequestParts;
use axum::response::Response;
use diptych_core::ids::SiteName;
use diptych_wire::identity::{Identity, Role};
use http::StatusCode;
use http::request::Parts;

use super::{Door, refuse};

/// A caller of the other site, with one of the roles that may ask.
pub(super) struct FromPeer;

impl FromRequestParts<Door> for FromPeer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, door: &Door) -> Result<Self, Response> {
        caller(parts, &door.peer, &[Role::Gateway, Role::Operator, Role::Agent, Role::Peer])
            .map(|_| Self)
            .map_err(|refusal| *refusal)
    }
}

/// The keeper of the other site itself: what it orders in a drill takes this site out of service.
pub(super) struct FromKeeper;

impl FromRequestParts<Door> for FromKeeper {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, door: &Door) -> Result<Self, Response> {
        caller(parts, &door.peer, &[Role::Operator]).map(|_| Self).map_err(|refusal| *refusal)
    }
}

/// Name of the token of a site that is to join: it may ask for that and nothing else.
pub(super) struct JoinToken(pub(super) String);

impl FromRequestParts<Door> for JoinToken {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, door: &Door) -> Result<Self, Response> {
        caller(parts, &door.peer, &[Role::Join])
            .map(|identity| Self(identity.name.clone()))
            .map_err(|refusal| *refusal)
    }
}

/// Name of the token of an outside node that is to join: it may ask for that and nothing else.
pub(super) struct OutsideToken(pub(super) String);

impl FromRequestParts<Door> for OutsideToken {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &Door) -> Result<Self, Response> {
        caller(parts, &SiteName::outside(), &[Role::Join])
            .map(|identity| Self(identity.name.clone()))
            .map_err(|refusal| *refusal)
    }
}

/// Name of an outside node whose agent has a certificate: it may ask for the next one and nothing else.
pub(super) struct OutsideAgent(pub(super) String);

impl FromRequestParts<Door> for OutsideAgent {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &Door) -> Result<Self, Response> {
        caller(parts, &SiteName::outside(), &[Role::Agent])
            .map(|identity| Self(identity.name.clone()))
            .map_err(|refusal| *refusal)
    }
}

/// The caller, if it is of this place and has one of these roles.
fn caller<'a>(parts: &'a Parts, place: &SiteName, roles: &[Role]) -> Result<&'a Identity, Box<Response>> {
    let identity = parts.extensions.get::<Identity>();
    if let Some(identity) = identity
        && identity.site == *place
        && roles.contains(&identity.role)
    {
        return Ok(identity);
    }
    let who = identity.map_or_else(|| "nobody".to_owned(), ToString::to_string);
    tracing::warn!(who, path = parts.uri.path(), "denied at the peer door");
    let text = format!("{who} may not ask here: only site {place} may");
    Err(Box::new(refuse(StatusCode::FORBIDDEN, text)))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use diptych_core::ids::ExtentId;
    use diptych_wire::peer::{DRILL, EXTENTS, JOIN, JOIN_OUTSIDE, RENEW_OUTSIDE};
    use tower::ServiceExt;

    use super::*;
    use crate::door::router;
    use crate::testing::{CLUSTER, west, willing};

    /// The door of `west`, whose other site is `east`; the folder holds its catalog.
    fn door() -> (axum::Router, tempfile::TempDir) {
        let (context, folder) = west();
        let door = router(willing(context.catalog, "east", None));
        (door, folder)
    }

    /// What is answered to one that asks a path.
    async fn asked(door: &axum::Router, path: &str, site: &str, role: Role) -> StatusCode {
        let site = site.parse().expect("a name");
        let identity = Identity { cluster: CLUSTER, site, role, name: "any".to_owned() };
        let mut request = http::Request::post(path).body(Body::empty()).expect("a request");
        request.extensions_mut().insert(identity);
        door.clone().oneshot(request).await.expect("an answer").status()
    }

    #[tokio::test]
    async fn a_token_of_an_outside_node_joins_and_nothing_else_and_an_outside_agent_only_asks_to_be_renewed()
    {
        let (door, _folder) = door();
        assert_eq!(asked(&door, JOIN_OUTSIDE, "outside", Role::Join).await, StatusCode::OK);
        for path in [JOIN, DRILL, RENEW_OUTSIDE] {
            assert_eq!(asked(&door, path, "outside", Role::Join).await, StatusCode::FORBIDDEN, "{path}");
        }
        assert_eq!(asked(&door, RENEW_OUTSIDE, "outside", Role::Agent).await, StatusCode::OK);
        assert_eq!(asked(&door, RENEW_OUTSIDE, "east", Role::Agent).await, StatusCode::FORBIDDEN);
        assert_eq!(asked(&door, JOIN_OUTSIDE, "outside", Role::Agent).await, StatusCode::FORBIDDEN);
        assert_eq!(asked(&door, JOIN_OUTSIDE, "east", Role::Join).await, StatusCode::FORBIDDEN);
        let extent = format!("{EXTENTS}/{}", ExtentId([1; 16]));
        let mut request = http::Request::get(extent).body(Body::empty()).expect("a request");
        let site = SiteName::outside();
        request.extensions_mut().insert(Identity {
            cluster: CLUSTER,
            site,
            role: Role::Agent,
            name: "o1".to_owned(),
        });
        let answer = door.oneshot(request).await.expect("an answer").status();
        assert_eq!(answer, StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn only_the_keeper_of_the_other_site_orders_a_drill() {
        let (door, _folder) = door();
        let order = async |site: &str, role| asked(&door, DRILL, site, role).await;
        assert_eq!(order("east", Role::Operator).await, StatusCode::OK);
        for role in [Role::Gateway, Role::Agent, Role::Peer] {
            assert_eq!(order("east", role).await, StatusCode::FORBIDDEN, "{role:?}");
        }
        assert_eq!(order("west", Role::Operator).await, StatusCode::FORBIDDEN, "it is of this very site");
    }
}
