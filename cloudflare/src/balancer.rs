//! The public name by a load balancer: each site has a pool of its own, probed at `/lease`, and the flip changes the pools'
//! order.
//!
//! Only what carries this cluster's ownership description is ever changed. Who may write hangs on none of it: a client that
//! the edge still sends to the other site is forwarded, or answered 503.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use diptych_core::ids::SiteName;
use thiserror::Error;

use crate::address::{ForeignRecords, NameTarget, Owner, Pointed, name_records, owned_records};
use crate::client::{
    self, Client, LoadBalancer, LoadBalancerSettings, Monitor, MonitorId, MonitorSettings, Origin, Pool,
    PoolId, PoolSettings, Zone,
};

/// What is asked: 200 only while the site may write.
const PATH: &str = "/lease";
/// Every plan that has load balancing has this interval; a shorter one, set by a person, is left alone.
const INTERVAL: u32 = 60;

/// A site's part of the load balancer, as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalancerTarget {
    /// The name, this site's addresses, whose they are.
    pub name: NameTarget,
    /// This site.
    pub site: SiteName,
    /// The other one: its pool comes second.
    pub peer: SiteName,
    /// `/lease` is asked by https, or plain.
    pub https: bool,
    /// At this TCP port.
    pub port: u16,
}

impl BalancerTarget {
    fn monitor(&self) -> MonitorSettings {
        MonitorSettings {
            kind: if self.https { "https" } else { "http" }.to_owned(),
            description: self.name.owner.mark_of(&self.site),
            method: "GET".to_owned(),
            path: PATH.to_owned(),
            port: Some(self.port),
            expected_codes: "200".to_owned(),
            interval: INTERVAL,
            timeout: 5,
            retries: 2,
            // Whether the site holds the lease is asked; whose certificate it has the edge judges by itself.
            allow_insecure: true,
            header: BTreeMap::from([("Host".to_owned(), vec![self.name.hostname.clone()])]),
        }
    }

    fn pool(&self, monitor: MonitorId) -> PoolSettings {
        let origin = |address: &IpAddr| {
            let text = address.to_string();
            Origin { name: text.clone(), address: text, enabled: true }
        };
        let mut origins: Vec<Origin> = self.name.addresses.iter().map(origin).collect();
        origins.sort_unstable();
        origins.dedup();
        PoolSettings {
            name: self.name.owner.name_of(&self.site),
            description: self.name.owner.comment().to_owned(),
            enabled: true,
            monitor: Some(monitor),
            origins,
        }
    }

    fn balancer(&self, pools: &Pools) -> LoadBalancerSettings {
        LoadBalancerSettings {
            name: self.name.hostname.clone(),
            description: self.name.owner.comment().to_owned(),
            default_pools: std::iter::once(&pools.own).chain(&pools.peer).cloned().collect(),
            // Where no pool is healthy, as right after a takeover, everything still goes to the site that serves.
            fallback_pool: pools.own.clone(),
            proxied: self.name.proxied,
            enabled: true,
            steering_policy: "off".to_owned(),
            session_affinity: "none".to_owned(),
        }
    }
}

/// Both sites' pools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pools {
    /// This site's.
    pub own: PoolId,
    /// The other site's; None: it has made none yet.
    pub peer: Option<PoolId>,
}

/// Why the load balancer can't be kept.
#[derive(Debug, Error)]
pub enum BalancerError {
    /// Somebody else's records are on the name, and a load balancer would take it over.
    #[error(transparent)]
    ForeignRecords(#[from] ForeignRecords),
    /// Somebody else's pool or load balancer has that name.
    #[error(
        "the {what} {name} is not this cluster's, and nothing was changed. Delete it, or set its description to \"{mark}\" to hand it over"
    )]
    Foreign {
        /// `pool` or `load balancer`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The description that ours carry.
        mark: String,
    },
    /// The account or the zone has no load balancing, or no more of it.
    #[error("{0}; load balancing is to be bought for the zone, or set via: Record")]
    NotAvailable(client::Error),
    /// A call failed.
    #[error(transparent)]
    Call(client::Error),
}

impl From<client::Error> for BalancerError {
    fn from(error: client::Error) -> Self {
        if lacks_load_balancing(&error) { Self::NotAvailable(error) } else { Self::Call(error) }
    }
}

/// Cloudflare has one code for all that does not validate (1002), so the words tell.
fn lacks_load_balancing(error: &client::Error) -> bool {
    let client::Error::Refused { errors, .. } = error else { return false };
    let says = |text: &str| text.contains("not enabled") || text.contains("must be in range [1, 0]");
    errors.iter().any(|entry| says(&entry.message))
}

