//! What goes over the wire, as far as it is used. Unknown fields are ignored.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// `ttl` that leaves the time to Cloudflare (300 s).
pub const TTL_AUTO: u32 = 1;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

pub(super) use id;

id!(
    /// An account: 32 hexadecimal digits.
    AccountId
);
id!(
    /// A zone: 32 hexadecimal digits.
    ZoneId
);
id!(
    /// A record: 32 hexadecimal digits, new for each record that is created.
    RecordId
);
id!(
    /// A health check.
    HealthCheckId
);

/// Cloudflare shows what is not set as null, or not at all.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What every answer is wrapped in.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) success: bool,
    pub(super) result: T,
    #[serde(default)]
    pub(super) result_info: Option<ResultInfo>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct ResultInfo {
    pub(super) total_count: Option<u64>,
}

/// Whether a token works.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TokenStatus {
    /// The token's id; not a secret.
    pub id: String,
    /// Whether it may be used.
    pub status: TokenState,
    /// RFC 3339; absent: never.
    #[serde(default)]
    pub expires_on: Option<String>,
}

/// State of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// Works.
    Active,
    /// Switched off by its owner.
    Disabled,
    /// Its time is over.
    Expired,
    /// A state that this client does not know.
    #[serde(other)]
    Unknown,
}

/// A zone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Zone {
    /// Id for all calls below it.
    pub id: ZoneId,
    /// `example.com`.
    pub name: String,
    /// Whose it is.
    pub account: Account,
    /// `active` where Cloudflare answers for it.
    #[serde(default)]
    pub status: Option<String>,
}

/// The account of a zone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// Id for all calls below it.
    pub id: AccountId,
}

/// Type of a record. Those that the failover never touches keep their text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RecordType {
    /// IPv4 address.
    A,
    /// IPv6 address.
    #[serde(rename = "AAAA")]
    Aaaa,
    /// Alias: at most one on a name, and none beside it that gives addresses.
    #[serde(rename = "CNAME")]
    Cname,
    /// Any other.
    #[serde(untagged)]
    Other(String),
}

impl fmt::Display for RecordType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Other(text) => text,
        })
    }
}

/// A record as listed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DnsRecord {
    /// New for each record created, so it tells one writing from the next.
    pub id: RecordId,
    /// Whole name, with the zone.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub kind: RecordType,
    /// Address, target or text.
    #[serde(default)]
    pub content: String,
    /// Fronted by Cloudflare's edge.
    #[serde(default)]
    pub proxied: bool,
    /// Seconds, or [`TTL_AUTO`].
    #[serde(default)]
    pub ttl: u32,
    /// For people and for ownership; never in a DNS answer.
    #[serde(default)]
    pub comment: Option<String>,
}

/// A record to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewRecord {
    /// Whole name, with the zone.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub kind: RecordType,
    /// Address, target or text.
    pub content: String,
    /// Fronted by Cloudflare's edge.
    pub proxied: bool,
    /// Seconds, or [`TTL_AUTO`].
    pub ttl: u32,
    /// Ownership.
    pub comment: String,
}

/// A record to replace whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PutRecord {
    /// Which.
    pub id: RecordId,
    /// What it becomes.
    #[serde(flatten)]
    pub record: NewRecord,
}

/// A change of some fields of a record. Last writer wins: never for a witness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PatchRecord {
    /// Which.
    pub id: RecordId,
    /// Whole name, with the zone.
    pub name: String,
    /// Type; must be the one that it has.
    #[serde(rename = "type")]
    pub kind: RecordType,
    /// Address, target or text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Fronted by Cloudflare's edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxied: Option<bool>,
    /// Seconds, or [`TTL_AUTO`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// Ownership.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Which records to list. Empty: all of the zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Exactly this name.
    pub name: Option<String>,
    /// Only of this type.
    pub kind: Option<RecordType>,
}

/// Changes that are applied together or not at all, in this order: deletes, patches, puts, posts.
///
/// How fast each changed name spreads to the edge is its own affair: that part is not atomic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Batch {
    /// Records to delete.
    #[serde(serialize_with = "as_objects")]
    pub deletes: Vec<RecordId>,
    /// Records to change.
    pub patches: Vec<PatchRecord>,
    /// Records to replace.
    pub puts: Vec<PutRecord>,
    /// Records to create.
    pub posts: Vec<NewRecord>,
}

