//! The engine for clusters: etcd commits and orders; reads come from a redb mirror beside each process, which has to
//! have reached what etcd confirmed after the read was asked for.

mod client;
mod confirm;
mod follow;
mod members;
mod space;
mod tail;
mod transaction;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diptych_core::ids::SiteName;
use diptych_core::records::Position;
use futures::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::client::{Etcd, read_error};
use self::confirm::Confirmer;
use self::follow::Follower;
use self::members::CallError;
use self::space::Space;
use self::tail::{Tail, Tailed};
use crate::disk::{Disk, is_fed, unavailable};
use crate::{Batch, Catalog, CatalogError, Committed, Feed, FeedEntry, FeedStart, Room, View};

/// Where etcd is, and where its mirror.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// Client URLs of its members; `https` with `tls`.
    pub endpoints: Vec<String>,
    /// None: plain HTTP, for tests and for one machine.
    pub tls: Option<EtcdTls>,
    /// What all keys of this catalog begin with.
    pub prefix: String,
    /// File of the mirror, for this process alone; it may be lost at any time.
    pub mirror: PathBuf,
    /// Bytes that the mirror's cache may take.
    pub mirror_cache_bytes: usize,
    /// How long a call waits for etcd, and a view for the mirror.
    pub timeout: Duration,
}

impl EtcdOptions {
    /// The usual ones.
    pub fn new(endpoints: Vec<String>, mirror: PathBuf) -> Self {
        Self {
            endpoints,
            tls: None,
            prefix: "diptych/".to_owned(),
            mirror,
            mirror_cache_bytes: 64 << 20,
            timeout: Duration::from_secs(5),
        }
    }
}

/// Certificates as PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Authority of etcd's certificates.
    pub authority: String,
    /// The own certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// Name in etcd's certificates, where it is not that of the URL.
    pub domain: Option<String>,
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EtcdTls").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// The catalog of a site that is a cluster. Any number of processes use it, each with a mirror of its own.
///
/// Needs a tokio runtime. Dropped, it stops following at once and lets go of the mirror's file shortly after.
#[derive(Debug)]
pub struct EtcdCatalog {
    site: SiteName,
    options: EtcdOptions,
    etcd: Etcd,
    disk: Arc<Disk>,
    confirmer: Confirmer,
    /// Has the follower begin anew.
    restart: Arc<Notify>,
    follower: JoinHandle<()>,
}

impl EtcdCatalog {
    /// Opens the catalog of `site`; makes it where etcd has none.
    ///
    /// # Errors
    /// `Unavailable`: etcd does not answer, or the mirror's file can't be used.
    pub async fn connect(site: SiteName, options: EtcdOptions) -> Result<Self, CatalogError> {
        let space = Space::new(&options.prefix);
        let disk = Arc::new(follow::open_mirror(&site, &options)?);
        let etcd = Etcd::connect(&options, space).await?;
        let known = disk.tip()?;
        etcd.ensure_incarnation(known).await?;
        let restart = Arc::new(Notify::new());
        let follower =
            Follower { etcd: etcd.clone(), disk: Arc::clone(&disk), restart: Arc::clone(&restart) };
        let confirmer = Confirmer::start(etcd.clone(), Arc::clone(&disk), Arc::clone(&restart));
        let follower = tokio::spawn(follower.run());
        Ok(Self { site, options, etcd, disk, confirmer, restart, follower })
    }

    /// Goes on with a renewed certificate: new connections show it. etcd-client can't change it beneath a connection, so
    /// each gets a successor; what is under way ends on the old one.
    ///
    /// # Errors
    /// It can't be used: the old one is, as before.
    pub async fn renew(&self, tls: EtcdTls) -> Result<(), CatalogError> {
        let options = EtcdOptions { tls: Some(tls), ..self.options.clone() };
        self.etcd.members.renew(&options).await
    }

    /// Waits until the mirror holds all that etcd confirmed after the call came.
    async fn caught_up(&self) -> Result<Position, CatalogError> {
        let confirmed = self.confirmer.confirm().await?;
        self.reached(confirmed).await?;
        Ok(confirmed)
    }

    /// Waits until the mirror holds all up to `position`.
    async fn reached(&self, position: Position) -> Result<(), CatalogError> {
        let mut tip = self.disk.watch();
        let reached = tip.wait_for(|tip| match tip {
            Ok(tip) => tip.incarnation == position.incarnation && tip.revision >= position.revision,
            Err(_) => true,
        });
        match timeout(self.options.timeout, reached).await {
            Ok(Ok(tip)) => tip.clone().map(drop),
            Ok(Err(_)) => Err(unavailable("it was closed")),
            Err(_) => {
                self.restart.notify_one();
                let behind = self.disk.tip()?;
                Err(unavailable(format!(
                    "its mirror is at revision {}, etcd at {}: it is catching up, ask again",
                    behind.revision, position.revision
                )))
            }
        }
    }

