//! Small files that hold configuration and secrets.

use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

/// Reads a JSON file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is half written or of another version", path.display()))
}

/// Replaces a file whole, readable by its owner only: it may hold secrets.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    diptych_wire::files::write_private(path, bytes)
        .with_context(|| format!("{} can't be written", path.display()))
}
