//! mTLS of TLS 1.3: who one is and whom one trusts, exchangeable while connections are open.
//!
//! The chain to the cluster's authority and the URI in the certificate are checked; names of hosts are not.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, OtherError,
    RootCertStore, ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{Issued, fingerprint};
use crate::identity::{Expected, Identity, ParseIdentityError, UnexpectedPeer};

/// A certificate that can't be used, or a peer that is not to be trusted.
#[derive(Debug, Clone, Error)]
pub enum TlsError {
    /// Somebody else's authority.
    #[error(
        "the peer's certificate is from another authority (fingerprint {found}), trusted is {trusted}: \
         it belongs to another cluster, or has joined with another token"
    )]
    OtherAuthority {
        /// SHA-256 of the last certificate that the peer sent.
        found: String,
        /// SHA-256 of the authority that is trusted.
        trusted: String,
    },
    /// The right authority, somebody else.
    #[error(transparent)]
    UnexpectedPeer(#[from] UnexpectedPeer),
    /// The certificate says not who it is.
    #[error("the certificate carries no identity: {0}")]
    NoIdentity(String),
    /// The certificate carries a malformed one.
    #[error(transparent)]
    BadIdentity(#[from] ParseIdentityError),
    /// The certificate or key can't be used.
    #[error("certificate or key can't be used: {0}")]
    Unusable(String),
}

impl From<TlsError> for rustls::Error {
    fn from(error: TlsError) -> Self {
        Self::Other(OtherError(Arc::new(error)))
    }
}

/// The provider that all configurations here use.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Makes it the default of the process, for libraries that take that one. A second installation changes nothing.
pub fn install_provider() {
    let _ = aws_lc_rs::default_provider().install_default();
}

/// The identity in a certificate: its one URI that begins with `diptych://`.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, TlsError> {
    let none = |reason: &str| TlsError::NoIdentity(reason.to_owned());
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| TlsError::NoIdentity(error.to_string()))?;
    let names = parsed.subject_alternative_name().map_err(|error| TlsError::NoIdentity(error.to_string()))?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with("diptych://") => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri.parse()?),
        (None, _) => Err(none("it has no URI of diptych")),
        (Some(_), Some(_)) => Err(none("it has more than one URI of diptych")),
    }
}

/// Identity of the other end of an established connection.
pub fn peer_identity(connection: &CommonState) -> Result<Identity, TlsError> {
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    certificate.map_or_else(|| Err(TlsError::NoIdentity("the peer sent none".to_owned())), identity_of)
}

/// What a process is and trusts at a moment.
#[derive(Debug)]
pub(crate) struct Material {
    identity: Identity,
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    /// Checks the chain of a client's certificate; who it is is checked after.
    client_chain: Arc<dyn ClientCertVerifier>,
    trusted: String,
}

impl Material {
    fn new(issued: &Issued) -> Result<Self, TlsError> {
        let unusable = |error: rustls::Error| TlsError::Unusable(error.to_string());
        let [own, .., authority] = &issued.chain[..] else {
            return Err(TlsError::Unusable(
                "the chain must hold the certificate and its authority's".to_owned(),
            ));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).map_err(unusable)?;
        let roots = Arc::new(roots);
        let client_chain = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|error| TlsError::Unusable(error.to_string()))?;
        let key = CertifiedKey::from_der(issued.chain.clone(), issued.key.clone_key(), &provider())
            .map_err(unusable)?;
        Ok(Self {
            identity: identity_of(own)?,
            key: Arc::new(key),
            roots,
            client_chain,
            trusted: fingerprint(authority),
        })
    }

    /// Whether others will take it for what it says: from its authority, and valid now.
    fn check(&self) -> Result<(), TlsError> {
        let [own, rest @ ..] = &self.key.cert[..] else {
            return Err(TlsError::Unusable("there is no certificate".to_owned()));
        };
        let checked = self.client_chain.verify_client_cert(own, rest, UnixTime::now());
        checked.map(drop).map_err(|error| TlsError::Unusable(error.to_string()))
    }

    fn explain(
        &self,
        error: rustls::Error,
        chain: &[CertificateDer<'_>],
        own: &CertificateDer<'_>,
    ) -> rustls::Error {
        let foreign = matches!(
            error,
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature
            )
        );
        if foreign {
            let found = fingerprint(chain.last().unwrap_or(own));
            TlsError::OtherAuthority { found, trusted: self.trusted.clone() }.into()
        } else {
            error
        }
    }
}

