//! What the emulator is started with: the same struct from the command line and in tests.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use thiserror::Error;

use super::tokens::TokenSpec;

/// Options of `diptych cloudflare-emulator`. Port 0 takes any free port.
#[derive(Debug, Clone, Args)]
pub struct EmulatorOptions {
    /// Listen address of the v4 API; the base URL is http://ADDRESS/client/v4
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,

    /// Listen address of the DNS server, UDP and TCP; without it there is none
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Option<SocketAddr>,

    /// Listener of the HTTP edge and the port of the origins behind it; may be repeated
    #[arg(long = "edge", value_name = "LISTEN=ORIGINPORT")]
    pub edges: Vec<EdgeListener>,

    /// Listen address of the control API for faults; without it there is none
    #[arg(long, value_name = "ADDRESS")]
    pub control: Option<SocketAddr>,

    /// A zone that exists; may be repeated
    #[arg(long = "zone", value_name = "NAME", default_value = "example.com")]
    pub zones: Vec<String>,

    /// A token: SECRET may do everything; SECRET:zone_read,dns_edit only that; …@example.com only there; may be repeated
    #[arg(long = "token", value_name = "TOKEN", env = "CLOUDFLARE_EMULATOR_TOKEN", hide_env_values = true)]
    pub tokens: Vec<TokenSpec>,

    /// File with more tokens, one a line
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Id of the account that owns the zones
    #[arg(long, default_value = "023e105f4ecef8ad9ca31a8372d0c353")]
    pub account: String,

    /// What the zones' plan allows
    #[arg(long, value_enum, default_value_t = Plan::Pro)]
    pub plan: Plan,

    /// Seconds until edge and DNS see a change that the API acknowledged
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub propagation: Duration,

    /// File that keeps zones, records and health checks over restarts
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,

    /// Host name that the edge takes a request for where its Host header is an address or localhost
    #[arg(long, value_name = "NAME")]
    pub default_host: Option<String>,

    /// Address that DNS gives for proxied names; the edge listeners' addresses by default; may be repeated
    #[arg(long = "edge-address", value_name = "IP")]
    pub edge_addresses: Vec<IpAddr>,

    /// Largest body, in bytes, that the edge lets through; more is answered 413
    #[arg(long, value_name = "BYTES", default_value_t = 100 * 1000 * 1000)]
    pub body_limit: u64,

    /// Edge and origins by https
    #[command(flatten)]
    pub edge_tls: Option<EdgeTlsFiles>,

    /// Seconds until a connection to an origin is given up with 522; Cloudflare waits 19
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub origin_connect_limit: Duration,

    /// Seconds without progress until an origin's answer is given up with 524
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub origin_answer_limit: Duration,

    /// Factor on the interval of health checks: 0.05 makes 60 s into 3 s
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub health_scale: f64,

    /// Calls that a user may make within the window
    #[arg(long, value_name = "CALLS", default_value_t = 1200)]
    pub rate_limit: usize,

    /// Seconds of the window, and of the lock-out when it is exceeded
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub rate_window: Duration,
}

impl EmulatorOptions {
    /// An emulator on free ports of the loopback address: API, DNS and control, one zone, one token that may do everything.
    pub fn local(zone: &str, token: &str) -> Result<Self, InvalidOption> {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self {
            listen: loopback,
            dns: Some(loopback),
            edges: Vec::new(),
            control: Some(loopback),
            zones: vec![zone.to_owned()],
            tokens: vec![token.parse()?],
            token_file: None,
            account: "023e105f4ecef8ad9ca31a8372d0c353".to_owned(),
            plan: Plan::Pro,
            propagation: Duration::ZERO,
            state: None,
            default_host: None,
            edge_addresses: Vec::new(),
            body_limit: 100 * 1000 * 1000,
            edge_tls: None,
            origin_connect_limit: Duration::from_secs(3),
            origin_answer_limit: Duration::from_mins(2),
            health_scale: 1.0,
            rate_limit: 1200,
            rate_window: Duration::from_mins(5),
        })
    }

    /// What proxied names answer in DNS.
    pub(super) fn edge_addresses(&self) -> Vec<IpAddr> {
        if !self.edge_addresses.is_empty() {
            return self.edge_addresses.clone();
        }
        let mut all: Vec<IpAddr> = self.edges.iter().map(|edge| specific(edge.listen.ip())).collect();
        all.sort_unstable();
        all.dedup();
        if all.is_empty() { vec![IpAddr::from([127, 0, 0, 1])] } else { all }
    }
}

fn specific(address: IpAddr) -> IpAddr {
    if address.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address }
}

/// An option that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{option}: {reason}")]
pub struct InvalidOption {
    /// Which.
    pub option: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// What the edge needs to serve by https, and to ask its origins so; all of it or none.
#[derive(Debug, Clone, Args)]
pub struct EdgeTlsFiles {
    /// Certificate of the edge with its chain, PEM
    #[arg(long, value_name = "FILE", required = false, requires_all = ["edge_key", "origin_authority"])]
    pub edge_certificate: PathBuf,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", required = false, requires_all = ["edge_certificate", "origin_authority"])]
    pub edge_key: PathBuf,
    /// Authority of which the origins' certificates must be, PEM
    #[arg(long, value_name = "FILE", required = false, requires_all = ["edge_certificate", "edge_key"])]
    pub origin_authority: PathBuf,
}

/// One listener of the edge: a request to it goes to the origin's address at this port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeListener {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Port of the origins.
    pub origin_port: u16,
}

impl FromStr for EdgeListener {
    type Err = InvalidOption;

    fn from_str(text: &str) -> Result<Self, InvalidOption> {
        let parse = || {
            let (listen, port) = text.rsplit_once('=')?;
            Some(Self { listen: listen.parse().ok()?, origin_port: port.parse().ok()? })
        };
        parse().ok_or_else(|| InvalidOption {
            option: "--edge",
            reason: format!(
                "{text:?} is not like 127.0.0.1:8080=9000 (listen address = port of the origins)"
            ),
        })
    }
}

impl fmt::Display for EdgeListener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.listen, self.origin_port)
    }
}

/// Plan of the zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plan {
    /// 200 records and as many actions in a batch; no health checks, no load balancing.
    Free,
    /// 3,500 of both; ten health checks; load balancing with 20 pools, which is paid for apart.
    Pro,
}

impl Plan {
    /// Records of a zone, and actions of one batch.
    pub(super) const fn record_limit(self) -> usize {
        match self {
            Self::Free => 200,
            Self::Pro => 3500,
        }
    }

    pub(super) const fn health_check_limit(self) -> usize {
        match self {
            Self::Free => 0,
            Self::Pro => 10,
        }
    }

    pub(super) const fn pool_limit(self) -> usize {
        match self {
            Self::Free => 0,
            Self::Pro => 20,
        }
    }

    pub(super) const fn monitor_limit(self) -> usize {
        match self {
            Self::Free => 1,
            Self::Pro => 30,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Free => "Free",
            Self::Pro => "Pro",
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}
