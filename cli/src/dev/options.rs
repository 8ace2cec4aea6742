//! What `diptych dev` can be asked for.

use std::path::PathBuf;

use clap::Args;
use diptych_site::config::{Acknowledge, WitnessKind};

use super::place::Place;

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
    /// Devices of each node-agent
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub devices: u8,
    /// When a write is answered: durable in its own site, or in both
    #[arg(long, value_name = "OneSite|BothSites", default_value = "OneSite")]
    pub acknowledge: Acknowledge,
    /// Where the third vote lies
    #[arg(long, value_name = "outside|record", default_value = "outside")]
    pub witness: WitnessKind,
    /// Serve S3 and REST by https, with certificates of the cluster's own authority
    #[arg(long)]
    pub tls: bool,
    /// Seconds without a sign of life after which a node's rows are rebuilt elsewhere
    #[arg(long, default_value_t = 10)]
    pub node_dead_after: u32,
    /// Address of a site, or of what stands outside, and the network namespace that it runs in; may be repeated
    #[arg(long = "place", value_name = "SITE=ADDRESS[@NAMESPACE]")]
    pub places: Vec<Place>,
}
