//! The Kubernetes side of a site: custom resources become pods, and what the catalog knows becomes status.
//!
//! Nothing here is needed while files are read and written: with the API server down a site serves and fails over as
//! before. The loops that do that (`diptych-site`) run in the same process; [`run`] gives them their configuration.

pub mod access_key;
pub mod apply;
pub mod cluster;
pub mod conditions;
pub mod config;
pub mod drill;
pub mod error;
pub mod events;
pub mod file;
pub mod finalizer;
pub mod flag;
pub mod health;
pub mod issuer;
pub mod join;
pub mod leader;
pub mod names;
pub mod node;
pub mod options;
pub mod review;
pub mod run;
pub mod secrets;
pub mod tenancy;
mod tunnel_token;

pub use config::PodConfig;
pub use error::OperatorError;
pub use options::{Images, OperatorOptions, OwnAtEdge, SiteLink};
pub use run::run;
