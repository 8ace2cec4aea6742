//! What happens to the sites while clients go on, and when: what the checker allows follows from that.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::clients::Clients;
use crate::demo::faults::Faults;
use crate::demo::installation::until;
use crate::demo::reach::Reach;
use crate::demo::two_sites::{active, both_are_well, hand_over, other};
use crate::network::Network;

/// Two leases, and a little more.
const TWO_LEASES: Duration = Duration::from_secs(7);
/// A takeover, also one behind a witness that was renewed lately.
const TAKEOVER: Duration = Duration::from_mins(1);
/// Until both sites are well after whatever was done to them.
const WELL: Duration = Duration::from_mins(5);
/// Answers before a fault and after it.
const GOES_ON: u64 = 20;

/// What happens to the sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The lease is handed to the other site.
    Switch,
    /// Everything of the active site is killed, and started again when the other one has taken over.
    Kill,
    /// Everything of the active site is stopped for two leases.
    Freeze,
    /// The cable between the sites is cut for two leases.
    Cut,
}

/// A run through faults.
pub(super) struct Course<'a> {
    reach: &'a Reach,
    faults: &'a dyn Faults,
    network: Option<&'a Network>,
    acknowledge: &'a str,
    /// When planned switches were under way.
    pub(super) switches: Vec<Range<Instant>>,
    /// When a site that had lost the lease was let go on.
    pub(super) returns: Vec<Instant>,
}

impl<'a> Course<'a> {
    pub(super) fn new(
        reach: &'a Reach,
        faults: &'a dyn Faults,
        network: Option<&'a Network>,
        acknowledge: &'a str,
    ) -> Self {
        Self { reach, faults, network, acknowledge, switches: Vec::new(), returns: Vec::new() }
    }

    /// One fault from its begin until both sites are well again.
    pub(super) async fn goes_through(&mut self, fault: Fault, clients: &Clients) -> Result<()> {
        let holder = self.ready().await?;
        clients.write_on(GOES_ON).await?;
        match fault {
            Fault::Switch => {
                let begun = Instant::now();
                hand_over(self.reach, holder).await?;
                self.switches.push(begun..Instant::now());
            }
            Fault::Kill => {
                self.faults.site_dies(holder).await?;
                self.is_taken_over(holder, clients).await?;
                self.returns.push(Instant::now());
                self.faults.site_returns(holder).await?;
            }
            Fault::Freeze => {
                let begun = Instant::now();
                self.faults.site_freezes(holder).await?;
                let taken_over = self.is_taken_over(holder, clients).await;
                tokio::time::sleep_until((begun + TWO_LEASES).into()).await;
                self.returns.push(Instant::now());
                // Whatever was seen: nothing is left frozen.
                self.faults.site_thaws(holder).await?;
                taken_over?;
            }
            Fault::Cut => self.is_cut(holder, clients).await?,
        }
        both_are_well(self.reach, WELL).await?;
        clients.write_on(GOES_ON).await
    }

    /// Both sites are well and the passive one follows, so that it may take over; the active one.
    async fn ready(&self) -> Result<&'static str> {
        both_are_well(self.reach, WELL).await?;
        until("the passive site follows", WELL, || async {
            let holder = active(self.reach).await?;
            let (here, there) = (self.reach.status(holder).await?, self.reach.status(other(holder)).await?);
            let age = here.exposure.context("no exposure in the status")?.age_ms;
            let follows = age < 2_000 && here.epoch == there.epoch;
            Ok(if follows {
                Ok(holder)
            } else {
                Err(format!("{age} ms are exposed in epoch {}", here.epoch))
            })
        })
        .await
    }

    async fn is_taken_over(&self, from: &str, clients: &Clients) -> Result<()> {
        let heir = other(from);
        until(&format!("{heir} takes over"), TAKEOVER, || async {
            let status = self.reach.status(heir).await?;
            Ok(if status.role == "active" {
                Ok(())
            } else {
                Err(format!("{} {:?}", status.role, status.lease))
            })
        })
        .await?;
        // With BothSites nothing is acknowledged by one site alone.
        if self.acknowledge == "OneSite" { clients.write_on(GOES_ON).await } else { Ok(()) }
    }

    async fn is_cut(&self, holder: &str, clients: &Clients) -> Result<()> {
        let network =
            self.network.context("the sites have no cables of their own: --cables gives them some")?;
        let begun = Instant::now();
        network.cut_between()?;
        let went_on = async {
            until("both sites miss each other", TAKEOVER, || async {
                let heard = self.reach.status(holder).await?.lease.peer_connected
                    || self.reach.status(other(holder)).await?.lease.peer_connected;
                Ok(if heard { Err("one hears the other".to_owned()) } else { Ok(()) })
            })
            .await?;
            if self.acknowledge == "OneSite" { clients.write_on(GOES_ON).await } else { Ok(()) }
        }
        .await;
        tokio::time::sleep_until((begun + TWO_LEASES).into()).await;
        for site in [holder, other(holder)] {
            network.heal(site)?;
        }
        went_on
    }
}
