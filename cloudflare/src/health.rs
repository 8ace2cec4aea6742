//! Cloudflare's own health checks: one for each site, made, kept right and removed by that site. They only look, and nothing at
//! Cloudflare follows from them.
//!
//! Only checks with this cluster's ownership comment are ever changed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use diptych_core::ids::SiteName;

use crate::address::Owner;
use crate::client::{Client, Error, HealthCheck, HttpConfig, NewHealthCheck, ZoneId};

/// What is asked: 503 where files can't be served.
const PATH: &str = "/health";

/// The check of a site, as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteCheck {
    /// Whose.
    pub site: SiteName,
    /// What is probed: an address of the site's own, whichever site the public name points to.
    pub address: IpAddr,
    /// By https, or plain.
    pub https: bool,
    /// TCP port.
    pub port: u16,
    /// The public name, for the Host header and the certificate.
    pub hostname: String,
    /// Whose checks these are.
    pub owner: Owner,
}

fn name(site: &SiteName) -> String {
    format!("diptych-{site}")
}

impl SiteCheck {
    fn wanted(&self) -> NewHealthCheck {
        let config = HttpConfig {
            method: "GET".to_owned(),
            port: self.port,
            path: PATH.to_owned(),
            expected_codes: vec!["2xx".to_owned()],
            // Whether the site is reached is asked; whose certificate it has the edge judges by itself.
            allow_insecure: true,
            header: Some(BTreeMap::from([("Host".to_owned(), vec![self.hostname.clone()])])),
        };
        NewHealthCheck {
            kind: if self.https { "HTTPS" } else { "HTTP" }.to_owned(),
            description: self.owner.comment().to_owned(),
            ..NewHealthCheck::http(&name(&self.site), &self.address.to_string(), config)
        }
    }
}

/// A site's check in a listing, if this cluster owns it.
pub fn check_of<'a>(listing: &'a [HealthCheck], owner: &Owner, site: &SiteName) -> Option<&'a HealthCheck> {
    owned(listing, owner, site).next()
}

fn owned<'a>(
    listing: &'a [HealthCheck],
    owner: &Owner,
    site: &SiteName,
) -> impl Iterator<Item = &'a HealthCheck> {
    let name = name(site);
    listing
        .iter()
        .filter(move |check| check.name == name && check.description.as_deref() == Some(owner.comment()))
}

fn is_met_by(wanted: &NewHealthCheck, check: &HealthCheck) -> bool {
    check.address == wanted.address
        && check.kind.as_ref() == Some(&wanted.kind)
        && check.http_config.as_ref().map(asks) == wanted.http_config.as_ref().map(asks)
}

/// Port, path, whether any certificate will do, and the Host header, however its name is written.
fn asks(config: &HttpConfig) -> (u16, &str, bool, Option<&Vec<String>>) {
    let mut headers = config.header.iter().flatten();
    let host = headers.find_map(|(name, values)| name.eq_ignore_ascii_case("host").then_some(values));
    (config.port, &config.path, config.allow_insecure, host)
}

/// Makes a site's check as it shall be: one call to look; where it is not right what is there goes and another is made.
///
/// The listing that comes back is that of the zone, with Cloudflare's verdicts.
///
/// # Errors
/// A call failed. [`Error::Forbidden`] and [`Error::Refused`] also where the zone's plan has no health checks, or none is left.
pub async fn keep_check(
    client: &Client,
    zone: &ZoneId,
    check: &SiteCheck,
) -> Result<Vec<HealthCheck>, Error> {
    let mut listing = client.health_checks(zone).await?;
    let wanted = check.wanted();
    let own: Vec<HealthCheck> = owned(&listing, &check.owner, &check.site).cloned().collect();
    if let [only] = own.as_slice()
        && is_met_by(&wanted, only)
    {
        return Ok(listing);
    }
    // Plans count checks, so the old one makes room.
    for old in &own {
        client.delete_health_check(zone, &old.id).await?;
    }
    listing.retain(|known| own.iter().all(|old| old.id != known.id));
    listing.push(client.create_health_check(zone, &wanted).await?);
    Ok(listing)
}

/// Removes a site's check, if there is one.
pub async fn remove_check(
    client: &Client,
    zone: &ZoneId,
    owner: &Owner,
    site: &SiteName,
) -> Result<(), Error> {
    let listing = client.health_checks(zone).await?;
    for check in owned(&listing, owner, site) {
        client.delete_health_check(zone, &check.id).await?;
    }
    Ok(())
}
