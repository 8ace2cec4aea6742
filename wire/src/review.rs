//! What a gateway asks its keeper about users of Kubernetes, since it has no rights of its own there. Bodies are postcard. 503 with
//! the reason: nobody can be asked now.

use diptych_core::session::User;
use serde::{Deserialize, Serialize};

/// Where a keeper is asked whose a token is: `String` → `Option<User>`; None: it is nobody's.
pub const IDENTIFY: &str = "/keeper/v1/identify";
/// Where a keeper is asked what somebody may do: [`Question`] → `bool`.
///
/// An operator of before files belonged to other namespaces would answer for its own one: it does not know this path.
pub const REVIEW: &str = "/keeper/v2/review";

/// What is done to a resource, in the words of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verb {
    /// Read one.
    Get,
    /// Read many.
    List,
    /// Make one.
    Create,
    /// Change one.
    Update,
    /// Remove one.
    Delete,
}

impl Verb {
    /// As a Role writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// To what it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Resource {
    /// Files.
    FileObjects,
    /// The site itself: its status, its orders.
    StorageClusters,
}

impl Resource {
    /// Its API group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::FileObjects => "files.diptych.dev",
            Self::StorageClusters => "diptych.dev",
        }
    }

    /// Its plural, as a Role writes it.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::FileObjects => "fileobjects",
            Self::StorageClusters => "storageclusters",
        }
    }
}

/// What a request would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Access {
    /// What.
    pub verb: Verb,
    /// To what.
    pub resource: Resource,
}

/// Whether a user may do something in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Who.
    pub user: User,
    /// What it would do.
    pub access: Access,
    /// Where.
    pub namespace: String,
}
