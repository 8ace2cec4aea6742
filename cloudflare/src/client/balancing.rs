//! Load balancing: monitors and pools of an account, load balancers of a zone.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::calls::EMPTY;
use super::types::{id, or_default};
use super::{AccountId, Call, Client, Error, Permission, ZoneId};

/// The most that a page may have.
const A_PAGE: usize = 100;

id!(
    /// A monitor: 32 hexadecimal digits.
    MonitorId
);
id!(
    /// A pool: 32 hexadecimal digits.
    PoolId
);
id!(
    /// A load balancer: 32 hexadecimal digits.
    LoadBalancerId
);

/// How the origins of a pool are probed, as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorSettings {
    /// `http` or `https`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For people and for ownership: a monitor has no name.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// `GET` or `HEAD`.
    #[serde(default, deserialize_with = "or_default")]
    pub method: String,
    /// Begins with a slash.
    #[serde(default, deserialize_with = "or_default")]
    pub path: String,
    /// TCP port.
    #[serde(default)]
    pub port: Option<u16>,
    /// `200`, `2xx`, …
    #[serde(default, deserialize_with = "or_default")]
    pub expected_codes: String,
    /// Seconds between probes; the plan sets the least.
    #[serde(default, deserialize_with = "or_default")]
    pub interval: u32,
    /// Seconds for one probe.
    #[serde(default, deserialize_with = "or_default")]
    pub timeout: u32,
    /// Further probes, at once, before one counts as failed.
    #[serde(default, deserialize_with = "or_default")]
    pub retries: u32,
    /// For `https`: any certificate will do.
    #[serde(default, deserialize_with = "or_default")]
    pub allow_insecure: bool,
    /// Sent headers, each with its values.
    #[serde(default, deserialize_with = "or_default")]
    pub header: BTreeMap<String, Vec<String>>,
}

/// A monitor as listed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Monitor {
    /// Id.
    pub id: MonitorId,
    /// How it probes.
    #[serde(flatten)]
    pub settings: MonitorSettings,
}

/// One place that a pool sends requests to, by the port that the client used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// Unique in the pool.
    pub name: String,
    /// Address or host name.
    pub address: String,
    /// Whether it gets requests.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// A pool, as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSettings {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// Ownership.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// Whether it gets requests, and is probed.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// How it is probed.
    #[serde(default)]
    pub monitor: Option<MonitorId>,
    /// Where requests go.
    #[serde(default, deserialize_with = "or_default")]
    pub origins: Vec<Origin>,
}

/// A pool as listed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pool {
    /// Id.
    pub id: PoolId,
    /// What it is.
    #[serde(flatten)]
    pub settings: PoolSettings,
}

/// What is set of a load balancer; all of it with each change, so that a flip is one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancerSettings {
    /// The name that it answers for, with the zone. Records of that name are not used while it is there.
    pub name: String,
    /// Ownership.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// In the order in which they are taken: the first that is healthy gets everything.
    #[serde(default, deserialize_with = "or_default")]
    pub default_pools: Vec<PoolId>,
    /// Gets everything where none is healthy, whatever its own health.
    pub fallback_pool: PoolId,
    /// Fronted by Cloudflare's edge.
    #[serde(default, deserialize_with = "or_default")]
    pub proxied: bool,
    /// Switched off, the records of the name count again.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// `off`: the order of `default_pools` alone decides.
    #[serde(default, deserialize_with = "or_default")]
    pub steering_policy: String,
    /// `none`: no client stays with a site.
    #[serde(default, deserialize_with = "or_default")]
    pub session_affinity: String,
}

const fn yes() -> bool {
    true
}

/// A load balancer as listed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LoadBalancer {
    /// Id.
    pub id: LoadBalancerId,
    /// What it is.
    #[serde(flatten)]
    pub settings: LoadBalancerSettings,
}

fn pools(account: &AccountId) -> String {
    format!("/accounts/{account}/load_balancers/pools")
}

fn monitors(account: &AccountId) -> String {
    format!("/accounts/{account}/load_balancers/monitors")
}

fn balancers(zone: &ZoneId) -> String {
    format!("/zones/{zone}/load_balancers")
}

impl Client {
    /// All monitors of an account.
    pub async fn monitors(&self, account: &AccountId) -> Result<Vec<Monitor>, Error> {
        let call = Call { name: "list monitors", permission: Permission::PoolsRead };
        self.pages(call, &format!("{}?", monitors(account)), A_PAGE).await
    }

    /// Creates a monitor.
    pub async fn create_monitor(
        &self,
        account: &AccountId,
        monitor: &MonitorSettings,
    ) -> Result<Monitor, Error> {
        let call = Call { name: "create a monitor", permission: Permission::PoolsEdit };
        Ok(self.send(call, Method::POST, &monitors(account), Some(monitor)).await?.result)
    }

