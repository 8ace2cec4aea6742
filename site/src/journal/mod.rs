//! The journal: what the feed of the active site carries goes, each second or MiB, into an extent of its own, so that devices and
//! cluster key are enough to make the catalog anew. Where there is nothing new nothing is written.
//!
//! ```text
//!            of another incarnation, or forgotten by the feed
//! s/journal ──────────────────────────────────────────────────► begun here: a checkpoint is needed
//!     │ goes on                                                          │
//!     ▼                                                                  ▼
//! feed ──► pending ──a second or MiB──► extent durable ──► x/, l/, s/journal in one change
//!                                          beside it: checkpoint, merge ──read back──► older ones condemned
//! ```
//! Only the keeper of the active site writes it, under its epoch. The first checkpoint of a term is made soon; until it is
//! whole the journals of the term before still lead up to a gap.

mod backoff;
mod chores;
mod housekeeping;
mod pending;
mod shelf;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Feed, FeedEntry, FeedStart, Guard, Write};
use diptych_core::ids::{Epoch, Hlc};
use diptych_core::journal::{Checkpoint, Document, Progress, Writer};
use diptych_core::keys;
use diptych_core::records::{Position, Record};
use futures::StreamExt;
use tokio::sync::watch;

use crate::collector::covers;
use crate::context::{SiteContext, now_ms};
use crate::error::SiteError;
use crate::extents::{Pen, Written};
use crate::status::JournalStatus;
use backoff::Backoff;
use chores::{Chore, Chores, ToDo};
use pending::Pending;
use shelf::Shelf;

/// Until there is a keyring and a plan.
const NOTHING_YET: Duration = Duration::from_secs(1);
/// Commits without news that the progress stays behind.
const IDLE_ENTRIES: u64 = 4_096;

/// Writes the journal of a site while it is active, for ever; says how it is.
pub async fn run(context: &SiteContext, told: &watch::Sender<JournalStatus>) {
    let mut standing = context.standing.clone();
    loop {
        let Ok(now) = standing.wait_for(|now| now.active).await.map(|now| *now) else { return };
        tokio::select! {
            () = keep_on(context, now.epoch, told) => {}
            _ = standing.wait_for(|then| !then.active || then.epoch != now.epoch) => {}
        }
        context.journaled.send_replace(None);
        told.send_replace(JournalStatus::default());
    }
}

/// Writes the journal of one term, again and again where something fails.
async fn keep_on(context: &SiteContext, epoch: Epoch, told: &watch::Sender<JournalStatus>) {
    let mut backoff = Backoff::default();
    loop {
        context.journaled.send_replace(None);
        let begun = Instant::now();
        let Err(error) = keep(context, epoch, told).await;
        if let SiteError::NothingYet(_) = error {
            tokio::time::sleep(NOTHING_YET).await;
            continue;
        }
        tracing::warn!(site = %context.site, %error, "the journal is not written now");
        told.send_modify(|status| status.trouble = Some(error.to_string()));
        if begun.elapsed() >= backoff::LONGEST {
            backoff = Backoff::default();
        }
        tokio::time::sleep(backoff.failed()).await;
    }
}

/// What was done beside the journal.
enum Done {
    Checkpoint(Checkpoint),
    Merged(u64),
}

type Work<'a> = Pin<Box<dyn Future<Output = Result<Done, SiteError>> + Send + 'a>>;

/// What goes on beside the journal, one thing at a time.
#[derive(Default)]
struct Beside<'a> {
    work: Option<Work<'a>>,
    done: Option<Result<Done, SiteError>>,
}

/// The journal of one term.
struct Keeping<'a> {
    context: &'a SiteContext,
    epoch: Epoch,
    progress: Progress,
    /// `s/journal` as it stands: what the next commit compares with.
    stored: Option<Bytes>,
    pending: Pending,
    shelf: Shelf,
    /// Journals behind the checkpoint, and their bytes.
    behind: (u64, u64),
    written: Option<Instant>,
    /// Why the last journal could not be written.
    unwritten: Option<String>,
    /// The next one is not written before.
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// Why the last checkpoint or merge failed.
    unfinished: Option<String>,
    chores: Chores,
}

/// FENCING: whatever fails but the writing of rows, the journal is begun again from where the catalog says that it is.
async fn keep(
    context: &SiteContext,
    epoch: Epoch,
    told: &watch::Sender<JournalStatus>,
) -> Result<Infallible, SiteError> {
    let (mut keeping, mut feed) = Keeping::begin(context, epoch).await?;
    keeping.unwritten = told.borrow().trouble.clone();
    let mut beside = Beside::default();
    loop {
        keeping.tell(told);
        if beside.is_idle() {
            beside.work = keeping.housekeeping();
        }
        let looks_again = beside.is_idle().then(|| keeping.chores.again(keeping.to_do())).flatten();
        tokio::select! {
            biased;
            () = at(keeping.due()) => beside.during(keeping.write()).await?,
            done = beside.ended() => keeping.end(done).await?,
            entry = feed.next(), if !keeping.pending.is_full() => match entry {
                Some(entry) => keeping.pass(entry?).await?,
                None => return Err(SiteError::Changed),
            },
            () = at(looks_again) => {}
        }
    }
}

