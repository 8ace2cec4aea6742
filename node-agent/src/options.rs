//! How an agent is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use diptych_core::ids::DeviceId;
use diptych_store::OpenOptions;
use diptych_wire::server::ServerOptions;
use diptych_wire::tls::Credentials;

use crate::bucket::BucketStore;

/// A folder, or a place in a bucket, that is a device, or shall become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOption {
    /// Folder, or `s3://BUCKET/PREFIX`.
    pub path: PathBuf,
    /// Its number. With it, a folder that is empty or not there is made a device; without it, an empty folder waits for
    /// the operator's `Format`, and a missing one is reported as missing.
    pub device: Option<DeviceId>,
    /// Bytes that it may hold; None: what its file system has, 1 TiB of a bucket.
    pub capacity: Option<u64>,
}

/// When and how fast all that lies on the devices is read and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubOptions {
    /// From one round's end to the next one's.
    pub every: Duration,
    /// Of each device.
    pub bytes_per_second: u64,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { every: Duration::from_hours(168), bytes_per_second: 20 << 20 }
    }
}

/// How an agent is started. Cluster, site and node are those of its credentials.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Who it is: role agent, and its node's name.
    pub credentials: Credentials,
    /// Its devices.
    pub devices: Vec<DeviceOption>,
    /// The store that buckets among them are in.
    pub bucket_store: Option<BucketStore>,
    /// Where it takes mTLS connections; port 0: any.
    pub listen: Option<SocketAddr>,
    /// Where processes of this machine may connect. A socket that is left over is replaced. Beside it lies what the agent remembers of
    /// the buckets that it holds.
    pub socket: Option<PathBuf>,
    /// Where it answers `/live`, `/ready` and `/metrics` by plain HTTP; port 0: any.
    pub health: Option<SocketAddr>,
    /// Bounds of what is in flight.
    pub server: ServerOptions,
    /// Care for what lies there.
    pub scrub: ScrubOptions,
    /// How devices are opened; capacity and identity are set by device.
    pub store: OpenOptions,
    /// Between two looks at the devices: whether they are still there, whether lost ones are back.
    pub look: Duration,
    /// A stream without appends for this long is given up.
    pub stream_idle: Duration,
}

impl AgentOptions {
    /// With the usual times and bounds, and no listener yet.
    pub fn new(credentials: Credentials, devices: Vec<DeviceOption>) -> Self {
        Self {
            credentials,
            devices,
            bucket_store: None,
            listen: None,
            socket: None,
            health: None,
            server: ServerOptions::default(),
            scrub: ScrubOptions::default(),
            store: OpenOptions::default(),
            look: Duration::from_secs(2),
            stream_idle: Duration::from_mins(1),
        }
    }
}
