//! Where the clusters' addresses, credentials and process ids are kept between `up`, `demo` and `down`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::program::cache;

/// A folder under the user's cache folder.
#[derive(Debug, Clone)]
pub struct State {
    /// Has `kubeconfig`, `endpoints.json`, and what runs outside the clusters.
    pub folder: PathBuf,
}

impl State {
    /// The one of this user.
    pub fn open() -> Result<Self> {
        let folder = cache()?.join("kind").join("state");
        std::fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
        Ok(Self { folder })
    }

    /// Contexts `kind-east` and `kind-west`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }
}
