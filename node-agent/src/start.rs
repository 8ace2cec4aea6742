//! Starting an agent, its loops, and stopping it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use diptych_core::erasure::simd_available;
use diptych_core::ids::NodeName;
use diptych_store::{Keyring, OpenOptions};
use diptych_wire::identity::{Expected, Role};
use diptych_wire::server::{Listeners, Server};
use diptych_wire::tls::TlsError;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::bucket::{self, PlaceError};
use crate::device::{Devices, Owner, Slot};
use crate::handler::AgentHandler;
use crate::health;
use crate::options::AgentOptions;
use crate::siblings::Siblings;

/// What was measured of devices counts half after this.
const FORGET_HALF_EVERY: Duration = Duration::from_secs(10);

/// Why an agent did not start. How devices are is no reason: that is reported in its status.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listener can't be opened.
    #[error("can't listen on {place}: is another agent running there?")]
    Listen {
        /// Address or socket.
        place: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Certificate and key do not serve.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate is somebody else's.
    #[error("an agent needs a certificate of role agent whose name is its node's: {reason}")]
    Identity {
        /// What is wrong with it.
        reason: String,
    },
    /// A device in a bucket that can't be asked for at all.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Nobody could ever ask it anything.
    #[error("an agent needs an address or a socket to listen on")]
    NoListener,
    /// The code was built for CPUs with AVX2.
    #[error("this CPU lacks AVX2, which the erasure code was built for: run the agent on another machine")]
    Cpu,
}

/// An agent that runs until its shutdown token is cancelled.
#[derive(Debug)]
pub struct RunningAgent {
    address: Option<SocketAddr>,
    health: Option<SocketAddr>,
    task: JoinHandle<()>,
}

impl RunningAgent {
    /// Where it takes mTLS connections.
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Where it answers probes.
    pub const fn health(&self) -> Option<SocketAddr> {
        self.health
    }

    /// Waits for its end.
    pub async fn stopped(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the agent ended badly");
        }
    }
}

/// Runs an agent until `shutdown` is cancelled.
pub async fn run(options: AgentOptions, shutdown: CancellationToken) -> Result<(), StartError> {
    start(options, shutdown).await?.stopped().await;
    Ok(())
}

/// Starts an agent: its listeners are open and its devices were looked at when this returns.
pub async fn start(options: AgentOptions, shutdown: CancellationToken) -> Result<RunningAgent, StartError> {
    if !simd_available() {
        return Err(StartError::Cpu);
    }
    let identity = options.credentials.identity();
    let wrong = |reason: String| StartError::Identity { reason };
    if identity.role != Role::Agent {
        return Err(wrong(format!("it is of role {}", identity.role)));
    }
    let node: NodeName = identity.name.parse().map_err(|error| wrong(format!("{error}")))?;
    let listeners = listen(&options).await?;
    let address = listeners.tls.as_ref().and_then(|(listener, _)| listener.local_addr().ok());

    let owner = Owner { cluster: identity.cluster, site: identity.site.clone() };
    let slots = options.devices.iter().map(|device| -> Result<_, StartError> {
        let store = OpenOptions { capacity: device.capacity, ..options.store.clone() };
        let path = device.path.clone();
        let bucket = bucket::is_bucket(&path).then(|| {
            let folder = options.socket.as_ref().and_then(|socket| socket.parent());
            let local =
                folder.zip(device.device).map(|(folder, id)| folder.join(format!("bucket-{id}.hold")));
            bucket::place(&path, options.bucket_store.as_ref(), node.as_str(), local)
        });
        Ok(Arc::new(Slot::new(path, bucket.transpose()?, device.device, store, owner.clone())))
    });
    let devices = Devices::new(slots.collect::<Result<_, _>>()?);
    let siblings = Siblings::new(options.credentials.clone());
    let agent = Arc::new(Agent::new(identity, node, devices, siblings));
    agent.look().await;

    let handler = AgentHandler { agent: agent.clone(), counters: OnceLock::new(), stop: shutdown.clone() };
    let handler = Arc::new(handler);
    let server = Server::new(handler.clone(), options.server.clone(), shutdown.clone());
    let _ = handler.counters.set(server.counters());
    let health = match options.health {
        Some(address) => {
            Some(health::serve(address, agent.clone(), server.counters(), shutdown.clone()).await?)
        }
        None => None,
    };
    let task = tokio::spawn(serve(agent, server, listeners, options, shutdown));
    Ok(RunningAgent { address, health, task })
}

