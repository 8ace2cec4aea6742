//! What is to be made now, and what is waited for. Nothing is asked here, nothing is done.

use diptych_api::StorageNode;
use diptych_core::planner;
use diptych_wire::authority::Authority;

use super::build;
use super::{Declared, Invalid, Observed, joins};
use crate::apply::Child;
use crate::error::OperatorError;
use crate::issuer;
use crate::names::Names;
use crate::node;
use crate::options::OperatorOptions;
use crate::secrets::{self, Certificate, Foundation, SignedBy, random_text};

/// Why a site does not run yet, or not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// Agents are not all registered.
    Nodes {
        /// Registered ones.
        registered: usize,
        /// Nodes that shall have one; None: not known yet.
        scheduled: Option<i32>,
    },
    /// The catalog's members.
    Catalog(super::Ready),
    /// A name that does not resolve.
    Name(&'static str),
    /// The gateways.
    Gateways(super::Ready),
    /// The keeper has said nothing yet.
    Keeper,
    /// The other site has not let this one join yet: why.
    Join(String),
}

impl Waiting {
    /// For the condition.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Nodes { .. } => "WaitingForNodes",
            Self::Catalog(_) => "WaitingForCatalog",
            Self::Name(_) => "WaitingForName",
            Self::Gateways(_) => "WaitingForGateways",
            Self::Keeper => "WaitingForKeeper",
            Self::Join(_) => "WaitingForJoin",
        }
    }

    /// For a person.
    pub fn message(&self) -> String {
        match self {
            Self::Nodes { registered, scheduled: None } => {
                format!("{registered} nodes are registered; the DaemonSet has not said how many there shall be")
            }
            Self::Nodes { scheduled: Some(0), .. } => {
                "no node fits nodeAgents.nodeSelector and nodeAgents.tolerations: change them, or label a node".to_owned()
            }
            Self::Nodes { registered, scheduled: Some(wanted) } => {
                format!("{registered} of {wanted} nodes are registered")
            }
            Self::Catalog(ready) => format!("{} of {} members of the catalog are ready", ready.ready, ready.wanted),
            Self::Name(field) => format!("the name in spec.{field} does not resolve"),
            Self::Gateways(ready) => format!("{} of {} gateways are ready", ready.ready, ready.wanted),
            Self::Keeper => "the site's keeper has written no status yet".to_owned(),
            Self::Join(reason) => format!("this site has not joined the other one yet: {reason}"),
        }
    }
}