    /// What the mirror's log no longer has may still be in etcd.
    async fn feed_from_etcd(&self, after: Position) -> Result<FeedStart, CatalogError> {
        let mut tail = self.etcd.tail(after.revision + 1).await?;
        // Something came after `after`, so the first answer comes at once.
        let first = timeout(self.options.timeout, tail.next())
            .await
            .map_err(|_| read_error(&CallError::Silent(self.options.timeout)))??;
        match first {
            Tailed::Compacted { revision } => {
                let oldest = Position { incarnation: after.incarnation, revision };
                Ok(FeedStart::Compacted { oldest })
            }
            first @ Tailed::Commits(_) => Ok(FeedStart::From(feed_of(tail, first, after.incarnation))),
        }
    }
}

/// A feed that begins with `first` and goes on with the tail; ends with an error when etcd breaks it.
fn feed_of(tail: Tail, first: Tailed, incarnation: u64) -> Feed {
    let tails = stream::unfold(Some((tail, Some(first))), |state| async {
        let (mut tail, first) = state?;
        let next = match first {
            Some(first) => Ok(first),
            None => tail.next().await,
        };
        Some(match next {
            Ok(next) => (Ok(next), Some((tail, None))),
            Err(error) => (Err(error), None),
        })
    });
    tails
        .flat_map(move |tailed| {
            let entries = match tailed {
                Ok(Tailed::Commits(commits)) => {
                    commits.into_iter().map(|commit| commit.entry(incarnation)).collect()
                }
                Ok(Tailed::Compacted { .. }) => {
                    vec![Err(unavailable("etcd was compacted beneath the feed: ask again"))]
                }
                Err(error) => vec![Err(error)],
            };
            stream::iter(entries)
        })
        .boxed()
}

impl tail::Commit {
    fn entry(self, incarnation: u64) -> Result<FeedEntry, CatalogError> {
        if self.incarnation.is_some_and(|found| found != incarnation) {
            return Err(unavailable("the catalog became another incarnation beneath the feed: ask again"));
        }
        let position = Position { incarnation, revision: self.revision };
        Ok(FeedEntry { position, changes: self.changes.into_iter().filter(|(key, _)| is_fed(key)).collect() })
    }
}

impl Drop for EtcdCatalog {
    fn drop(&mut self) {
        self.follower.abort();
        self.disk.close(&unavailable("it was closed"));
    }
}

#[async_trait]
impl Catalog for EtcdCatalog {
    fn site(&self) -> &SiteName {
        &self.site
    }

    async fn position(&self) -> Result<Position, CatalogError> {
        self.confirmer.confirm().await
    }

    async fn view(&self) -> Result<Box<dyn View>, CatalogError> {
        self.caught_up().await?;
        Ok(Box::new(self.disk.view()?))
    }

    async fn recent_view(&self, within: Duration) -> Result<Box<dyn View>, CatalogError> {
        let reached = |confirmed: Position| -> Result<bool, CatalogError> {
            let tip = self.disk.tip()?;
            Ok(tip.incarnation == confirmed.incarnation && tip.revision >= confirmed.revision)
        };
        if self.confirmer.last(within).map(reached).transpose()? != Some(true) {
            self.caught_up().await?;
        }
        Ok(Box::new(self.disk.view()?))
    }

    async fn view_from(&self, position: Position) -> Result<Box<dyn View>, CatalogError> {
        self.reached(position).await?;
        Ok(Box::new(self.disk.view()?))
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, CatalogError> {
        batch.check()?;
        let transaction = transaction::build(&self.etcd.space, &self.site, &batch)?;
        let answer = self.etcd.commit(transaction).await?;
        transaction::answer(&batch, &answer)
    }

    async fn feed(&self, after: Position) -> Result<FeedStart, CatalogError> {
        let newest = self.caught_up().await?;
        let started = self.disk.feed(after)?;
        let in_etcd = after.incarnation == newest.incarnation && after.revision < newest.revision;
        match started {
            FeedStart::Compacted { .. } if in_etcd => self.feed_from_etcd(after).await,
            started => Ok(started),
        }
    }

    async fn compact_feed(&self, keep: Position) -> Result<(), CatalogError> {
        let newest = self.caught_up().await?;
        if keep.incarnation != newest.incarnation {
            return Ok(());
        }
        let keep = keep.min(newest);
        self.etcd.compact(keep.revision).await?;
        let disk = Arc::clone(&self.disk);
        let compacted = tokio::task::spawn_blocking(move || disk.compact_log(keep)).await;
        compacted.map_err(|error| read_error(&error))?
    }

    async fn room(&self) -> Result<Room, CatalogError> {
        self.etcd.room().await
    }
}
