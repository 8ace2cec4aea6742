//! Load balancing: what the emulator keeps of it, what it refuses, and which pool a load balancer takes. Pure, but for new
//! ids and the time.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::model::{Database, HealthCheck, Zone, is_within, new_id, now};
use super::options::Plan;
use super::prober::Verdicts;

/// Code of whatever does not validate.
const INVALID: u32 = 1002;

pub(super) fn invalid(message: &str) -> Failure {
    Failure::bad_request(INVALID, format!("{message}: validation failed"))
}

/// One kind of object: where it is kept, and when it is valid.
pub(super) trait Kind: Clone + Serialize + DeserializeOwned + Send + 'static {
    /// For messages.
    const WORD: &'static str;

    /// With Cloudflare's defaults.
    fn blank() -> Value;

    fn id(&self) -> &str;

    /// May it stand, beside the others?
    fn check(&self, database: &Database, zone: Option<&Zone>, plan: Plan) -> Result<(), Failure>;

    /// Who still needs it?
    fn users(&self, database: &Database) -> usize;
}

/// A new one, or a change: fields that are sent replace those of the base.
pub(super) fn merged<K: Kind>(base: Value, sent: Map<String, Value>, id: &str) -> Result<K, Failure> {
    let mut whole = base;
    if let Some(fields) = whole.as_object_mut() {
        fields.extend(sent);
        fields.insert("id".to_owned(), json!(id));
        fields.insert("modified_on".to_owned(), json!(now()));
    }
    serde_json::from_value(whole).map_err(|error| invalid(&error.to_string()))
}

