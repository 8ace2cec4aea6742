//! The zones, changed by one writer at a time: durable first, then seen by the API, then on its way to edge and DNS.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::StatusCode;
use tokio::sync::{Mutex, watch};

use super::failure::Failure;
use super::model::{Database, Zone};
use super::propagation::Propagation;

/// Owner of the database.
#[derive(Debug)]
pub(super) struct Store {
    current: ArcSwap<Database>,
    /// The state file; held while a change is made.
    writer: Mutex<Option<PathBuf>>,
    propagation: Arc<Propagation>,
    changes: watch::Sender<u64>,
}

impl Store {
    /// Opens the state file, if there is one, and adds the zones that it lacks.
    pub(super) fn open(
        state: Option<PathBuf>,
        zones: &[String],
        propagation: Arc<Propagation>,
    ) -> io::Result<Self> {
        let mut database = match &state {
            Some(path) if path.exists() => serde_json::from_slice(&std::fs::read(path)?)?,
            _ => Database::default(),
        };
        for name in zones {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            if !database.zones.iter().any(|zone| zone.name == name) {
                database.zones.push(Zone::new(&name));
            }
        }
        if let Some(path) = &state {
            persist(path, &database)?;
        }
        propagation.start_from(&database);
        Ok(Self {
            current: ArcSwap::from_pointee(database),
            writer: Mutex::new(state),
            propagation,
            changes: watch::Sender::new(0),
        })
    }

    /// What the API sees.
    pub(super) fn database(&self) -> Arc<Database> {
        self.current.load_full()
    }

    /// Wakes with each change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Applies a change to a copy; only if it succeeds and is durable it takes effect.
    ///
    /// Runs to its end even if the caller goes away: a request that was cut off is applied or not, never by half.
    pub(super) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut Database) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = Arc::clone(self);
        let task = tokio::spawn(async move { store.change_whole(act).await });
        task.await.unwrap_or_else(|error| Err(internal(&error.to_string())))
    }

    async fn change_whole<T>(
        &self,
        act: impl FnOnce(&mut Database) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let state = self.writer.lock().await;
        let before = self.current.load_full();
        let mut after = Database::clone(&before);
        let result = act(&mut after)?;
        let after = Arc::new(after);
        if let Some(path) = state.clone() {
            let copy = Arc::clone(&after);
            let written = tokio::task::spawn_blocking(move || persist(&path, &copy)).await;
            let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
            written.map_err(|error| {
                tracing::error!(%error, "the state file can't be written; the change is refused");
                internal(&error.to_string())
            })?;
        }
        self.current.store(Arc::clone(&after));
        self.propagation.publish(&before, &after);
        self.changes.send_modify(|count| *count += 1);
        Ok(result)
    }
}

fn internal(reason: &str) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, 10001, format!("Internal error: {reason}"))
}

/// The whole file anew, durable before it takes the old one's name.
fn persist(path: &Path, database: &Database) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(database)?)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
