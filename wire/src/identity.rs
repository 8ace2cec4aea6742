//! Who a process is: one URI in its certificate, `diptych://<cluster>/<site>/<role>/<name>`.

use std::fmt;
use std::str::FromStr;

use diptych_core::ids::{ClusterId, SiteName};
use serde::{Deserialize, Serialize};
use thiserror::Error;

const SCHEME: &str = "diptych://";

/// What a process is there for; what it may ask of others hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Serves S3, REST and web, and the peer door.
    Gateway,
    /// Runs the Kubernetes controllers and the site's loops.
    Operator,
    /// Keeps fragments; its name is its node's.
    Agent,
    /// Third voter.
    Witness,
    /// The other site, where it speaks as a whole.
    Peer,
    /// Member or client of the catalog's engine.
    Catalog,
    /// A person's or program's command line.
    Client,
    /// A site that is not one of the cluster's yet; its name is its join token's.
    Join,
}

impl Role {
    const ALL: [Self; 8] = [
        Self::Gateway,
        Self::Operator,
        Self::Agent,
        Self::Witness,
        Self::Peer,
        Self::Catalog,
        Self::Client,
        Self::Join,
    ];

    /// As it stands in the URI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Operator => "operator",
            Self::Agent => "agent",
            Self::Witness => "witness",
            Self::Peer => "peer",
            Self::Catalog => "catalog",
            Self::Client => "client",
            Self::Join => "join",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A process of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Installation it belongs to.
    pub cluster: ClusterId,
    /// Site it belongs to.
    pub site: SiteName,
    /// What it is there for.
    pub role: Role,
    /// Unique in site and role: a node, a pod, a person. No slash.
    pub name: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, site, role, name } = self;
        write!(formatter, "{SCHEME}{cluster}/{site}/{role}/{name}")
    }
}

/// Text that is no identity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not an identity (diptych://<cluster>/<site>/<role>/<name>): {reason}")]
pub struct ParseIdentityError {
    text: String,
    reason: String,
}

impl FromStr for Identity {
    type Err = ParseIdentityError;

    fn from_str(text: &str) -> Result<Self, ParseIdentityError> {
        let wrong = |reason: String| ParseIdentityError { text: text.to_owned(), reason };
        let rest =
            text.strip_prefix(SCHEME).ok_or_else(|| wrong(format!("it does not begin with {SCHEME}")))?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [cluster, site, role, name] = parts[..] else {
            return Err(wrong(format!("it has {} parts, not 4", parts.len())));
        };
        let known = Role::ALL.into_iter().find(|known| known.as_str() == role);
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if name.is_empty() || name.len() > 253 || !name.bytes().all(fine) {
            return Err(wrong("the name must be 1 to 253 of a-z, A-Z, 0-9, '-', '.', '_'".to_owned()));
        }
        Ok(Self {
            cluster: cluster.parse().map_err(|error| wrong(format!("{error}")))?,
            site: site.parse().map_err(|error| wrong(format!("{error}")))?,
            role: known.ok_or_else(|| wrong(format!("role {role:?} is unknown")))?,
            name: name.to_owned(),
        })
    }
}

/// Whom one expects at the other end. The cluster is always checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Installation.
    pub cluster: ClusterId,
    /// One of these sites; empty: any.
    pub sites: Vec<SiteName>,
    /// One of these roles; empty: any.
    pub roles: Vec<Role>,
    /// Name; None: any.
    pub name: Option<String>,
}

impl Expected {
    /// Any process of a cluster.
    pub const fn any_of(cluster: ClusterId) -> Self {
        Self { cluster, sites: Vec::new(), roles: Vec::new(), name: None }
    }

    /// The agent of one node.
    pub fn agent(cluster: ClusterId, site: SiteName, node: &str) -> Self {
        Self { cluster, sites: vec![site], roles: vec![Role::Agent], name: Some(node.to_owned()) }
    }

    /// A gateway of a site.
    pub fn gateway(cluster: ClusterId, site: SiteName) -> Self {
        Self { cluster, sites: vec![site], roles: vec![Role::Gateway], name: None }
    }

    /// Whether `found` is who is expected; says what differs.
    pub fn check(&self, found: &Identity) -> Result<(), UnexpectedPeer> {
        let differs = if found.cluster != self.cluster {
            Some(format!("cluster {}", self.cluster))
        } else if !self.sites.is_empty() && !self.sites.contains(&found.site) {
            let sites: Vec<&str> = self.sites.iter().map(SiteName::as_str).collect();
            Some(format!("site {}", sites.join(" or ")))
        } else if !self.roles.is_empty() && !self.roles.contains(&found.role) {
            let roles: Vec<&str> = self.roles.iter().map(|role| role.as_str()).collect();
            Some(format!("role {}", roles.join(" or ")))
        } else if self.name.as_ref().is_some_and(|name| *name != found.name) {
            self.name.as_ref().map(|name| format!("name {name}"))
        } else {
            None
        };
        match differs {
            None => Ok(()),
            Some(expected) => Err(UnexpectedPeer { found: found.clone(), expected }),
        }
    }
}

/// A certificate of the right authority, and of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the peer is {found}, expected was {expected}")]
pub struct UnexpectedPeer {
    /// Who it is.
    pub found: Identity,
    /// What was expected instead.
    pub expected: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster: ClusterId([7; 16]),
            site: "east".parse().expect("a name"),
            role: Role::Agent,
            name: "n1.example".to_owned(),
        }
    }

    #[test]
    fn an_identity_reads_back_what_it_prints() {
        assert_eq!(identity().to_string().parse(), Ok(identity()));
    }

    #[test]
    fn an_identity_with_another_number_of_parts_or_an_unknown_role_is_refused() {
        let whole = identity().to_string();
        for text in [
            format!("{whole}/x"),
            whole.replace("agent", "root"),
            "https://x".into(),
            whole.replace("n1", "n 1"),
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn another_cluster_site_role_or_name_is_named() {
        let expected = Expected::agent(ClusterId([7; 16]), "east".parse().expect("a name"), "n1.example");
        assert_eq!(expected.check(&identity()), Ok(()));
        let other = Identity { site: "west".parse().expect("a name"), ..identity() };
        let error = expected.check(&other).expect_err("another site");
        assert!(error.to_string().ends_with("expected was site east"), "{error}");
        assert!(expected.check(&Identity { cluster: ClusterId([8; 16]), ..identity() }).is_err());
        assert!(expected.check(&Identity { role: Role::Client, ..identity() }).is_err());
        assert!(expected.check(&Identity { name: "n2".into(), ..identity() }).is_err());
    }
}