async fn serve(
    agent: Arc<Agent>,
    server: Arc<Server<AgentHandler>>,
    listeners: Listeners,
    options: AgentOptions,
    shutdown: CancellationToken,
) {
    let watch = tokio::spawn(watch(agent.clone(), options.look, options.stream_idle, shutdown.clone()));
    let slots = agent.devices.slots().iter().cloned();
    let scrubs: Vec<_> =
        slots.map(|slot| tokio::spawn(slot.scrub_loop(options.scrub, shutdown.clone()))).collect();
    server.serve(listeners).await;
    let _ = watch.await;
    for scrub in scrubs {
        let _ = scrub.await;
    }
    for (_, device) in agent.devices.open() {
        let closed = tokio::task::spawn_blocking(move || device.close()).await;
        if !matches!(closed, Ok(Ok(()))) {
            tracing::warn!(?closed, "a device was not closed cleanly; the next start checks it");
        }
    }
    if let Some(socket) = &options.socket {
        let _ = std::fs::remove_file(socket);
    }
    tracing::info!(node = %agent.node, "agent stopped");
}

async fn listen(options: &AgentOptions) -> Result<Listeners, StartError> {
    let mut listeners = Listeners::default();
    if let Some(address) = options.listen {
        let failed = |source| StartError::Listen { place: address.to_string(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let expected = Expected::any_of(options.credentials.identity().cluster);
        listeners.tls = Some((listener, options.credentials.server_config(expected, &[])?));
    }
    if let Some(socket) = &options.socket {
        listeners.unix = Some(
            bind_socket(socket)
                .map_err(|source| StartError::Listen { place: socket.display().to_string(), source })?,
        );
    }
    if listeners.tls.is_none() && listeners.unix.is_none() {
        return Err(StartError::NoListener);
    }
    Ok(listeners)
}

/// Replaces a socket that a killed agent left; one that still answers is somebody's.
fn bind_socket(path: &PathBuf) -> std::io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Looks at the devices and sweeps streams until the shutdown.
async fn watch(agent: Arc<Agent>, look: Duration, stream_idle: Duration, shutdown: CancellationToken) {
    let mut forgotten = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(look) => {}
            () = shutdown.cancelled() => return,
        }
        agent.look().await;
        if forgotten.elapsed() >= FORGET_HALF_EVERY {
            forgotten = Instant::now();
            for slot in agent.devices.slots() {
                slot.forget_half();
            }
        }
        agent.streams.sweep(stream_idle);
    }
}

impl Agent {
    /// Whether the devices are still there, and whether lost ones are back.
    pub(crate) async fn look(&self) {
        futures::future::join_all(self.devices.slots().iter().map(|slot| self.look_at(slot))).await;
    }

    /// FENCING: a device that is opened admits the highest stamp heard before it takes anything, and what it has heard
    /// itself counts for the whole agent.
    pub(crate) async fn look_at(&self, slot: &Arc<Slot>) {
        let (slot, highest, keyring) = (slot.clone(), self.fence.highest(), self.keyring());
        let opened = tokio::task::spawn_blocking(move || {
            let opened = slot.look()?;
            slot.admit_first(&opened, highest).ok()?;
            if let Some(keyring) = keyring {
                let kept =
                    opened.device.put_keyring(Keyring { number: keyring.generation, bytes: keyring.sealed });
                tracing::debug!(?kept, "keyring offered to a device that came back");
            }
            let known = opened.device.highest_stamp();
            slot.put_in_use(opened);
            Some(known)
        });
        if let Ok(Some(known)) = opened.await {
            self.fence.remember(known);
        }
    }
}
