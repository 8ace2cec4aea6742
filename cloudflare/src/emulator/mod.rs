//! Stands in for Cloudflare: the v4 API, DNS, the HTTP edge before proxied names, and health checks that really probe.
//!
//! ```text
//!  API ──► Store (one writer, durable) ──► Propagation (delay) ──► View ──► DNS, edge
//!   ▲        └──────────► prober                                            │
//!  faults ◄── control API                                                   ▼
//!                                                                        origins
//! ```
//! It speaks what the official clients speak; a client can't tell it from the real thing by protocol. The control API is
//! for tests: the product never calls it.

mod api;
mod balancing;
mod control;
mod dns;
mod edge;
mod failure;
mod faults;
mod limit;
mod model;
mod options;
mod prober;
mod propagation;
mod records;
mod serve;
mod store;
mod tokens;
mod tunnels;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::{Request, Response};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub use faults::{CallFault, Faults, NextCalls, Only};
pub use options::{EdgeListener, EdgeTlsFiles, EmulatorOptions, InvalidOption, Plan};
pub use tokens::{Right, TokenSpec};

use faults::FaultBoard;
use limit::RateLimit;
use prober::Verdicts;
use propagation::Propagation;
use serve::{Cut, Handler, bind, serve};
use store::Store;
use tokens::Tokens;

/// Why the emulator did not start.
#[derive(Debug, Error)]
pub enum EmulatorError {
    /// An option can't be used.
    #[error(transparent)]
    Option(#[from] InvalidOption),
    /// An address can't be listened on.
    #[error("{what} can't listen on {address}")]
    Listen {
        /// Which listener.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file can't be read or written.
    #[error("{} can't be used", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Signals can't be waited for.
    #[error("signals can't be waited for")]
    Signal(#[source] io::Error),
}

/// What all parts look at.
#[derive(Debug)]
struct Shared {
    account: String,
    plan: Plan,
    edge_addresses: Vec<IpAddr>,
    tokens: Tokens,
    store: Arc<Store>,
    propagation: Arc<Propagation>,
    limit: RateLimit,
    faults: FaultBoard,
    /// What clearing goes back to.
    calm: Faults,
    verdicts: Verdicts,
}

impl Shared {
    fn set_faults(&self, mut faults: Faults) {
        let ids: BTreeSet<String> = faults
            .revoked
            .iter()
            .filter_map(|name| self.tokens.find(name))
            .map(|token| token.id.clone())
            .collect();
        faults.revoked = ids;
        let delay = Duration::from_millis(faults.propagation_ms);
        self.propagation.set_delay(delay, Duration::from_millis(faults.jitter_ms));
        self.faults.set(faults);
    }

    fn clear_faults(&self) {
        self.set_faults(self.calm.clone());
        self.limit.clear();
        self.propagation.flush();
    }
}

/// A running emulator. Dropped: stopped, its connections cut.
#[derive(Debug)]
pub struct Emulator {
    shared: Arc<Shared>,
    stop: CancellationToken,
    api: SocketAddr,
    dns: Option<SocketAddr>,
    control: Option<SocketAddr>,
    edges: Vec<SocketAddr>,
}

impl Emulator {
    /// Binds all listeners and serves in the background of the current runtime.
    ///
    /// # Errors
    /// An address is taken, a file can't be used, or there is no token.
    pub async fn start(options: EmulatorOptions) -> Result<Self, EmulatorError> {
        let shared = Arc::new(share(&options)?);
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let listener = bind("the API", options.listen).await?;
        let api = local_address("the API", options.listen, &listener)?;
        tokio::spawn(serve(listener, Arc::new(api::ApiHandler::new(Arc::clone(&shared))), stop.clone()));
        let control = match options.control {
            Some(address) => Some(start_control(address, &shared, &stop).await?),
            None => None,
        };
        let dns = match options.dns {
            Some(address) => Some(dns::start(address, Arc::clone(&shared), stop.clone()).await?),
            None => None,
        };
        let edges = edge::start(&options, &shared, &stop).await?;
        let propagation = Arc::clone(&shared.propagation);
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move { propagation.run().await }));
        let probing = prober::run(Arc::clone(&shared), options.health_scale);
        tokio::spawn(stop.clone().run_until_cancelled_owned(probing));
        guard.disarm();
        Ok(Self { shared, stop, api, dns, control, edges })
    }

    /// Base URL for clients: `http://…/client/v4`.
    pub fn api_url(&self) -> String {
        format!("http://{}{}", self.api, api::PREFIX)
    }

    /// Where DNS answers, by UDP and TCP.
    pub fn dns_address(&self) -> Option<SocketAddr> {
        self.dns
    }

    /// Base URL of the control API.
    pub fn control_url(&self) -> Option<String> {
        self.control.map(|address| format!("http://{address}"))
    }

    /// Where the edge listens, in the order of the options.
    pub fn edge_addresses(&self) -> &[SocketAddr] {
        &self.edges
    }

    /// The faults at the moment.
    pub fn faults(&self) -> Faults {
        self.shared.faults.get()
    }

    /// Changes the faults.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.faults();
        change(&mut faults);
        self.shared.set_faults(faults);
    }