/// Certificate, key and authority of a process. Cheap to clone; all clones and all configurations made of it see what
/// `replace` put in, from the next handshake on. [`crate::files`] does that with what lies in files.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) material: Arc<ArcSwap<Material>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("identity", &self.identity().to_string())
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Certificate first, the authority last in the chain.
    pub fn new(issued: &Issued) -> Result<Self, TlsError> {
        Ok(Self { material: Arc::new(ArcSwap::from_pointee(Material::new(issued)?)) })
    }

    /// Takes a renewed certificate into use.
    ///
    /// # Errors
    /// It is somebody else's or another authority's, it is not valid now, or the key is not its key. The old one stays.
    pub fn replace(&self, issued: &Issued) -> Result<(), TlsError> {
        let (old, new) = (self.material.load(), Material::new(issued)?);
        if new.identity != old.identity {
            let (new, old) = (&new.identity, &old.identity);
            return Err(TlsError::Unusable(format!("the certificate is {new}'s, and this process is {old}")));
        }
        if new.trusted != old.trusted {
            return Err(TlsError::OtherAuthority { found: new.trusted, trusted: old.trusted.clone() });
        }
        new.check()?;
        self.material.store(Arc::new(new));
        Ok(())
    }

    /// Who this process is.
    pub fn identity(&self) -> Identity {
        self.material.load().identity.clone()
    }

    /// SHA-256 of the authority.
    pub fn authority_fingerprint(&self) -> String {
        self.material.load().trusted.clone()
    }

    /// For a listener that takes connections of `expected` only. `alpn` is empty for frames, `http/1.1` for HTTP.
    pub fn server_config(&self, expected: Expected, alpn: &[&str]) -> Result<Arc<ServerConfig>, TlsError> {
        let verifier = Arc::new(Verifier::new(self.clone(), expected));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Unusable(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Resolver(self.clone())));
        // A resumed session would skip the check of who asks, and outlive a change of the authority.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// For a listener whose callers have no certificate: they show something else.
    pub fn open_server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        open_server_config(Arc::new(Resolver(self.clone())), &[&rustls::version::TLS13])
    }

    /// For connections to `expected`.
    pub fn client_config(&self, expected: Expected, alpn: &[&str]) -> Result<Arc<ClientConfig>, TlsError> {
        let verifier = Arc::new(Verifier::new(self.clone(), expected));
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Unusable(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        // Likewise for who answers.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// For callers without a certificate.
pub(crate) fn open_server_config(
    own: Arc<dyn ResolvesServerCert>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ServerConfig>, TlsError> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| TlsError::Unusable(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(own);
    Ok(Arc::new(config))
}

/// Name that is sent where TLS wants one; nobody checks it.
pub fn no_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into())
}

#[derive(Debug)]
struct Resolver(Credentials);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.material.load().key.clone())
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.material.load().key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Checks the other end, whichever it is: chain to the authority, then the identity.
#[derive(Debug)]
struct Verifier {
    credentials: Credentials,
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(credentials: Credentials, expected: Expected) -> Self {
        Self { credentials, expected, algorithms: provider().signature_verification_algorithms }
    }

    fn check_identity(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let found = identity_of(certificate)?;
        self.expected.check(&found).map_err(TlsError::from)?;
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let material = self.credentials.material.load();
        let parsed = ParsedCertificate::try_from(own)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &material.roots,
            intermediates,
            now,
            self.algorithms.all,
        )
        .map_err(|error| material.explain(error, intermediates, own))?;
        self.check_identity(own)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: they could not change with the authority.
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let material = self.credentials.material.load();
        let verified = material
            .client_chain
            .verify_client_cert(own, intermediates, now)
            .map_err(|error| material.explain(error, intermediates, own))?;
        self.check_identity(own)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