/// Keeps one site's part.
#[derive(Debug)]
pub struct Balancer {
    target: BalancerTarget,
    /// As last seen: the flip waits for no listing of them.
    pools: Mutex<Option<Pools>>,
}

impl Balancer {
    /// Of this site; nothing is asked yet.
    pub const fn new(target: BalancerTarget) -> Self {
        Self { target, pools: Mutex::new(None) }
    }

    /// Makes this site's pool the first: a call to look and one to change, then what is this site's own is looked after.
    ///
    /// # Errors
    /// Nothing was changed at Cloudflare, unless a call says that it may have been.
    pub async fn point_here(&self, client: &Client, zone: &Zone) -> Result<Pointed, BalancerError> {
        let known = self.known();
        let mut pointed = Pointed::AlreadyRight;
        if let Some(pools) = &known {
            let changed = self.put_first(client, zone, pools).await;
            if matches!(changed, Err(BalancerError::Call(client::Error::Refused { .. }))) {
                // A pool may be gone: it is looked for at the next try.
                self.learn(None);
            }
            pointed = changed?;
        }
        let pools = self.keep_own(client, zone).await?;
        if known.as_ref() == Some(&pools) {
            return Ok(pointed);
        }
        match self.put_first(client, zone, &pools).await? {
            Pointed::AlreadyRight => Ok(pointed),
            Pointed::Changed => Ok(Pointed::Changed),
        }
    }

    /// Makes this site's pool ready, and looks whether it could be made the first. The pools' order stays as it is.
    ///
    /// # Errors
    /// What would keep it from becoming the first.
    pub async fn prepare(&self, client: &Client, zone: &Zone) -> Result<(), BalancerError> {
        self.keep_own(client, zone).await?;
        self.find(client, zone).await.map(drop)
    }

    /// Takes this site out: its pool of the load balancer, which goes too where no other pool is left, and the monitor.
    ///
    /// # Errors
    /// A call failed; what is left is removed by another try.
    pub async fn remove(&self, client: &Client, zone: &Zone) -> Result<(), BalancerError> {
        let account = &zone.account.id;
        let (owner, site) = (&self.target.name.owner, &self.target.site);
        let pools = client.pools(account).await?;
        for pool in pools.iter().filter(|pool| owner.owns_pool(pool, site)) {
            self.take_out(client, zone, &pool.id).await?;
            client.delete_pool(account, &pool.id).await?;
        }
        for monitor in client.monitors(account).await? {
            if monitor.settings.description == owner.mark_of(site) {
                client.delete_monitor(account, &monitor.id).await?;
            }
        }
        Ok(())
    }

    async fn take_out(&self, client: &Client, zone: &Zone, pool: &PoolId) -> Result<(), BalancerError> {
        let owner = &self.target.name.owner;
        let ours = |found: &&LoadBalancer| found.settings.description == owner.comment();
        for found in client.load_balancers(&zone.id).await?.iter().filter(ours) {
            let mut settings = found.settings.clone();
            settings.default_pools.retain(|listed| listed != pool);
            if settings.default_pools == found.settings.default_pools && settings.fallback_pool != *pool {
                continue;
            }
            match settings.default_pools.first().cloned() {
                Some(next) => {
                    settings.fallback_pool = next;
                    client.patch_load_balancer(&zone.id, &found.id, &settings).await?;
                }
                None => client.delete_load_balancer(&zone.id, &found.id).await?,
            }
        }
        Ok(())
    }

    async fn put_first(&self, client: &Client, zone: &Zone, pools: &Pools) -> Result<Pointed, BalancerError> {
        let wanted = self.target.balancer(pools);
        match self.find(client, zone).await? {
            Some(found) if is_met_by(&wanted, &found.settings) => return Ok(Pointed::AlreadyRight),
            Some(found) => drop(client.patch_load_balancer(&zone.id, &found.id, &wanted).await?),
            None => drop(client.create_load_balancer(&zone.id, &wanted).await?),
        }
        Ok(Pointed::Changed)
    }