    /// Makes a monitor so.
    pub async fn patch_monitor(
        &self,
        account: &AccountId,
        id: &MonitorId,
        monitor: &MonitorSettings,
    ) -> Result<Monitor, Error> {
        let call = Call { name: "change a monitor", permission: Permission::PoolsEdit };
        let path = format!("{}/{id}", monitors(account));
        Ok(self.send(call, Method::PATCH, &path, Some(monitor)).await?.result)
    }

    /// Deletes a monitor that no pool names.
    pub async fn delete_monitor(&self, account: &AccountId, id: &MonitorId) -> Result<(), Error> {
        let call = Call { name: "delete a monitor", permission: Permission::PoolsEdit };
        let path = format!("{}/{id}", monitors(account));
        self.send::<IgnoredAny>(call, Method::DELETE, &path, EMPTY).await.map(drop)
    }

    /// All pools of an account.
    pub async fn pools(&self, account: &AccountId) -> Result<Vec<Pool>, Error> {
        let call = Call { name: "list pools", permission: Permission::PoolsRead };
        self.pages(call, &format!("{}?", pools(account)), A_PAGE).await
    }

    /// Creates a pool.
    pub async fn create_pool(&self, account: &AccountId, pool: &PoolSettings) -> Result<Pool, Error> {
        let call = Call { name: "create a pool", permission: Permission::PoolsEdit };
        Ok(self.send(call, Method::POST, &pools(account), Some(pool)).await?.result)
    }

    /// Makes a pool so.
    pub async fn patch_pool(
        &self,
        account: &AccountId,
        id: &PoolId,
        pool: &PoolSettings,
    ) -> Result<Pool, Error> {
        let call = Call { name: "change a pool", permission: Permission::PoolsEdit };
        let path = format!("{}/{id}", pools(account));
        Ok(self.send(call, Method::PATCH, &path, Some(pool)).await?.result)
    }

    /// Deletes a pool that no load balancer names.
    pub async fn delete_pool(&self, account: &AccountId, id: &PoolId) -> Result<(), Error> {
        let call = Call { name: "delete a pool", permission: Permission::PoolsEdit };
        let path = format!("{}/{id}", pools(account));
        self.send::<IgnoredAny>(call, Method::DELETE, &path, EMPTY).await.map(drop)
    }

    /// All load balancers of a zone.
    pub async fn load_balancers(&self, zone: &ZoneId) -> Result<Vec<LoadBalancer>, Error> {
        let call = Call { name: "list load balancers", permission: Permission::LoadBalancersRead };
        self.pages(call, &format!("{}?", balancers(zone)), A_PAGE).await
    }

    /// Creates a load balancer.
    pub async fn create_load_balancer(
        &self,
        zone: &ZoneId,
        balancer: &LoadBalancerSettings,
    ) -> Result<LoadBalancer, Error> {
        let call = Call { name: "create a load balancer", permission: Permission::LoadBalancersEdit };
        Ok(self.send(call, Method::POST, &balancers(zone), Some(balancer)).await?.result)
    }

    /// Makes a load balancer so. Last writer wins: for the public name only, never for a witness.
    pub async fn patch_load_balancer(
        &self,
        zone: &ZoneId,
        id: &LoadBalancerId,
        balancer: &LoadBalancerSettings,
    ) -> Result<LoadBalancer, Error> {
        let call = Call { name: "change a load balancer", permission: Permission::LoadBalancersEdit };
        let path = format!("{}/{id}", balancers(zone));
        Ok(self.send(call, Method::PATCH, &path, Some(balancer)).await?.result)
    }

    /// Deletes a load balancer.
    pub async fn delete_load_balancer(&self, zone: &ZoneId, id: &LoadBalancerId) -> Result<(), Error> {
        let call = Call { name: "delete a load balancer", permission: Permission::LoadBalancersEdit };
        let path = format!("{}/{id}", balancers(zone));
        self.send::<IgnoredAny>(call, Method::DELETE, &path, EMPTY).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_people_have_set_or_left_out_reads() {
        let monitor =
            r#"{"id": "a", "type": "tcp", "description": null, "header": null, "port": 22, "interval": 60}"#;
        let monitor: Monitor = serde_json::from_str(monitor).expect("it reads");
        assert_eq!((monitor.settings.kind.as_str(), monitor.settings.port), ("tcp", Some(22)));
        let pool = r#"{"id": "a", "name": "web", "origins": [{"name": "x", "address": "x.example", "weight": 1}], "monitor": null}"#;
        let pool: Pool = serde_json::from_str(pool).expect("it reads");
        assert!(pool.settings.enabled && pool.settings.origins[0].enabled);
        let balancer = r#"{"id": "a", "name": "www.example.com", "default_pools": null, "fallback_pool": "b", "ttl": 30}"#;
        let balancer: LoadBalancer = serde_json::from_str(balancer).expect("it reads");
        assert!(balancer.settings.enabled && !balancer.settings.proxied);
    }
}
