//! The custom resources, as Rust types. crds/ and docs/reference/ are made from them by `diptych-crds`.
//!
//! What can't be valid is refused by the API server itself, by schema or CEL; what only the operator can know (does this
//! topology survive what is declared?) becomes a condition.

#![expect(unreachable_pub, reason = "KubeSchema repeats each struct inside a function")]
#![expect(clippy::duplicated_attributes, reason = "printer columns of one resource share types and paths")]

pub mod access_key;
pub mod common;
pub mod failover_drill;
pub mod failover_drill_status;
pub mod file_object;
pub mod generate;
pub mod storage_cluster;
pub mod storage_cluster_status;
pub mod storage_node;

pub use access_key::{AccessKey, AccessKeySpec, AccessKeyStatus};
pub use common::{ClusterRef, NameRef, NamespacedClusterRef};
pub use failover_drill::{FailoverDrill, FailoverDrillSpec};
pub use failover_drill_status::FailoverDrillStatus;
pub use file_object::{Content, FileObject, FileObjectSpec, FileObjectStatus};
pub use storage_cluster::{Certificates, IssuerRef, StorageCluster, StorageClusterSpec};
pub use storage_cluster_status::StorageClusterStatus;
pub use storage_node::{StorageNode, StorageNodeSpec, StorageNodeStatus};

/// Group of all resources but files.
pub const GROUP: &str = "diptych.dev";
/// Group of files, alone, so that an aggregated API server can serve it whole.
pub const FILES_GROUP: &str = "files.diptych.dev";
/// The one version that there is.
pub const VERSION: &str = "v1alpha1";
