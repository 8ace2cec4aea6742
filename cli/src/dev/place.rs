//! Where the processes of `diptych dev` run: on loopback addresses of this machine, or each site in a network namespace of
//! its own, so that the link between them can be cut as a cable can.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use thiserror::Error;

/// The name of what stands outside both sites.
pub const OUTSIDE: &str = "outside";

/// A site's address, and the network namespace that has it; None: that of `diptych dev` itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `east`, `west`, `outside`.
    pub site: String,
    /// Of all its listeners.
    pub address: IpAddr,
    /// As `ip netns` names it; it must be there.
    pub namespace: Option<String>,
}

/// Text that is no place.
#[derive(Debug, Error)]
#[error("{0:?} is not like east=10.0.1.1 or east=10.0.1.1@NAMESPACE; sites are east, west and outside")]
pub struct ParsePlaceError(String);

impl FromStr for Place {
    type Err = ParsePlaceError;

    fn from_str(text: &str) -> Result<Self, ParsePlaceError> {
        let parse = || {
            let (site, rest) = text.split_once('=')?;
            let (address, namespace) = match rest.split_once('@') {
                Some((address, namespace)) if !namespace.is_empty() => (address, Some(namespace.to_owned())),
                Some(_) => return None,
                None => (rest, None),
            };
            let known = ["east", "west", OUTSIDE].contains(&site);
            known.then_some(Self { site: site.to_owned(), address: address.parse().ok()?, namespace })
        };
        parse().ok_or_else(|| ParsePlaceError(text.to_owned()))
    }
}

impl Place {
    /// The place that was asked for, or a loopback address.
    pub fn of(site: &str, asked: &[Self], loopback: Ipv4Addr) -> Self {
        let found = asked.iter().find(|place| place.site == site);
        found.cloned().unwrap_or_else(|| Self {
            site: site.to_owned(),
            address: loopback.into(),
            namespace: None,
        })
    }

    /// Where to look whether a port is free: another namespace can't be looked into, and has nothing else running.
    pub fn probe(&self) -> IpAddr {
        if self.namespace.is_some() { Ipv4Addr::LOCALHOST.into() } else { self.address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_with_and_without_a_namespace() {
        let place: Place = "east=10.0.1.1@left".parse().unwrap();
        assert_eq!(place.namespace.as_deref(), Some("left"));
        assert_eq!(place.address, IpAddr::from([10, 0, 1, 1]));
        assert_eq!("outside=10.0.0.1".parse::<Place>().unwrap().namespace, None);
    }

    #[test]
    fn what_is_no_place_is_named_in_the_error() {
        for text in ["north=10.0.1.1", "east", "east=here", "east=10.0.1.1@"] {
            let error = text.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
