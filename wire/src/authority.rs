//! The cluster's own certificate authority, and the short-lived certificates that it issues.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use diptych_core::ids::ClusterId;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::identity::Identity;

/// Certificates begin this much before they are made: clocks of machines differ.
const DATED_BACK: Duration = Duration::from_hours(24);
/// Life of an authority.
const AUTHORITY_LIFE: Duration = Duration::from_hours(10 * 365 * 24);

/// The authority or a certificate can't be made or read.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The certificate library refused.
    #[error("the certificate can't be made or read")]
    Certificate(#[from] rcgen::Error),
    /// Not PEM, or not what it should hold.
    #[error("{what} is not readable PEM: {reason}")]
    Pem {
        /// Which input.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Another authority that this one can't vouch for.
    #[error("the authority {subject:?} can't be vouched for: {reason}")]
    Other {
        /// Its name.
        subject: String,
        /// Why.
        reason: &'static str,
    },
}

/// SHA-256 of a certificate: how people and tokens name it.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(Sha256::digest(certificate.as_ref()))
}

/// SHA-256 of the public key of a signing request (PEM), whose holder's signature is checked: who sent it.
pub fn key_of_request(csr: &str) -> Result<[u8; 32], AuthorityError> {
    let csr = rcgen::CertificateSigningRequestParams::from_pem(csr)?;
    Ok(Sha256::digest(csr.public_key.subject_public_key_info()).into())
}

/// Whom a certificate is for, and for how long.
#[derive(Debug, Clone)]
pub struct Request {
    /// Stands in the certificate as its URI.
    pub identity: Identity,
    /// From now on.
    pub validity: Duration,
    /// For programs that check names of hosts (etcd, browsers).
    pub dns_names: Vec<String>,
    /// Likewise.
    pub addresses: Vec<IpAddr>,
}

impl Request {
    /// For an internal link: the URI alone is checked.
    pub const fn new(identity: Identity, validity: Duration) -> Self {
        Self { identity, validity, dns_names: Vec::new(), addresses: Vec::new() }
    }
}

/// A certificate, its key, and the authority that it is from.
#[derive(Debug)]
pub struct Issued {
    /// Certificate, then the authority's.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS #8.
    pub key: PrivateKeyDer<'static>,
}

impl Issued {
    /// Certificate and the authority's, as PEM.
    pub fn chain_pem(&self) -> String {
        chain_pem(&self.chain)
    }

    /// The private key, as PEM. Secret.
    pub fn key_pem(&self) -> String {
        to_pem("PRIVATE KEY", self.key.secret_der())
    }

    /// Reads what `chain_pem` and `key_pem` wrote, or cert-manager.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, AuthorityError> {
        let pem = |what, reason: rustls_pki_types::pem::Error| AuthorityError::Pem {
            what,
            reason: reason.to_string(),
        };
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| pem("the certificate chain", error))?;
        let key =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| pem("the private key", error))?;
        Ok(Self { chain, key })
    }
}

impl Clone for Issued {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// Certificates, as PEM.
pub fn chain_pem(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|certificate| to_pem("CERTIFICATE", certificate.as_ref())).collect()
}