/// What is to be made, and what is to be said.
#[derive(Debug, Default)]
pub struct Plan {
    /// In order.
    pub children: Vec<Child>,
    /// Why it is not done yet.
    pub waiting: Option<Waiting>,
    /// A spec that can't be carried out: reason and sentence.
    pub refused: Option<(&'static str, String)>,
    /// The coding that follows from what is declared.
    pub coding: Option<planner::Plan>,
    /// What is asked of the issuer that is declared.
    pub issued: Option<issuer::Planned>,
}

impl Plan {
    /// Of a spec that can't be carried out: nothing is made, nothing is taken away.
    pub fn refused(invalid: &Invalid) -> Self {
        Self { refused: Some((invalid.reason(), invalid.to_string())), ..Self::default() }
    }
}

/// Everything that can be made with what is known.
///
/// # Errors
/// A Secret of ours that does not read: it is never made anew, bytes may hang on it.
pub fn plan(
    names: &Names,
    options: &OperatorOptions,
    declared: &Declared,
    seen: &Observed,
) -> Result<Plan, OperatorError> {
    let mut made = Plan::default();
    let foundation = match lay_foundation(names, declared, seen, &mut made)? {
        Ok(foundation) => foundation,
        Err(waiting) => {
            made.waiting = Some(waiting);
            return Ok(made);
        }
    };
    let internal = internal(names, seen, &mut made.children)?;
    let spec = &seen.cluster.spec;
    made.children.extend(build::catalog(names, &options.images, spec, &foundation)?);
    made.children.push(build::agents(names, &options.images, spec, declared.scrub_every)?);

    let (nodes, registered) = node::register(names, spec, &seen.agents, &seen.nodes)?;
    made.children.extend(registered);
    for node in &nodes {
        let pod = seen.agents.iter().find(|pod| pod.node == node.spec.node);
        made.children.extend(build::node_service(names, node, pod)?);
    }
    made.children.extend(build::outside_tokens(names, declared, &foundation, seen)?);
    // The plan counts what is declared: a dead node stays, one that was never there does not come in by itself.
    let complete = seen.scheduled.is_some_and(|wanted| wanted > 0 && nodes.len() >= wanted as usize);
    let runs = seen.secrets.contains_key(&names.child("site"));
    if !complete && !runs {
        made.waiting = Some(Waiting::Nodes { registered: nodes.len(), scheduled: seen.scheduled });
        return Ok(made);
    }
    match planner::plan(declared.survive, &declared.topology(devices_by_node(&nodes))) {
        Ok(coding) => made.coding = Some(coding),
        Err(refusal) => {
            made.refused = Some(("CannotSurvive", refusal.to_string()));
            return Ok(made);
        }
    }
    match build::pod_config(names, declared, &foundation, &internal, seen, &nodes) {
        Ok(config) => made.children.extend(build::gateways(names, &options.images, spec, &config)?),
        Err(waiting) => {
            made.waiting = Some(waiting);
            return Ok(made);
        }
    }
    made.waiting = unfinished(seen);
    Ok(made)
}

fn devices_by_node(nodes: &[StorageNode]) -> Vec<u32> {
    nodes.iter().map(|node| node.spec.devices.len() as u32).collect()
}

fn unfinished(seen: &Observed) -> Option<Waiting> {
    let catalog = seen.catalog.unwrap_or_default();
    let gateways = seen.gateways.unwrap_or_default();
    // A majority serves.
    if catalog.ready * 2 <= catalog.wanted || catalog.wanted == 0 {
        return Some(Waiting::Catalog(catalog));
    }
    if seen.site.as_ref().is_none_or(|site| site.status.is_none()) {
        return Some(Waiting::Keeper);
    }
    (gateways.ready == 0).then_some(Waiting::Gateways(gateways))
}

/// The installation's authority and id, and the certificates.
fn lay_foundation(
    names: &Names,
    declared: &Declared,
    seen: &Observed,
    made: &mut Plan,
) -> Result<Result<Foundation, Waiting>, OperatorError> {
    let name = names.child("authority");
    let foundation = match (seen.secrets.get(&name), &seen.joined) {
        (Some(secret), _) => Foundation::read(secret)?,
        (None, Some(Ok(joined))) => Foundation::joined(joined)?,
        (None, Some(Err(reason))) => return Ok(Err(Waiting::Join(reason.clone()))),
        (None, None) => Foundation::create()?,
    };
    if !seen.secrets.contains_key(&name) {
        made.children.push(foundation.secret(names)?);
    }
    if let Some(peer) = declared.peer.as_ref().filter(|_| !joins(&seen.cluster.spec))
        && !seen.secrets.contains_key(&names.child("join"))
    {
        made.children.push(foundation.join_token(names, &peer.site)?);
    }
    made.children.push(foundation.config_map(names)?);

    let name = names.child("catalog-authority");
    let of_catalog = match seen.secrets.get(&name) {
        Some(secret) => secrets::read_authority(secret)?,
        None => Authority::create(foundation.cluster)?,
    };
    if !seen.secrets.contains_key(&name) {
        made.children.push(secrets::authority_secret(&of_catalog, names, &name)?);
    }
    let hostname =
        declared.peer.as_ref().and_then(|peer| peer.name.as_ref()).map(|name| name.hostname.as_str());
    for certificate in secrets::certificates(names, foundation.cluster, &declared.site, hostname) {
        let authority = match certificate.signed_by {
            SignedBy::Cluster => &foundation.authority,
            SignedBy::Catalog => &of_catalog,
        };
        made.children.extend(signed(names, &certificate, authority, seen, &mut made.issued)?);
    }
    Ok(Ok(foundation))
}

/// The Secret of a certificate, where it is to be another one.
fn signed(
    names: &Names,
    certificate: &Certificate,
    authority: &Authority,
    seen: &Observed,
    issued: &mut Option<issuer::Planned>,
) -> Result<Option<Child>, OperatorError> {
    let secret = seen.secrets.get(&certificate.secret);
    let declared = seen.cluster.spec.certificates.as_ref().zip(seen.requests.as_ref());
    if let Some((certificates, requests)) = declared.filter(|_| certificate.may_be_issued()) {
        let issuer = &certificates.issuer_ref;
        let step = issuer::step(names, (certificate, secret), (issuer, requests), authority, seen.now)?;
        return Ok(issued.get_or_insert_with(|| issuer::Planned::of(issuer)).note(certificate, step));
    }
    let good = |secret| certificate.is_good(secret, authority, seen.now.as_second());
    if secret.is_some_and(good) { Ok(None) } else { certificate.issue(authority, names).map(Some) }
}

/// Credentials of S3 that the site makes at its first start, for itself.
pub(super) struct Internal {
    pub(super) access_key: String,
    pub(super) secret_key: String,
}

fn internal(names: &Names, seen: &Observed, children: &mut Vec<Child>) -> Result<Internal, OperatorError> {
    let name = names.child("internal");
    if let Some(secret) = seen.secrets.get(&name) {
        return Ok(Internal {
            access_key: secrets::text(secret, "access-key")?,
            secret_key: secrets::text(secret, "secret-key")?,
        });
    }
    let made = Internal {
        access_key: format!("DIPTYCH{}", random_text(6).to_uppercase()),
        secret_key: random_text(20),
    };
    let entries = [("access-key", made.access_key.as_str()), ("secret-key", made.secret_key.as_str())];
    children.push(secrets::owned(names, &name, "internal", &entries)?);
    Ok(made)
}