    /// Lets a connector in that shows this token, as cloudflared would: requests for the tunnel's names then go to their services.
    ///
    /// # Errors
    /// The token is not the tunnel's, or not any more.
    pub async fn connect_tunnel(&self, token: &str) -> Result<(), String> {
        let token = token.to_owned();
        let let_in = self.shared.store.change(move |database| tunnels::connect(database, &token));
        let_in.await.map_err(|failure| failure.message)
    }

    /// Back to how it was started: no faults, no lock-out, nothing still on its way.
    pub fn clear_faults(&self) {
        self.shared.clear_faults();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Runs an emulator until SIGTERM or SIGINT. `started` is told where it listens.
///
/// # Errors
/// As [`Emulator::start`].
pub async fn run(options: EmulatorOptions, started: impl FnOnce(&Emulator)) -> Result<(), EmulatorError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(EmulatorError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(EmulatorError::Signal)?;
    let emulator = Emulator::start(options).await?;
    tracing::info!(
        api = emulator.api_url(), dns = ?emulator.dns, edges = ?emulator.edges, control = ?emulator.control,
        "the Cloudflare emulator is ready"
    );
    started(&emulator);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn share(options: &EmulatorOptions) -> Result<Shared, EmulatorError> {
    let calm = Faults {
        propagation_ms: u64::try_from(options.propagation.as_millis()).unwrap_or(u64::MAX),
        ..Faults::default()
    };
    let propagation = Arc::new(Propagation::default());
    propagation.set_delay(options.propagation, Duration::ZERO);
    let path = options.state.clone();
    let store = Store::open(path.clone(), &options.zones, Arc::clone(&propagation))
        .map_err(|source| EmulatorError::File { path: path.unwrap_or_default(), source })?;
    Ok(Shared {
        account: options.account.clone(),
        plan: options.plan,
        edge_addresses: options.edge_addresses(),
        tokens: Tokens::new(read_tokens(options)?),
        store: Arc::new(store),
        propagation,
        limit: RateLimit::new(options.rate_limit, options.rate_window),
        faults: FaultBoard::new(calm.clone()),
        calm,
        verdicts: Verdicts::default(),
    })
}

fn read_tokens(options: &EmulatorOptions) -> Result<Vec<TokenSpec>, EmulatorError> {
    let mut tokens = options.tokens.clone();
    if let Some(path) = &options.token_file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| EmulatorError::File { path: path.clone(), source })?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            tokens.push(line.parse()?);
        }
    }
    if tokens.is_empty() {
        let reason = "none given, so no call could be allowed; give --token or --token-file".to_owned();
        return Err(InvalidOption { option: "--token", reason }.into());
    }
    Ok(tokens)
}

fn local_address(
    what: &'static str,
    address: SocketAddr,
    listener: &tokio::net::TcpListener,
) -> Result<SocketAddr, EmulatorError> {
    listener.local_addr().map_err(|source| EmulatorError::Listen { what, address, source })
}

/// Serves an axum router that is never down.
struct Plain(Router);

impl Handler for Plain {
    type Body = axum::body::Body;

    async fn handle(
        self: Arc<Self>,
        _: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Self::Body>, Cut> {
        Ok(self.0.clone().oneshot(request).await?)
    }
}

async fn start_control(
    address: SocketAddr,
    shared: &Arc<Shared>,
    stop: &CancellationToken,
) -> Result<SocketAddr, EmulatorError> {
    let listener = bind("the control API", address).await?;
    let bound = local_address("the control API", address, &listener)?;
    tokio::spawn(serve(listener, Arc::new(Plain(control::router(Arc::clone(shared)))), stop.clone()));
    Ok(bound)
}