    /// The load balancer of the name. Where there is none, what it would take the name over from is looked at.
    async fn find(&self, client: &Client, zone: &Zone) -> Result<Option<LoadBalancer>, BalancerError> {
        let NameTarget { hostname, owner, .. } = &self.target.name;
        let of_name = |found: &LoadBalancer| found.settings.name.eq_ignore_ascii_case(hostname);
        let found = client.load_balancers(&zone.id).await?.into_iter().find(of_name);
        match &found {
            Some(found) if found.settings.description != owner.comment() => {
                Err(self.foreign("load balancer", hostname))
            }
            Some(_) => Ok(()),
            None => {
                let records = name_records(client, &zone.id, hostname).await?;
                Ok(owned_records(&records, hostname, owner).map(drop)?)
            }
        }?;
        Ok(found)
    }

    /// This site's monitor and pool, made as they shall be.
    async fn keep_own(&self, client: &Client, zone: &Zone) -> Result<Pools, BalancerError> {
        let account = &zone.account.id;
        let NameTarget { owner, .. } = &self.target.name;
        let pools = client.pools(account).await?;
        let name = owner.name_of(&self.target.site);
        let own = pools.iter().find(|pool| pool.settings.name == name);
        if own.is_some_and(|pool| !owner.owns_pool(pool, &self.target.site)) {
            return Err(self.foreign("pool", &name));
        }
        let monitor = self.keep_monitor(client, zone).await?;
        let wanted = self.target.pool(monitor);
        let own = match own {
            Some(pool) if pool_is(&wanted, &pool.settings) => pool.id.clone(),
            Some(pool) => client.patch_pool(account, &pool.id, &wanted).await?.id,
            None => client.create_pool(account, &wanted).await?.id,
        };
        let peer = pools.iter().find(|pool| owner.owns_pool(pool, &self.target.peer));
        let pools = Pools { own, peer: peer.map(|pool| pool.id.clone()) };
        self.learn(Some(pools.clone()));
        Ok(pools)
    }

    async fn keep_monitor(&self, client: &Client, zone: &Zone) -> Result<MonitorId, BalancerError> {
        let account = &zone.account.id;
        let wanted = self.target.monitor();
        let listing = client.monitors(account).await?;
        let own = listing.iter().find(|monitor| monitor.settings.description == wanted.description);
        Ok(match own {
            Some(Monitor { id, settings }) if asks_alike(&wanted, settings) => id.clone(),
            Some(Monitor { id, .. }) => client.patch_monitor(account, id, &wanted).await?.id,
            None => client.create_monitor(account, &wanted).await?.id,
        })
    }

    fn foreign(&self, what: &'static str, name: &str) -> BalancerError {
        let mark = self.target.name.owner.comment().to_owned();
        BalancerError::Foreign { what, name: name.to_owned(), mark }
    }

    fn known(&self) -> Option<Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, pools: Option<Pools>) {
        *self.pools.lock().unwrap_or_else(PoisonError::into_inner) = pools;
    }
}

impl Owner {
    /// Whether this is that site's pool, and ours to change.
    fn owns_pool(&self, pool: &Pool, site: &SiteName) -> bool {
        pool.settings.name == self.name_of(site) && pool.settings.description == self.comment()
    }
}

/// Steering and affinity that are not set are shown as empty.
fn is_met_by(wanted: &LoadBalancerSettings, found: &LoadBalancerSettings) -> bool {
    let plain = |text: &str, none: &str| text.is_empty() || text == none;
    found.default_pools == wanted.default_pools
        && found.fallback_pool == wanted.fallback_pool
        && (found.proxied, found.enabled) == (wanted.proxied, wanted.enabled)
        && plain(&found.steering_policy, &wanted.steering_policy)
        && plain(&found.session_affinity, &wanted.session_affinity)
}

/// What else a person has set of the pool is left alone.
fn pool_is(wanted: &PoolSettings, found: &PoolSettings) -> bool {
    let places = |settings: &PoolSettings| {
        let mut places: Vec<_> =
            settings.origins.iter().map(|origin| (origin.address.clone(), origin.enabled)).collect();
        places.sort_unstable();
        places
    };
    (found.enabled, &found.monitor) == (wanted.enabled, &wanted.monitor) && places(found) == places(wanted)
}

/// What is asked, and of whom; how often is a person's to change.
fn asks_alike(wanted: &MonitorSettings, found: &MonitorSettings) -> bool {
    let host = |settings: &MonitorSettings| {
        let mut headers = settings.header.iter();
        headers.find_map(|(name, values)| name.eq_ignore_ascii_case("host").then(|| values.clone()))
    };
    (&found.kind, &found.path, found.port) == (&wanted.kind, &wanted.path, wanted.port)
        && (&found.expected_codes, found.allow_insecure) == (&wanted.expected_codes, wanted.allow_insecure)
        && host(found) == host(wanted)
}
