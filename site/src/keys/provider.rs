//! Where a process has the cluster key from: a file, and beside it the one before while it is exchanged.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use diptych_core::keyring::{ClusterKey, ClusterKeys, Keyring, KeyringError};
use thiserror::Error;
use zeroize::Zeroizing;

/// The file of the key before is called as that of the newest with this in front of it: `key` and `previous-key` in a Secret,
/// `cluster.key` and `previous-cluster.key` in a folder.
const PREVIOUS: &str = "previous-";

/// Why the cluster key is not known.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// There is no such file, or it may not be read.
    #[error("the cluster key {path} can't be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What was answered.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{path} holds no cluster key")]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What it holds.
        source: KeyringError,
    },
}

/// Reads both; it is no error where there is none before.
///
/// # Errors
/// `Unreadable`, `NoKey`.
pub fn read_keys(path: &Path) -> Result<ClusterKeys, KeyFileError> {
    let newest = read(path)?;
    let previous = match read(&previous_of(path)) {
        Err(KeyFileError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
        read => Some(read?),
    };
    Ok(ClusterKeys::new(newest, previous))
}

/// Where the key before is.
pub fn previous_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{PREVIOUS}{name}"))
}

fn read(path: &Path) -> Result<ClusterKey, KeyFileError> {
    let unreadable = |source| KeyFileError::Unreadable { path: path.to_owned(), source };
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?);
    ClusterKey::parse(&text).map_err(|source| KeyFileError::NoKey { path: path.to_owned(), source })
}

/// The cluster keys of a process; exchanged files are taken into use while it runs.
#[derive(Debug)]
pub struct KeyProvider {
    /// None: what it began with stays.
    path: Option<PathBuf>,
    keys: RwLock<Arc<ClusterKeys>>,
}

impl KeyProvider {
    /// From a file.
    ///
    /// # Errors
    /// As [`read_keys`].
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let keys = RwLock::new(Arc::new(read_keys(path)?));
        Ok(Self { path: Some(path.to_owned()), keys })
    }

    /// As they are now.
    pub fn keys(&self) -> Arc<ClusterKeys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks whether other files are there; whether they were.
    ///
    /// # Errors
    /// As [`read_keys`]; the keys stay as they were then.
    pub fn look(&self) -> Result<bool, KeyFileError> {
        let Some(path) = &self.path else { return Ok(false) };
        let found = read_keys(path)?;
        let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let changed = **known != found;
        if changed {
            *known = Arc::new(found);
        }
        Ok(changed)
    }

    /// Opens a keyring; where the key is lacking the files are looked at once more.
    ///
    /// # Errors
    /// As [`ClusterKeys::open`].
    pub fn open(&self, sealed: &[u8]) -> Result<Keyring, KeyringError> {
        let opened = self.keys().open(sealed);
        if matches!(opened, Err(KeyringError::WrongKey { .. })) && self.look().unwrap_or(false) {
            return self.keys().open(sealed);
        }
        opened
    }
}

impl From<ClusterKeys> for KeyProvider {
    fn from(keys: ClusterKeys) -> Self {
        Self { path: None, keys: RwLock::new(Arc::new(keys)) }
    }
}

#[cfg(test)]
mod tests {
    use diptych_core::cipher::SecretKey;
    use diptych_core::ids::ClusterId;
    use diptych_core::keyring::NewRingKey;

    use super::*;

    fn keyring() -> Keyring {
        let new = NewRingKey { key: SecretKey::new([3; 32]), nonce: [4; 12], made_ms: 1 };
        Keyring::create(ClusterId([1; 16]), new)
    }

    #[test]
    fn exchanged_files_are_taken_into_use_and_bad_ones_leave_the_keys_as_they_were() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, before) = (folder.path().join("key"), folder.path().join("previous-key"));
        let write = |path: &Path, byte: &str| std::fs::write(path, byte.repeat(32)).expect("it writes");
        assert!(matches!(KeyProvider::read(&path), Err(KeyFileError::Unreadable { .. })));
        write(&path, "01");
        let provider = KeyProvider::read(&path).expect("a key");
        assert!(!provider.look().expect("it is the same"));
        let sealed = keyring().seal(&ClusterKey::new([2; 32]));
        assert!(matches!(provider.open(&sealed), Err(KeyringError::WrongKey { .. })));
        write(&before, "01");
        write(&path, "02");
        assert_eq!(provider.open(&sealed), Ok(keyring()), "it looks again");
        assert!(provider.open(&keyring().seal(&ClusterKey::new([1; 32]))).is_ok());
        std::fs::write(&before, "secret words").expect("it writes");
        let error = provider.look().expect_err("no key");
        assert!(error.to_string().contains("previous-key holds no cluster key"), "{error}");
        assert!(!format!("{error:?}{provider:?}").contains("secret words"));
        assert_eq!(provider.keys().ids(ClusterId([1; 16])).len(), 2);
    }
}
