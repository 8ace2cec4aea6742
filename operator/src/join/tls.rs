//! TLS of the join listener: the operator's certificate, and no client's: who asks has none yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use diptych_wire::files::{self, Followed};
use diptych_wire::tls::TlsError;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::identity_in;
use crate::options::OperatorOptions;

/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Accepts TLS connections.
pub(super) struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl TlsListener {
    pub(super) fn new(listener: TcpListener, config: Arc<ServerConfig>) -> Self {
        Self { listener, acceptor: config.into() }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            match tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await {
                Ok(Ok(stream)) => return (stream, address),
                Ok(Err(error)) => tracing::warn!(%address, %error, "a handshake for a join failed"),
                Err(_) => tracing::warn!(%address, "a handshake for a join took too long"),
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Waits for the certificate that the leading operator makes and this process keeps in its folder.
pub(super) async fn wait_for_identity(options: &OperatorOptions) -> Arc<ServerConfig> {
    let mut logged = false;
    loop {
        match read(options) {
            Ok(config) => return config,
            Err(reason) if !logged => {
                tracing::info!(%reason, "joins wait for this operator's certificate");
                logged = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Renewed whenever the folder's files are.
fn read(options: &OperatorOptions) -> Result<Arc<ServerConfig>, TlsError> {
    files::credentials(Followed::open(&identity_in(&options.folder))?)?.open_server_config()
}
