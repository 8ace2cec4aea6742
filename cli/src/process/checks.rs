//! Cloudflare's health check of this site.

use std::sync::Arc;

use async_trait::async_trait;
use diptych_cloudflare::client::{Error, HealthCheck, HealthStatus};
use diptych_cloudflare::health::{SiteCheck, check_of, keep_check, remove_check};
use diptych_core::edge::EdgeVerdict;
use diptych_core::ids::SiteName;
use diptych_site::config::PeerConfig;
use diptych_site::edge::{EdgeChecks, EdgeTrouble, SiteVerdict};
use diptych_wire::http::chain;

use super::name::CloudflareName;

/// Both sites' checks, as this site sees them.
pub(super) struct CloudflareChecks {
    name: Arc<CloudflareName>,
    site: SiteName,
    peer: SiteName,
    /// None: none is wanted, or there is no address to probe.
    check: Option<SiteCheck>,
}

impl CloudflareChecks {
    pub(super) fn new(name: Arc<CloudflareName>, site: &SiteName, peer: &PeerConfig) -> Self {
        let target = name.target();
        let check =
            peer.health_check.as_ref().zip(target.addresses.first()).map(|(probe, address)| SiteCheck {
                site: site.clone(),
                address: *address,
                https: probe.https,
                port: probe.port,
                hostname: target.hostname.clone(),
                owner: target.owner.clone(),
            });
        Self { site: site.clone(), peer: peer.site.clone(), check, name }
    }

    /// Whether there shall be a check.
    pub(super) fn wanted(&self) -> bool {
        self.check.is_some()
    }
}

fn trouble(reason: &str, message: String) -> EdgeTrouble {
    EdgeTrouble { reason: reason.to_owned(), message }
}

fn refused(error: &Error) -> EdgeTrouble {
    match error {
        // Which of them it is Cloudflare's answer does not tell for certain.
        Error::Forbidden { .. } | Error::Refused { .. } => trouble(
            "NotAvailable",
            format!(
                "{error}; a zone of plan Free has no health checks, other plans have a few: where none is to be had, set healthChecks: false"
            ),
        ),
        _ => trouble(error.category(), chain(error)),
    }
}

fn verdict(check: Option<&HealthCheck>) -> SiteVerdict {
    let Some(check) = check else { return SiteVerdict::default() };
    let verdict = match check.status {
        HealthStatus::Healthy => EdgeVerdict::Reached,
        HealthStatus::Unhealthy => EdgeVerdict::Unreached,
        HealthStatus::Suspended | HealthStatus::Unknown => EdgeVerdict::Unknown,
    };
    SiteVerdict { verdict, reason: check.failure_reason.clone().unwrap_or_default() }
}

#[async_trait]
impl EdgeChecks for CloudflareChecks {
    async fn keep(&self) -> Result<(SiteVerdict, SiteVerdict), EdgeTrouble> {
        let Some(check) = &self.check else { return Ok(Default::default()) };
        let zone = self.name.zone().await.map_err(|found| trouble(found.reason, found.message))?;
        let listing = keep_check(self.name.client(), &zone, check).await.map_err(|error| refused(&error))?;
        let of = |site| verdict(check_of(&listing, &check.owner, site));
        Ok((of(&self.site), of(&self.peer)))
    }

    async fn remove(&self) -> Result<(), EdgeTrouble> {
        let zone = self.name.zone().await.map_err(|found| trouble(found.reason, found.message))?;
        let owner = &self.name.target().owner;
        remove_check(self.name.client(), &zone, owner, &self.site).await.map_err(|error| refused(&error))
    }
}
