//! What can go wrong, and what to do.

use thiserror::Error;

/// Why something could not be done. Each is tried again.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// The API server refused or did not answer.
    #[error("the API server: {what}")]
    Api {
        /// What was asked of it.
        what: String,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] diptych_catalog::CatalogError),
    /// A record of the catalog.
    #[error(transparent)]
    Record(#[from] diptych_core::records::RecordError),
    /// What the site's loops share with the operator.
    #[error(transparent)]
    Site(#[from] diptych_site::error::SiteError),
    /// The gateway.
    #[error("the gateway: {0}")]
    Gateway(String),
    /// Certificates.
    #[error("the cluster's authority")]
    Authority(#[from] diptych_wire::authority::AuthorityError),
    /// A Secret without what it should hold.
    #[error("Secret {name}: {reason}")]
    Secret {
        /// Its name.
        name: String,
        /// What is missing, and what to do.
        reason: String,
    },
    /// A listener or file of this process.
    #[error("{what}")]
    Local {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Something that this program made is not what it should be.
    #[error("{0}")]
    Internal(String),
}

impl OperatorError {
    /// Category for metrics, logs and Events.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Api { .. } => "ApiServer",
            Self::Catalog(_) | Self::Record(_) | Self::Site(_) => "Catalog",
            Self::Gateway(_) => "Gateway",
            Self::Authority(_) => "Authority",
            Self::Secret { .. } => "Secret",
            Self::Local { .. } => "Local",
            Self::Internal(_) => "Internal",
        }
    }

    /// Whether an object was changed since it was read.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 409))
    }

    /// With its causes, for a condition.
    pub fn chain(&self) -> String {
        diptych_wire::http::chain(self)
    }
}

/// Says what was asked of the API server.
pub trait Asked<T> {
    /// `what` as in "the API server: `what`".
    fn asked(self, what: impl FnOnce() -> String) -> Result<T, OperatorError>;
}

impl<T> Asked<T> for Result<T, kube::Error> {
    fn asked(self, what: impl FnOnce() -> String) -> Result<T, OperatorError> {
        self.map_err(|source| OperatorError::Api { what: what(), source: Box::new(source) })
    }
}