impl Beside<'_> {
    fn is_idle(&self) -> bool {
        self.work.is_none() && self.done.is_none()
    }

    /// Its end; where nothing goes on there is none.
    async fn ended(&mut self) -> Result<Done, SiteError> {
        if let Some(done) = self.done.take() {
            return done;
        }
        let done = match &mut self.work {
            Some(work) => work.await,
            None => std::future::pending().await,
        };
        self.work = None;
        done
    }

    /// Goes on with it until `work` is done: both may wait for one connection to an agent, and who is not polled holds it.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                out = &mut work => return out,
                done = self.ended(), if self.done.is_none() => self.done = Some(done),
            }
        }
    }
}

/// Until then; None: for ever.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

impl<'a> Keeping<'a> {
    /// Goes on where the catalog says, or begins where it is now.
    async fn begin(context: &'a SiteContext, epoch: Epoch) -> Result<(Self, Feed), SiteError> {
        let view = context.catalog.view().await?;
        let (now, stored) = (view.position(), view.get(&keys::journal())?);
        Pen::find(context, view.as_ref())?;
        let known = stored.as_deref().map(Progress::decode).transpose()?;
        let shelf = Shelf::load(view).await?;
        let mut keeping = Self {
            context,
            epoch,
            progress: Progress { upto: now, checkpoint: None },
            stored,
            pending: Pending::new(now, shelf.own().clone()),
            shelf,
            behind: (0, 0),
            written: None,
            unwritten: None,
            retry_at: None,
            backoff: Backoff::default(),
            unfinished: None,
            chores: Chores::new(Instant::now(), &context.options),
        };
        if let Some(known) = known.filter(|known| known.upto.incarnation == now.incarnation)
            && let FeedStart::From(feed) = context.catalog.feed(known.upto).await?
        {
            keeping.progress = known;
            // Parts of one that was begun and is not whole, too.
            keeping.condemn_superseded().await?;
            keeping.measure();
            keeping.pending = Pending::new(known.upto, keeping.shelf.own().clone());
            // FENCING: the next journal goes on where the last one ends, or there would be a gap where nothing was.
            let checkpoint = known.checkpoint.map(|checkpoint| checkpoint.at);
            keeping.pending.reach_back(keeping.shelf.ends_at(checkpoint, known.upto));
            return Ok((keeping, feed));
        }
        tracing::info!(site = %context.site, %epoch, position = now.revision, "the journal begins here");
        keeping.commit(None, keeping.progress).await?;
        match context.catalog.feed(now).await? {
            FeedStart::From(feed) => Ok((keeping, feed)),
            FeedStart::Compacted { .. } => Err(SiteError::Changed),
        }
    }

    /// Takes a commit of the feed in. Where many have brought nothing new, the progress moves past them without a journal: the feed up to
    /// there can be forgotten.
    ///
    /// FENCING: only while nothing is pending, so that all up to the progress is in journals.
    async fn pass(&mut self, entry: FeedEntry) -> Result<(), SiteError> {
        self.pending.add(entry)?;
        let upto = self.pending.upto();
        if self.pending.since().is_none() && upto.revision >= self.progress.upto.revision + IDLE_ENTRIES {
            self.commit(None, Progress { upto, ..self.progress }).await?;
        }
        Ok(())
    }

    /// When the next journal is to be written.
    fn due(&self) -> Option<Instant> {
        let since = self.pending.since()?;
        let every = self.written.map(|written| written + self.context.options.journal_every);
        let every = every.filter(|_| !self.pending.is_full());
        Some(every.into_iter().chain(self.retry_at).fold(since, Instant::max))
    }

    /// Writes what is pending; where its rows do not become durable, it is tried again later.
    async fn write(&mut self) -> Result<(), SiteError> {
        match self.place().await {
            Ok(written) => self.enter(&written).await,
            Err(error) => {
                tracing::warn!(site = %self.context.site, %error, "a journal could not be written");
                self.unwritten = Some(error.to_string());
                self.retry_at = Some(Instant::now() + self.backoff.failed());
                Ok(())
            }
        }
    }

    async fn place(&self) -> Result<Written, SiteError> {
        let view = self.context.catalog.view().await?;
        let pen = Pen::find(self.context, view.as_ref())?;
        drop(view);
        let writer = Writer { site: self.context.site.clone(), epoch: self.epoch };
        let document = Document::Journal(self.pending.journal(writer));
        pen.write(self.context, self.epoch, Hlc::from_milliseconds(now_ms()), document).await
    }

    /// FENCING: the journal's rows are durable, as a client's write must be, before the progress says so.
    async fn enter(&mut self, written: &Written) -> Result<(), SiteError> {
        let progress = Progress { upto: self.pending.upto(), ..self.progress };
        self.commit(Some(written), progress).await?;
        self.shelf.add(written.extent, &written.record);
        self.behind = (self.behind.0 + 1, self.behind.1 + u64::from(written.record.length));
        self.pending.clear();
        (self.unwritten, self.retry_at, self.backoff) = (None, None, Backoff::default());
        self.written = Some(Instant::now());
        Ok(())
    }