impl Batch {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.deletes.is_empty() && self.patches.is_empty() && self.puts.is_empty() && self.posts.is_empty()
    }

    /// Adds the other's changes behind these.
    pub fn append(&mut self, mut other: Self) {
        self.deletes.append(&mut other.deletes);
        self.patches.append(&mut other.patches);
        self.puts.append(&mut other.puts);
        self.posts.append(&mut other.posts);
    }
}

fn as_objects<S: serde::Serializer>(ids: &[RecordId], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Object<'a> {
        id: &'a RecordId,
    }
    serializer.collect_seq(ids.iter().map(|id| Object { id }))
}

/// The records that a batch left (deleted ones as they were).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct BatchAnswer {
    /// Deleted.
    #[serde(default)]
    pub deletes: Option<Vec<DnsRecord>>,
    /// Changed.
    #[serde(default)]
    pub patches: Option<Vec<DnsRecord>>,
    /// Replaced.
    #[serde(default)]
    pub puts: Option<Vec<DnsRecord>>,
    /// Created.
    #[serde(default)]
    pub posts: Option<Vec<DnsRecord>>,
}

/// A health check to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewHealthCheck {
    /// Name, unique by convention only.
    pub name: String,
    /// Host name or address to probe.
    pub address: String,
    /// `HTTP`, `HTTPS` or `TCP`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For people and for ownership.
    pub description: String,
    /// Seconds between probes; the plan sets the least.
    pub interval: u32,
    /// Seconds for one probe.
    pub timeout: u32,
    /// Further probes, at once, before one counts as failed.
    pub retries: u32,
    /// Failed probes in a row until unhealthy.
    pub consecutive_fails: u32,
    /// Good probes in a row until healthy.
    pub consecutive_successes: u32,
    /// Regions to probe from; absent: one of Cloudflare's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_regions: Option<Vec<String>>,
    /// For `HTTP` and `HTTPS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_config: Option<HttpConfig>,
    /// For `TCP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_config: Option<TcpConfig>,
}

impl NewHealthCheck {
    /// An HTTP check with Cloudflare's own defaults for the rest.
    pub fn http(name: &str, address: &str, config: HttpConfig) -> Self {
        Self {
            name: name.to_owned(),
            address: address.to_owned(),
            kind: "HTTP".to_owned(),
            description: String::new(),
            interval: 60,
            timeout: 5,
            retries: 2,
            consecutive_fails: 1,
            consecutive_successes: 1,
            check_regions: None,
            http_config: Some(config),
            tcp_config: None,
        }
    }
}

/// How an HTTP check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpConfig {
    /// `GET` or `HEAD`.
    pub method: String,
    /// TCP port.
    pub port: u16,
    /// Begins with a slash.
    pub path: String,
    /// `200`, `2xx`, …
    pub expected_codes: Vec<String>,
    /// For `HTTPS`: any certificate will do.
    #[serde(default)]
    pub allow_insecure: bool,
    /// Sent headers, each with its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<std::collections::BTreeMap<String, Vec<String>>>,
}

/// How a TCP check connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpConfig {
    /// `connection_established`.
    pub method: String,
    /// TCP port.
    pub port: u16,
}

/// A health check and Cloudflare's verdict: a hint, never a right.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HealthCheck {
    /// Id.
    pub id: HealthCheckId,
    /// Name as created.
    pub name: String,
    /// What is probed.
    pub address: String,
    /// Verdict.
    #[serde(default)]
    pub status: HealthStatus,
    /// Why it failed last; `No failures` while healthy.
    #[serde(default)]
    pub failure_reason: Option<String>,
    /// Ownership.
    #[serde(default)]
    pub description: Option<String>,
    /// Seconds between probes.
    #[serde(default)]
    pub interval: Option<u32>,
    /// `HTTP`, `HTTPS` or `TCP`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// For `HTTP` and `HTTPS`.
    #[serde(default)]
    pub http_config: Option<HttpConfig>,
}

/// Verdict of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Answers as expected.
    Healthy,
    /// Does not.
    Unhealthy,
    /// Switched off.
    Suspended,
    /// Not probed yet, or a state that this client does not know.
    #[default]
    #[serde(other)]
    Unknown,
}
