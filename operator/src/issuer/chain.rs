//! What an issuer signed, made into a chain that everybody in the cluster takes.
//!
//! ```text
//! certificate ──signed by──► the issuer's authority, vouched for ──signed by──► the cluster's authority
//! ```
//! The middle one has the name and the key of the issuer's authority and ends with the certificate. So nobody's trust changes,
//! now or when the issuer's authority is another one, and what it signs is worth nothing to us a moment longer than needed.

use std::time::Duration;

use diptych_wire::authority::{Authority, AuthorityError, Issued, chain_pem};
use diptych_wire::renewal::Life;
use diptych_wire::tls::{Credentials, TlsError, identity_of};
use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::request::Answer;
use super::step::Held;
use crate::secrets::Certificate;

/// Why what an issuer signed is not used.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    /// No certificates.
    #[error("status.certificate and status.ca hold no readable PEM: {0}")]
    Unreadable(String),
    /// Nobody would know who it is.
    #[error(
        "the certificate does not carry the URI {wanted} ({found}): have the issuer keep URI names of the request, as \
         allowed_uri_sans of a Vault role does"
    )]
    Identity {
        /// Its name.
        wanted: String,
        /// What it says instead.
        found: String,
    },
    /// Names of hosts that were asked for.
    #[error("the certificate lacks the DNS names {0}: have the issuer keep those of the request")]
    Names(String),
    /// It may not serve.
    #[error(
        "the certificate is not for servers and clients: have the issuer keep the usages server auth and client auth"
    )]
    Usages,
    /// The one who signed can't be vouched for.
    #[error(
        "neither status.certificate nor status.ca has the certificate of the authority that signed: take an issuer that hands it out"
    )]
    NoAuthority,
    /// The one who signed can't be vouched for either.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// This process would not take it.
    #[error(transparent)]
    Unusable(#[from] TlsError),
}

impl Refusal {
    /// For the condition.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "AnswerUnreadable",
            Self::Identity { .. } => "IdentityDropped",
            Self::Names(_) => "NamesDropped",
            Self::Usages => "UsagesDropped",
            Self::NoAuthority | Self::Authority(_) => "AuthorityUnknown",
            Self::Unusable(_) => "CertificateUnusable",
        }
    }
}

/// The chain (PEM) that is used from now on.
pub(super) fn accept(
    certificate: &Certificate,
    held: &Held,
    answer: &Answer,
    authority: &Authority,
    now: Timestamp,
) -> Result<String, Refusal> {
    let found = pem(&answer.chain)?.into_iter().chain(pem(&answer.authority)?).collect::<Vec<_>>();
    let [own, others @ ..] = &found[..] else {
        return Err(Refusal::Unreadable("there is no certificate".to_owned()));
    };
    is_whole(certificate, own)?;
    let left = Life::of(own)?.ends_s - now.as_second();
    let signer = signer(own, others)?.ok_or(Refusal::NoAuthority)?;
    let validity = Duration::from_secs(u64::try_from(left).unwrap_or_default());
    let vouched = authority.vouch_for(signer, validity)?;
    let chain = vec![own.clone(), vouched, authority.certificate().clone()];
    let pem = chain_pem(&chain);
    // As every process that follows the Secret does: key, chain and times are looked at.
    Credentials::new(&held.issued)?.replace(&Issued { chain, key: held.issued.key.clone_key() })?;
    Ok(pem)
}

fn pem(text: &str) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let all = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    all.map_err(|error| Refusal::Unreadable(error.to_string()))
}

/// Whether all that was asked for stands in it.
fn is_whole(certificate: &Certificate, own: &CertificateDer<'_>) -> Result<(), Refusal> {
    let wanted = certificate.identity.to_string();
    match identity_of(own) {
        Ok(identity) if identity == certificate.identity => {}
        Ok(identity) => return Err(Refusal::Identity { wanted, found: format!("it is {identity}'s") }),
        Err(error) => return Err(Refusal::Identity { wanted, found: error.to_string() }),
    }
    let lacking = certificate.lacks(own);
    if !lacking.is_empty() {
        return Err(Refusal::Names(lacking.join(", ")));
    }
    let parsed = parse(own)?;
    let usages = parsed.extended_key_usage().ok().flatten();
    let serves = usages
        .is_none_or(|usages| usages.value.any || (usages.value.server_auth && usages.value.client_auth));
    if serves { Ok(()) } else { Err(Refusal::Usages) }
}

/// Who signed it, of those that came with it.
fn signer<'a>(
    own: &CertificateDer<'_>,
    others: &'a [CertificateDer<'static>],
) -> Result<Option<&'a CertificateDer<'static>>, Refusal> {
    let own = parse(own)?;
    for other in others {
        if parse(other)?.subject().as_raw() == own.issuer().as_raw() {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Refusal> {
    let parsed = X509Certificate::from_der(certificate.as_ref());
    parsed.map(|(_, parsed)| parsed).map_err(|error| Refusal::Unreadable(error.to_string()))
}