    /// Moves the progress, and enters a journal with it.
    async fn commit(&mut self, journal: Option<&Written>, progress: Progress) -> Result<(), SiteError> {
        let mut change = journal.map_or_else(Change::default, |journal| journal.entering(self.context));
        let (key, value) = (keys::journal(), Bytes::from(progress.encode()));
        let expect = self.stored.clone().map_or(Expect::Absent, Expect::Value);
        change.guards.push(Guard { key: key.clone(), expect });
        change.writes.push(Write::Put(key, value.clone()));
        if !self.context.catalog.commit(Batch::one(Some(self.epoch), change)).await?.all_applied() {
            return Err(SiteError::Changed);
        }
        self.stored = Some(value);
        self.progress = progress;
        Ok(())
    }

    /// Begins what is due beside the journal, if anything is.
    fn housekeeping(&mut self) -> Option<Work<'a>> {
        let (context, epoch) = (self.context, self.epoch);
        let work: Work<'a> = match self.chores.begin(Instant::now(), self.to_do())? {
            Chore::Checkpoint => {
                Box::pin(async move { housekeeping::checkpoint(context, epoch).await.map(Done::Checkpoint) })
            }
            Chore::Merge => {
                let runs = self.shelf.small_runs(self.progress.checkpoint?.at);
                Box::pin(async move { housekeeping::merge(context, epoch, runs).await.map(Done::Merged) })
            }
        };
        Some(work)
    }

    /// A checkpoint is wanted where there is none, or the journals behind it exceed half of it.
    fn to_do(&self) -> ToDo {
        let exceeds = |checkpoint: &Checkpoint| {
            self.behind.1 > self.context.options.checkpoint_least.max(checkpoint.bytes / 2)
        };
        let checkpoint = self.progress.checkpoint.as_ref();
        ToDo { checkpoint: checkpoint.is_none_or(exceeds), merge: checkpoint.is_some() }
    }

    fn measure(&mut self) {
        let checkpoint = self.progress.checkpoint.unwrap_or_default();
        let journals = self.shelf.journals(checkpoint.at);
        self.behind = (journals.len() as u64, journals.iter().map(|(.., length)| u64::from(*length)).sum());
    }

    /// FENCING: the progress names a checkpoint only after it was read back whole, and nothing is condemned before that is
    /// committed.
    async fn end(&mut self, done: Result<Done, SiteError>) -> Result<(), SiteError> {
        let unfinished = match done {
            Ok(Done::Checkpoint(checkpoint)) => {
                self.commit(None, Progress { checkpoint: Some(checkpoint), ..self.progress }).await?;
                self.chores.checkpoint_made(Instant::now());
                None
            }
            Ok(Done::Merged(0)) => return Ok(()),
            Ok(Done::Merged(journals)) => {
                tracing::info!(site = %self.context.site, journals, "small journals were merged");
                None
            }
            Err(error) => {
                tracing::warn!(site = %self.context.site, %error, "a checkpoint or a merge failed, it is tried again");
                Some(format!("a checkpoint or a merge failed, it is tried again: {error}"))
            }
        };
        self.unfinished = unfinished;
        self.shelf = Shelf::load(self.context.catalog.view().await?).await?;
        self.condemn_superseded().await?;
        self.measure();
        Ok(())
    }

    async fn condemn_superseded(&mut self) -> Result<(), SiteError> {
        let Some(checkpoint) = self.progress.checkpoint else { return Ok(()) };
        self.shelf.condemn_superseded(self.context, self.epoch, checkpoint.at).await
    }

    /// Says how far the journal is: the collector waits for it.
    ///
    /// FENCING (nothing is freed that a resurrection would name): journals without a checkpoint that they go on from lie behind a
    /// gap, so until it is whole nothing counts as journaled.
    fn tell(&self, told: &watch::Sender<JournalStatus>) {
        let since = self.pending.since();
        let upto = if since.is_some() { self.progress.upto } else { self.pending.upto() };
        self.context.journaled.send_replace(self.progress.checkpoint.map(|_| upto));
        let checkpoint = self.progress.checkpoint.unwrap_or_default();
        let status = JournalStatus {
            waiting_since_ms: since
                .map_or(0, |since| now_ms().saturating_sub(since.elapsed().as_millis() as u64)),
            journals: self.behind.0,
            journal_bytes: self.behind.1,
            checkpoint_keys: checkpoint.keys,
            checkpoint_bytes: checkpoint.bytes,
            trouble: since.and(self.unwritten.clone()).or_else(|| self.unfinished.clone()),
        };
        told.send_replace(status);
    }
}

/// Whether a resurrection would know all up to `position`.
pub(crate) fn is_journaled(context: &SiteContext, position: Position) -> bool {
    context.journaled.borrow().is_some_and(|journaled| covers(Some(journaled), position))
}
