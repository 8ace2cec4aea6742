//! Certificates in files, which change while a process runs: the kubelet swaps a mounted Secret, an operator or an agent
//! writes what was renewed, a person copies it. A look each half minute takes them into use; nothing is restarted.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use crate::authority::Issued;
use crate::tls::{Credentials, TlsError, open_server_config, provider};

/// Between two looks at the files. Certificates are renewed weeks before their end.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Files of a process's identity, all PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityFiles {
    /// The cluster's authority.
    pub authority: PathBuf,
    /// Certificate of this process.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What such files held at a moment.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The authority.
    pub authority: String,
    /// Certificate and chain.
    pub certificate: String,
    /// The private key. Secret.
    pub key: String,
}

impl fmt::Debug for Pem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pem").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Pem {
    /// Certificate and key. Whether they fit is seen when they are used.
    ///
    /// # Errors
    /// They are no PEM.
    pub fn issued(&self) -> Result<Issued, TlsError> {
        Issued::from_pem(&self.certificate, &self.key).map_err(|error| TlsError::Unusable(error.to_string()))
    }
}

impl IdentityFiles {
    /// What they hold now.
    ///
    /// # Errors
    /// One can't be read.
    pub fn read(&self) -> Result<Pem, TlsError> {
        let read = |path: &Path| {
            let failed = |error| TlsError::Unusable(format!("{} can't be read: {error}", path.display()));
            std::fs::read_to_string(path).map_err(failed)
        };
        Ok(Pem {
            authority: read(&self.authority)?,
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
        })
    }
}

/// Replaces a file whole, readable by its owner only: it may hold secrets.
///
/// # Errors
/// The file is as it was.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// Files that were read once and are looked at again.
#[derive(Debug)]
pub struct Followed {
    files: IdentityFiles,
    every: Duration,
    /// What is in use.
    used: Pem,
}

impl Followed {
    /// Reads them.
    ///
    /// # Errors
    /// One can't be read.
    pub fn open(files: &IdentityFiles) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), every: LOOK_EVERY, used: files.read()? })
    }

    /// With another time between two looks.
    #[must_use]
    pub const fn each(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// What they held when they were opened.
    pub const fn pem(&self) -> &Pem {
        &self.used
    }

    /// Has `take` give what the files hold later to `user`, for as long as there is one. What can't be read, or is refused,
    /// is logged once and tried again with each look: a pair may be half written. Needs a tokio runtime.
    pub fn give<T, E, Taken>(self, user: &Arc<T>, take: impl Fn(Arc<T>, Pem) -> Taken + Send + 'static)
    where
        T: Send + Sync + 'static,
        E: Display + Send,
        Taken: Future<Output = Result<(), E>> + Send,
    {
        let Self { files, every, mut used } = self;
        let user = Arc::downgrade(user);
        tokio::spawn(async move {
            let mut refused = None;
            loop {
                tokio::time::sleep(every).await;
                let Some(user) = user.upgrade() else { return };
                let found = files.read().map_err(|error| error.to_string());
                let taken = match &found {
                    Ok(pem) if *pem == used => continue,
                    Ok(pem) => take(user, pem.clone()).await.map_err(|error| error.to_string()),
                    Err(reason) => Err(reason.clone()),
                };
                let file = files.certificate.display();
                match (taken, found) {
                    (Ok(()), Ok(pem)) => {
                        tracing::info!(%file, "a renewed certificate is used from now on");
                        used = pem;
                    }
                    (Err(reason), found) if refused.as_ref() != Some(&found) => {
                        tracing::warn!(%file, reason, "a changed certificate can't be used: the old one is, until it can");
                        refused = Some(found);
                    }
                    _ => {}
                }
            }
        });
    }
}

/// The identity of a process, always as its files hold it.
///
/// # Errors
/// Certificate or key can't be used.
pub fn credentials(files: Followed) -> Result<Credentials, TlsError> {
    let own = Credentials::new(&files.pem().issued()?)?;
    files.give(&own.material, |material, pem| {
        let replaced = pem.issued().and_then(|issued| Credentials { material }.replace(&issued));
        std::future::ready(replaced)
    });
    Ok(own)
}

/// For public listeners: the certificate may be of any authority, and callers have none.
///
/// # Errors
/// Certificate or key can't be used.
pub fn public_server_config(files: Followed) -> Result<Arc<ServerConfig>, TlsError> {
    let shown = Arc::new(Shown(ArcSwap::from_pointee(certified_key(files.pem())?)));
    files.give(&shown, |shown, pem| {
        std::future::ready(certified_key(&pem).map(|key| shown.0.store(Arc::new(key))))
    });
    open_server_config(shown, rustls::DEFAULT_VERSIONS)
}

fn certified_key(pem: &Pem) -> Result<CertifiedKey, TlsError> {
    let issued = pem.issued()?;
    CertifiedKey::from_der(issued.chain, issued.key, &provider())
        .map_err(|error| TlsError::Unusable(error.to_string()))
}

/// What a public listener shows.
#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