fn to_pem(label: &str, der: &[u8]) -> String {
    use std::fmt::Write as _;
    let text = base64(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        let _ = writeln!(pem, "{}", String::from_utf8_lossy(line));
    }
    let _ = writeln!(pem, "-----END {label}-----");
    pem
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The cluster's certificate authority. Its key is secret; it is kept sealed by a ring key in the catalog.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority for a cluster.
    pub fn create(cluster: ClusterId) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = dated(AUTHORITY_LIFE);
        params.distinguished_name = common_name(&format!("Diptych {cluster}"));
        // One more stands between where it vouches for another authority.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Reads what `certificate_pem` and `key_pem` wrote.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|error| {
            AuthorityError::Pem { what: "the authority's certificate", reason: error.to_string() }
        })?;
        let key = KeyPair::from_pem(key)?;
        Ok(Self { issuer: Issuer::from_ca_cert_der(&der, key)?, certificate: der.into_owned() })
    }

    /// Its certificate.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its certificate as PEM: what others trust.
    pub fn certificate_pem(&self) -> String {
        to_pem("CERTIFICATE", self.certificate.as_ref())
    }

    /// Its private key as PEM. Secret.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// SHA-256 of its certificate: what a join token carries.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// A fresh key, and a certificate for it.
    pub fn issue(&self, request: &Request) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params_for(request)?.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            chain: vec![certificate.der().clone(), self.certificate.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// A certificate for the key of a signing request (PEM), which proves that the sender has it. Identity and names are
    /// taken from `request` alone: what the sender wrote into its own counts for nothing.
    pub fn sign(&self, csr: &str, request: &Request) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let mut csr = rcgen::CertificateSigningRequestParams::from_pem(csr)?;
        csr.params = params_for(request)?;
        let certificate = csr.signed_by(&self.issuer)?;
        Ok(vec![certificate.der().clone(), self.certificate.clone()])
    }

    /// A certificate for another authority's name and key: who trusts this one trusts what that one signs, from now on for
    /// `validity`. That one can let no further authority in.
    pub fn vouch_for(
        &self,
        other: &CertificateDer<'_>,
        validity: Duration,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let parsed = parse(other)?;
        let cant = |reason| AuthorityError::Other { subject: parsed.subject().to_string(), reason };
        let mut params = dated(validity);
        params.distinguished_name = name_of(&parsed).map_err(cant)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.use_authority_key_identifier_extension = true;
        for extension in parsed.extensions() {
            if let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() {
                params.key_identifier_method = KeyIdMethod::PreSpecified(id.0.to_vec());
            }
        }
        let key = SubjectPublicKeyInfo::from_der(parsed.public_key().raw)?;
        let made = params.signed_by(&key, &self.issuer)?.der().clone();
        // Chains are built by the bytes of names.
        if parse(&made)?.subject().as_raw() != parsed.subject().as_raw() {
            return Err(cant("its name can't be written again as it is"));
        }
        Ok(made)
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, AuthorityError> {
    let parsed = X509Certificate::from_der(certificate.as_ref());
    parsed
        .map(|(_, parsed)| parsed)
        .map_err(|error| AuthorityError::Pem { what: "a certificate", reason: error.to_string() })
}

/// The name of an authority, to be written into another certificate.
fn name_of(certificate: &X509Certificate<'_>) -> Result<DistinguishedName, &'static str> {
    let mut names = DistinguishedName::new();
    for attribute in certificate.subject().iter_attributes() {
        let kind = attribute.attr_type().iter().ok_or("its name can't be read")?;
        let text = attribute.as_str().map_err(|_| "its name is in no text that is known here")?;
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => {
                DnValue::PrintableString(text.try_into().map_err(|_| "its name can't be read")?)
            }
            Tag::Ia5String => DnValue::Ia5String(text.try_into().map_err(|_| "its name can't be read")?),
            _ => return Err("its name is in no text that is known here"),
        };
        names.push(DnType::from_oid(&kind.collect::<Vec<u64>>()), value);
    }
    Ok(names)
}

/// A fresh key (PEM, secret) and a signing request (PEM) for it.
pub fn signing_request() -> Result<(String, String), AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem();
    let csr = signing_request_for(&key)?;
    Ok((key, csr))
}

/// A signing request (PEM) for a key (PEM) that is here already.
pub fn signing_request_for(key: &str) -> Result<String, AuthorityError> {
    Ok(CertificateParams::default().serialize_request(&KeyPair::from_pem(key)?)?.pem()?)
}

/// The same for an authority that takes identity and names from what is sent. Usages stand beside it.
pub fn signing_request_as(key: &str, request: &Request) -> Result<String, AuthorityError> {
    Ok(named(request)?.serialize_request(&KeyPair::from_pem(key)?)?.pem()?)
}

fn params_for(request: &Request) -> Result<CertificateParams, AuthorityError> {
    let mut params = named(request)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn named(request: &Request) -> Result<CertificateParams, AuthorityError> {
    let mut params = dated(request.validity);
    params.distinguished_name = common_name(&format!("{} {}", request.identity.role, request.identity.name));
    params.subject_alt_names.push(SanType::URI(Ia5String::try_from(request.identity.to_string())?));
    for name in &request.dns_names {
        params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(name.clone())?));
    }
    params.subject_alt_names.extend(request.addresses.iter().copied().map(SanType::IpAddress));
    Ok(params)
}

fn dated(validity: Duration) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::from(now - DATED_BACK);
    params.not_after = OffsetDateTime::from(now + validity);
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    // 64 characters are the limit of a common name; who it is stands in the URI.
    names.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    names
}