fn dated(mut value: Value) -> Value {
    value["id"] = json!(new_id());
    value["created_on"] = json!(now());
    value
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Monitor {
    pub(super) id: String,
    #[serde(rename = "type")]
    kind: String,
    description: String,
    method: String,
    path: String,
    #[serde(default)]
    port: Option<u16>,
    expected_codes: String,
    expected_body: String,
    follow_redirects: bool,
    allow_insecure: bool,
    header: BTreeMap<String, Vec<String>>,
    interval: u32,
    timeout: u32,
    retries: u32,
    consecutive_down: u32,
    consecutive_up: u32,
    created_on: String,
    pub(super) modified_on: String,
}

impl Kind for Monitor {
    const WORD: &'static str = "monitor";

    fn blank() -> Value {
        dated(json!({
            "type": "http", "description": "", "method": "GET", "path": "/", "port": null, "expected_codes": "200",
            "expected_body": "", "follow_redirects": false, "allow_insecure": false, "header": {}, "interval": 60,
            "timeout": 5, "retries": 2, "consecutive_down": 0, "consecutive_up": 0,
        }))
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn check(&self, database: &Database, _: Option<&Zone>, plan: Plan) -> Result<(), Failure> {
        if database.monitors.len() >= plan.monitor_limit() {
            return Err(invalid("monitor quota exceeded"));
        }
        if !matches!(self.kind.as_str(), "http" | "https") {
            return Err(invalid("type must be http or https: this emulator probes no other"));
        }
        if !(15..=3600).contains(&self.interval) {
            return Err(invalid("interval is not in range [15, 3600]"));
        }
        if self.timeout == 0 || self.timeout > 10 || self.retries > 5 {
            return Err(invalid("timeout or retries is not in range"));
        }
        Ok(())
    }

    fn users(&self, database: &Database) -> usize {
        database.pools.iter().filter(|pool| pool.monitor.as_ref() == Some(&self.id)).count()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Origin {
    name: String,
    pub(super) address: String,
    #[serde(default)]
    port: u16,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    #[serde(default = "whole")]
    weight: f64,
}

const fn yes() -> bool {
    true
}

const fn whole() -> f64 {
    1.0
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pool {
    pub(super) id: String,
    pub(super) name: String,
    description: String,
    pub(super) enabled: bool,
    minimum_origins: usize,
    #[serde(default)]
    monitor: Option<String>,
    #[serde(default)]
    check_regions: Option<Vec<String>>,
    pub(super) origins: Vec<Origin>,
    created_on: String,
    modified_on: String,
}

impl Kind for Pool {
    const WORD: &'static str = "pool";

    fn blank() -> Value {
        dated(json!({
            "description": "", "enabled": true, "minimum_origins": 1, "monitor": null, "check_regions": null,
        }))
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn check(&self, database: &Database, _: Option<&Zone>, plan: Plan) -> Result<(), Failure> {
        if plan.pool_limit() == 0 {
            return Err(invalid("the origin list length must be in range [1, 0]"));
        }
        if database.pools.len() >= plan.pool_limit() {
            return Err(invalid("pool quota exceeded"));
        }
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if self.name.is_empty() || !self.name.bytes().all(letter) {
            return Err(invalid("name may have letters, digits, hyphens and underscores only"));
        }
        if database.pools.iter().any(|other| other.name == self.name) {
            return Err(invalid("a pool of that name exists"));
        }
        if self.origins.is_empty() || self.origins.iter().any(|origin| origin.address.is_empty()) {
            return Err(invalid("the origin list length must be in range [1, 20]"));
        }
        let known = |id: &String| database.monitors.iter().any(|monitor| monitor.id == *id);
        if self.monitor.as_ref().is_some_and(|id| !known(id)) {
            return Err(invalid("monitor is not known"));
        }
        Ok(())
    }

    fn users(&self, database: &Database) -> usize {
        let balancers = database.zones.iter().flat_map(|zone| &zone.load_balancers);
        balancers
            .filter(|found| found.default_pools.contains(&self.id) || found.fallback_pool == self.id)
            .count()
    }
}

impl Pool {
    /// Its origins that get requests, those only that are healthy where it is probed.
    fn up(&self, verdicts: &Verdicts) -> Vec<String> {
        let healthy = |origin: &&Origin| {
            // One that was not judged yet counts as down.
            self.monitor.is_none() || verdicts.get(&probe_id(&self.id, &origin.address)).status == "healthy"
        };
        self.enabled_origins().filter(healthy).map(|origin| origin.address.clone()).collect()
    }

    fn enabled_origins(&self) -> impl Iterator<Item = &Origin> {
        self.origins.iter().filter(|origin| self.enabled && origin.enabled)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LoadBalancer {
    pub(super) id: String,
    pub(super) name: String,
    description: String,
    pub(super) default_pools: Vec<String>,
    fallback_pool: String,
    pub(super) proxied: bool,
    pub(super) enabled: bool,
    pub(super) ttl: u32,
    steering_policy: String,
    session_affinity: String,
    created_on: String,
    modified_on: String,
}

impl Kind for LoadBalancer {
    const WORD: &'static str = "load balancer";

    fn blank() -> Value {
        dated(json!({
            "description": "", "proxied": false, "enabled": true, "ttl": 30, "steering_policy": "off",
            "session_affinity": "none",
        }))
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn check(&self, database: &Database, zone: Option<&Zone>, plan: Plan) -> Result<(), Failure> {
        if plan.pool_limit() == 0 {
            return Err(invalid("load balancing not enabled for zone"));
        }
        let zone = zone.ok_or_else(|| invalid("a zone is needed"))?;
        if !is_within(&self.name, &zone.name) {
            return Err(invalid(&format!("invalid hostname: {}", self.name)));
        }
        if zone.load_balancers.iter().any(|other| other.name == self.name) {
            return Err(invalid("a load balancer of that name exists"));
        }
        let known = |id: &String| database.pools.iter().any(|pool| pool.id == *id);
        if self.default_pools.is_empty() || !self.default_pools.iter().chain([&self.fallback_pool]).all(known)
        {
            return Err(invalid("default_pools and fallback_pool must name pools of the account"));
        }
        match (self.steering_policy.as_str(), self.session_affinity.as_str()) {
            ("off" | "", "none" | "") => Ok(()),
            _ => Err(invalid("this emulator has steering_policy off and session_affinity none only")),
        }
    }

    fn users(&self, _: &Database) -> usize {
        0
    }
}

/// A load balancer and its pools, as edge and DNS see them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Balanced {
    pub(super) proxied: bool,
    pub(super) ttl: u32,
    /// In the order in which they are taken.
    pools: Vec<Pool>,
    fallback: Option<Pool>,
}

impl Balanced {
    /// What has spread of a load balancer that is switched on.
    pub(super) fn of(balancer: &LoadBalancer, database: &Database) -> Self {
        let pool = |id: &String| database.pools.iter().find(|pool| pool.id == *id).cloned();
        Self {
            proxied: balancer.proxied,
            ttl: balancer.ttl,
            pools: balancer.default_pools.iter().filter_map(pool).collect(),
            fallback: pool(&balancer.fallback_pool),
        }
    }

    /// Origins of the first pool that has enough healthy ones; with none, all of the fallback pool's whatever their health.
    pub(super) fn origins(&self, verdicts: &Verdicts) -> Vec<String> {
        for pool in &self.pools {
            let up = pool.up(verdicts);
            if up.len() >= pool.minimum_origins.max(1) {
                return up;
            }
        }
        self.fallback.iter().flat_map(Pool::enabled_origins).map(|origin| origin.address.clone()).collect()
    }
}

fn probe_id(pool: &str, address: &str) -> String {
    format!("{pool}/{address}")
}

/// The probes that monitors ask for: one for each origin of a pool that is switched on.
pub(super) fn probes(database: &Database) -> Vec<HealthCheck> {
    let mut probes = Vec::new();
    for pool in &database.pools {
        let of_pool = |monitor: &&Monitor| Some(&monitor.id) == pool.monitor.as_ref();
        let Some(monitor) = database.monitors.iter().find(of_pool) else { continue };
        probes.extend(pool.enabled_origins().map(|origin| probe(pool, monitor, origin)));
    }
    probes
}

fn probe(pool: &Pool, monitor: &Monitor, origin: &Origin) -> HealthCheck {
    let port = monitor.port.or((origin.port != 0).then_some(origin.port));
    let codes: Vec<&str> = monitor.expected_codes.split(',').map(str::trim).collect();
    HealthCheck {
        id: probe_id(&pool.id, &origin.address),
        name: pool.name.clone(),
        address: origin.address.clone(),
        kind: monitor.kind.to_ascii_uppercase(),
        description: String::new(),
        check_regions: None,
        interval: monitor.interval,
        timeout: monitor.timeout,
        retries: monitor.retries,
        consecutive_fails: monitor.consecutive_down.max(1),
        consecutive_successes: monitor.consecutive_up.max(1),
        suspended: false,
        http_config: Some(json!({
            "method": monitor.method, "port": port, "path": monitor.path, "expected_codes": codes,
            "expected_body": (!monitor.expected_body.is_empty()).then_some(&monitor.expected_body),
            "header": monitor.header, "allow_insecure": monitor.allow_insecure,
        })),
        tcp_config: None,
        created_on: monitor.created_on.clone(),
        modified_on: format!("{} {}", monitor.modified_on, pool.modified_on),
    }
}
