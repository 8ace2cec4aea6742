//! Certificates that are renewed by whoever runs with them, long before they end. The key stays as it is: then one file
//! changes, at once, and the pair fits whenever the process starts again.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{Issued, signing_request_for};
use crate::files::{IdentityFiles, write_private};
use crate::tls::{Credentials, TlsError};

/// Between two looks whether a certificate is to be renewed; a third of its life is left for all attempts.
const LOOK_EVERY: Duration = Duration::from_hours(1);

/// Why a certificate was not renewed. The old one stays in use.
#[derive(Debug, Error)]
pub enum RenewalError {
    /// A file, or what came, can't be used.
    #[error(transparent)]
    Unusable(#[from] TlsError),
    /// Who was asked gave none.
    #[error("{0}")]
    NotGiven(String),
}

/// From when until when a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The first.
    pub begins_s: i64,
    /// The last.
    pub ends_s: i64,
}

impl Life {
    /// Of a certificate.
    ///
    /// # Errors
    /// It can't be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| TlsError::Unusable(format!("the certificate can't be read: {error}")))?;
        let validity = parsed.validity();
        Ok(Self { begins_s: validity.not_before.timestamp(), ends_s: validity.not_after.timestamp() })
    }

    /// Whether less than a third of it is left.
    pub fn is_due(self, now: SystemTime) -> bool {
        self.ends_s - seconds(now) < (self.ends_s - self.begins_s) / 3
    }

    /// Whether it is over.
    pub fn is_over(self, now: SystemTime) -> bool {
        self.ends_s < seconds(now)
    }
}

fn seconds(now: SystemTime) -> i64 {
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Has a certificate renewed whenever less than a third of its life is left, for ever. `ask` gives the chain (PEM) for a signing
/// request (PEM), or why there is none. Who follows the files takes it into use.
pub async fn keep_renewed(files: &IdentityFiles, ask: impl AsyncFn(String) -> Result<String, String>) {
    loop {
        match renew_if_due(files, &ask).await {
            Ok(false) => {}
            Ok(true) => tracing::info!("the certificate is renewed"),
            Err(error) => {
                tracing::warn!(%error, "the certificate could not be renewed: tried again in an hour");
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// True: it is another one now.
///
/// # Errors
/// Nobody gave one, or what came is not for this process.
pub async fn renew_if_due(
    files: &IdentityFiles,
    ask: impl AsyncFn(String) -> Result<String, String>,
) -> Result<bool, RenewalError> {
    let held = files.read()?;
    let old = held.issued()?;
    let own = old.chain.first().ok_or_else(|| unusable("the certificate is empty"))?;
    if !Life::of(own)?.is_due(SystemTime::now()) {
        return Ok(false);
    }
    let csr = signing_request_for(&held.key).map_err(|error| unusable(&error.to_string()))?;
    let chain = ask(csr).await.map_err(RenewalError::NotGiven)?;
    let renewed = Issued::from_pem(&chain, &held.key).map_err(|error| unusable(&error.to_string()))?;
    // What this process would refuse is not kept either.
    Credentials::new(&old)?.replace(&renewed)?;
    let failed = |error| unusable(&format!("{} can't be written: {error}", files.certificate.display()));
    write_private(&files.certificate, chain.as_bytes()).map_err(failed)?;
    Ok(true)
}

fn unusable(reason: &str) -> TlsError {
    TlsError::Unusable(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use diptych_core::ids::ClusterId;

    use super::*;
    use crate::authority::{Authority, Request, chain_pem};
    use crate::identity::{Identity, Role};

    const CLUSTER: ClusterId = ClusterId([3; 16]);
    const DAYS: Duration = Duration::from_hours(90 * 24);

    fn request(validity: Duration) -> Request {
        let site = "east".parse().expect("a name");
        Request::new(Identity { cluster: CLUSTER, site, role: Role::Agent, name: "n1".to_owned() }, validity)
    }

    /// Files with a certificate of which an hour of 25 is left.
    fn nearly_over(authority: &Authority) -> (tempfile::TempDir, IdentityFiles, Issued) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let files =
            IdentityFiles { authority: path("ca.crt"), certificate: path("tls.crt"), key: path("tls.key") };
        let first = authority.issue(&request(Duration::from_hours(1))).expect("issued");
        for (path, text) in [
            (&files.authority, authority.certificate_pem()),
            (&files.certificate, first.chain_pem()),
            (&files.key, first.key_pem()),
        ] {
            write_private(path, text.as_bytes()).expect("written");
        }
        (folder, files, first)
    }

    async fn renewed_by(files: &IdentityFiles, authority: &Authority) -> Result<bool, RenewalError> {
        renew_if_due(files, async |csr: String| {
            Ok(chain_pem(&authority.sign(&csr, &request(DAYS)).expect("signed")))
        })
        .await
    }

    #[tokio::test]
    async fn a_certificate_is_renewed_for_the_same_key_once_a_third_of_its_life_is_left() {
        let authority = Authority::create(CLUSTER).expect("an authority");
        let (_folder, files, first) = nearly_over(&authority);
        assert!(renewed_by(&files, &authority).await.expect("it is given"), "an hour of 25 is left");
        let renewed = files.read().expect("they read").issued().expect("they fit");
        assert_ne!(renewed.chain[0], first.chain[0]);
        assert!(!renewed_by(&files, &authority).await.expect("it is fresh"));
        let life = Life::of(&renewed.chain[0]).expect("it reads");
        let now = SystemTime::now();
        assert!(life.is_due(now + DAYS * 2 / 3 + Duration::from_hours(24)) && !life.is_over(now));
        assert!(life.is_over(now + DAYS + Duration::from_hours(1)));
    }

    #[tokio::test]
    async fn an_answer_that_the_process_could_not_use_is_not_kept() {
        let own = Authority::create(CLUSTER).expect("an authority");
        let (_folder, files, first) = nearly_over(&own);
        let other = Authority::create(CLUSTER).expect("another");
        let refused = renewed_by(&files, &other).await.expect_err("it is another authority's");
        assert!(refused.to_string().contains("another authority"), "{refused}");
        assert_eq!(files.read().expect("they read").certificate, first.chain_pem());
    }
}
