//! What `diptych dev` can be asked for.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use diptych_site::config::{Acknowledge, WitnessKind};

use super::plan::PublicVia;

use super::place::Place;
use super::store::StoreUrl;

/// Options of `diptych dev`. Those of the first start are kept in the data folder; a later start goes on with them.
#[derive(Debug, Clone, Args)]
pub struct DevOptions {
    /// Folder of everything: devices, catalogs, certificates, logs
    #[arg(long, default_value = ".diptych")]
    pub data_dir: PathBuf,
    /// Sites
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub sites: u8,
    /// Node-agents in each site
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub nodes: u8,
    /// Failure domains of each place, as racks or zones are, to which its nodes are dealt out in turn; 0: each node falls alone
    #[arg(long, default_value_t = 0, value_name = "DOMAINS", value_parser = clap::value_parser!(u8).range(0..=32))]
    pub domains: u8,
    /// Devices of each node-agent
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub devices: u8,
    /// Node-agents in neither site; they join by a token each, and hold rows of margin
    #[arg(long, default_value_t = 0, value_name = "NODES", value_parser = clap::value_parser!(u8).range(0..=16))]
    pub outside: u8,
    /// Rows of each extent on them; by default as many as there are nodes
    #[arg(long, value_name = "ROWS", requires = "outside", value_parser = clap::value_parser!(u8).range(0..=16))]
    pub outside_rows: Option<u8>,
    /// The one device of each of them is in a bucket that is there, of a store with conditional writes: PREFIX/NODE
    #[arg(long, value_name = "http[s]://ACCESSKEY:SECRET@HOST[:PORT]/BUCKET/PREFIX", requires = "outside")]
    pub outside_store: Option<StoreUrl>,
    /// When a write is answered: durable in its own site, or in both
    #[arg(long, value_name = "OneSite|BothSites", default_value = "OneSite")]
    pub acknowledge: Acknowledge,
    /// Where the third vote lies
    #[arg(long, value_name = "outside|record|objectstore", default_value = "outside")]
    pub witness: WitnessKind,
    /// What is flipped at the stand-in for Cloudflare
    #[arg(long, value_enum, default_value_t)]
    pub via: PublicVia,
    /// With --witness objectstore: a bucket that is there, of a store with conditional writes, and the key of the record in it
    #[arg(long, value_name = "http[s]://ACCESSKEY:SECRET@HOST[:PORT]/BUCKET/KEY")]
    pub witness_store: Option<StoreUrl>,
    /// Serve S3 and REST by https, with certificates of the cluster's own authority
    #[arg(long)]
    pub tls: bool,
    /// Seconds without a sign of life after which a node's rows are rebuilt elsewhere
    #[arg(long, default_value_t = 10)]
    pub node_dead_after: u32,
    /// MiB a second that repair may move in each site
    #[arg(long, value_name = "MIB", default_value_t = 200)]
    pub repair_lan: u32,
    /// How long a vote of the lease holds, 1s to 1m: the shorter, the sooner a takeover, and the more a pause disturbs
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = diptych_api::common::lease)]
    pub lease: Duration,
    /// Seconds that the preferred site must have been well until it gets the lease back by itself; without it a person hands
    /// it back
    #[arg(long, value_name = "SECONDS")]
    pub failback_after: Option<u32>,
    /// Let the stand-in for Cloudflare look at each site; the active one hands over when it is not reached for so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub edge_grace: Option<u32>,
    /// URL that is told what turns, as Slack's incoming webhooks are
    #[arg(long)]
    pub webhook: Option<String>,
    /// Signs what it is told
    #[arg(long, env = "DIPTYCH_WEBHOOK_SECRET", hide_env_values = true, default_value = "")]
    pub webhook_secret: String,
    /// Address of a site, or of what stands outside, and the network namespace that it runs in; may be repeated
    #[arg(long = "place", value_name = "SITE=ADDRESS[@NAMESPACE]")]
    pub places: Vec<Place>,
}
