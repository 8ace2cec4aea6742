//! TLS of the edge: clients see its own certificate, origins must have one of the authority that was given, for the name
//! that was asked for (Cloudflare's mode "Full (strict)").

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::emulator::EmulatorError;
use crate::emulator::options::EdgeTlsFiles;

/// Both sides of the edge.
pub(super) struct EdgeTls {
    pub clients: TlsAcceptor,
    pub origins: TlsConnector,
}

impl EdgeTls {
    pub(super) fn load(files: &EdgeTlsFiles) -> Result<Self, EmulatorError> {
        let EdgeTlsFiles { edge_certificate, edge_key, origin_authority } = files;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::from_pem_file(edge_key).map_err(|error| wrong(edge_key, error))?;
        let clients = server(&provider, certificates(edge_certificate)?, key)
            .map_err(|error| wrong(edge_certificate, error))?;
        let origins = client(&provider, certificates(origin_authority)?)
            .map_err(|error| wrong(origin_authority, error))?;
        Ok(Self { clients: Arc::new(clients).into(), origins: Arc::new(origins).into() })
    }
}

fn server(
    provider: &Arc<CryptoProvider>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider));
    builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_single_cert(chain, key)
}

fn client(
    provider: &Arc<CryptoProvider>,
    authority: Vec<CertificateDer<'static>>,
) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in authority {
        roots.add(certificate)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EmulatorError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| wrong(path, error))
}

fn wrong(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> EmulatorError {
    EmulatorError::File { path: path.to_path_buf(), source: io::Error::other(error) }
}
