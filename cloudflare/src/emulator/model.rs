//! What the emulator keeps: zones with their records, health checks and load balancers, and the account's pools,
//! monitors and tunnels, as the state file has them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::balancing::{LoadBalancer, Monitor, Pool};
use super::tunnels::Tunnel;

/// Everything that survives a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Database {
    pub(super) zones: Vec<Zone>,
    #[serde(default)]
    pub(super) monitors: Vec<Monitor>,
    #[serde(default)]
    pub(super) pools: Vec<Pool>,
    #[serde(default)]
    pub(super) tunnels: Vec<Tunnel>,
}

impl Database {
    pub(super) fn zone(&self, id: &str) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.id == id)
    }

    pub(super) fn zone_mut(&mut self, id: &str) -> Option<&mut Zone> {
        self.zones.iter_mut().find(|zone| zone.id == id)
    }

    /// The zone that a name belongs to: the longest match.
    pub(super) fn zone_of(&self, name: &str) -> Option<&Zone> {
        self.zones.iter().filter(|zone| is_within(name, &zone.name)).max_by_key(|zone| zone.name.len())
    }
}

/// Is the name the zone's or below it? Both in lower case, without a dot at the end.
pub(super) fn is_within(name: &str, zone: &str) -> bool {
    name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'))
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Zone {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) created_on: String,
    /// Grows with each change of a record.
    pub(super) serial: u32,
    pub(super) records: Vec<Record>,
    pub(super) health_checks: Vec<HealthCheck>,
    #[serde(default)]
    pub(super) load_balancers: Vec<LoadBalancer>,
}

impl Zone {
    pub(super) fn new(name: &str) -> Self {
        Self {
            id: new_id(),
            name: name.to_owned(),
            created_on: now(),
            serial: 1,
            records: Vec::new(),
            health_checks: Vec::new(),
            load_balancers: Vec::new(),
        }
    }

    pub(super) fn name_servers(&self) -> [String; 2] {
        ["ada", "bob"].map(|name| format!("{name}.ns.{}", self.name))
    }

    pub(super) fn to_api(&self, account: &str, plan: &str) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "status": "active",
            "paused": false,
            "type": "full",
            "development_mode": 0,
            "name_servers": self.name_servers(),
            "original_name_servers": ["ns1.originaldnshost.example", "ns2.originaldnshost.example"],
            "original_registrar": null,
            "original_dnshost": null,
            "created_on": self.created_on,
            "modified_on": self.created_on,
            "activated_on": self.created_on,
            "vanity_name_servers": [],
            "meta": {
                "cdn_only": false, "custom_certificate_quota": 0, "dns_only": false, "foundation_dns": false,
                "page_rule_quota": 20, "phishing_detected": false, "step": 2,
            },
            "owner": {"id": account, "type": "user", "name": "Emulator"},
            "account": {"id": account, "name": "Emulator"},
            "permissions": ["#dns_records:edit", "#dns_records:read", "#zone:read"],
            "plan": {
                "id": "0feeeeeeeeeeeeeeeeeeeeeeeeeeeeee", "name": format!("{plan} Website"), "price": 0,
                "currency": "USD", "frequency": "", "is_subscribed": true, "can_subscribe": false,
                "legacy_id": plan.to_ascii_lowercase(), "legacy_discount": false, "externally_managed": false,
            },
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    /// Whole name, lower case.
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) content: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) priority: Option<u16>,
    pub(super) proxied: bool,
    pub(super) ttl: u32,
    pub(super) settings: Value,
    pub(super) comment: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) created_on: String,
    pub(super) modified_on: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) comment_modified_on: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tags_modified_on: Option<String>,
}

/// Types that the edge can front.
pub(super) fn is_proxiable(kind: &str) -> bool {
    matches!(kind, "A" | "AAAA" | "CNAME")
}

impl Record {
    /// A new one, in which nothing is said yet.
    pub(super) fn blank() -> Self {
        let at = now();
        Self {
            id: new_id(),
            name: String::new(),
            kind: String::new(),
            content: String::new(),
            data: None,
            priority: None,
            proxied: false,
            ttl: 1,
            settings: json!({}),
            comment: None,
            tags: Vec::new(),
            created_on: at.clone(),
            modified_on: at,
            comment_modified_on: None,
            tags_modified_on: None,
        }
    }

    pub(super) fn to_api(&self) -> Value {
        let mut value = json!(self);
        value["proxiable"] = Value::from(is_proxiable(&self.kind));
        value["meta"] = json!({});
        value
    }

    /// Seconds that a DNS answer may be kept.
    pub(super) fn seconds(&self) -> u32 {
        if self.ttl <= 1 || self.proxied { 300 } else { self.ttl }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HealthCheck {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) address: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) description: String,
    pub(super) check_regions: Option<Vec<String>>,
    pub(super) interval: u32,
    pub(super) timeout: u32,
    pub(super) retries: u32,
    pub(super) consecutive_fails: u32,
    pub(super) consecutive_successes: u32,
    pub(super) suspended: bool,
    pub(super) http_config: Option<Value>,
    pub(super) tcp_config: Option<Value>,
    pub(super) created_on: String,
    pub(super) modified_on: String,
}

/// 32 hexadecimal digits, as all of Cloudflare's ids.
pub(super) fn new_id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// The time, as the API writes it.
pub(super) fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).expect("the year has four digits")
}
