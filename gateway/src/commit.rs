//! Changing heads: guarded by the head that was read, resolved by reading when the answer did not come.

use bytes::Bytes;
use diptych_catalog::{
    Batch, CatalogError, Change, Expect, Footprint, Guard, Limits, Outcome, View, Write, blobs_of, dead_marks,
};
use diptych_core::ids::{BucketId, Epoch, Hlc, VersionId};
use diptych_core::keys::{self, Key};
use diptych_core::lease::SubLease;
use diptych_core::records::{Head, HeadBody, Kept, Object, Position, Record, VersionRef, Versioning};
use diptych_core::retention::RetainUntil;

use crate::authority::{may_write, still_may_answer};
use crate::context::Context;
use crate::error::{GatewayError, Result};
use crate::objects::{Condition, retention, versions};

/// Rounds after which a key that others keep changing is given up.
pub(crate) const ROUNDS: usize = 64;

/// Changes that fit one commit.
pub(crate) const MAX_CHANGES: usize = 64;

/// Bytes that one commit of heads may have; the catalog takes 1 MiB.
const COMMIT_BYTES: usize = 768 << 10;

/// Dead marks that go into a head's own change; the catalog takes 512 writes in one.
pub(crate) const MARKS_WITH_HEAD: usize = 256;

/// A new head for a key.
#[derive(Debug, Clone)]
pub(crate) struct HeadChange {
    /// Name of the bucket, for errors.
    pub bucket_name: String,
    /// The bucket.
    pub bucket: BucketId,
    /// Whether versions are kept for readers, this one and that which it replaces.
    pub versioning: Versioning,
    /// The object's key.
    pub key: String,
    /// The version that becomes head.
    pub version: VersionId,
    /// What it says.
    pub body: HeadBody,
    /// Until when it is to be retained.
    pub retain_until: Option<RetainUntil>,
    /// What must hold of the head that it replaces.
    pub condition: Condition,
    /// What must hold besides.
    pub guards: Vec<Guard>,
    /// What is written with it: `x/`, `l/`, an upload's end.
    pub writes: Vec<Write>,
}

/// A head change was committed.
#[derive(Debug, Clone)]
pub(crate) struct CommittedHead {
    /// The version's name and order.
    pub at: VersionRef,
    /// The object that it replaced.
    pub replaced: Option<Box<Object>>,
    /// Position of the commit, or a later one.
    pub position: Position,
}

/// The extent that several objects share.
///
/// FENCING: its record and the heads that name it go into one change, guarded by its absence (or, once it is entered, by
/// its record): no head can name an extent that the collector has condemned.
#[derive(Debug, Clone)]
pub(crate) struct SharedExtent {
    /// `x/`.
    pub key: Key,
    /// Its record.
    pub record: Bytes,
    /// `l/` and what else goes with it.
    pub writes: Vec<Write>,
}

struct Planned {
    index: usize,
    at: VersionRef,
    replaced: Option<Box<Object>>,
    late_marks: Vec<Write>,
}

/// One call's work: what is still open, and what is known of the rest.
struct Round<'a> {
    context: &'a Context,
    lease: &'a SubLease,
    changes: &'a [HeadChange],
    shared: Option<&'a SharedExtent>,
    results: Vec<Option<Result<CommittedHead>>>,
    /// An answer did not come: what was asked for may have been done.
    unclear: bool,
}

/// Commits head changes: each answered by itself, all in as few commits as may be.
///
/// FENCING: a result is Ok only if the commit was applied under `lease`'s epoch and the sub-lease still ran afterwards.
pub(crate) async fn commit_heads(
    context: &Context,
    lease: &SubLease,
    changes: &[HeadChange],
    shared: Option<&SharedExtent>,
) -> Vec<Result<CommittedHead>> {
    let results = changes.iter().map(|_| None).collect();
    let mut round = Round { context, lease, changes, shared, results, unclear: false };
    for _ in 0..ROUNDS {
        let open: Vec<usize> = (0..changes.len()).filter(|&index| round.results[index].is_none()).collect();
        if open.is_empty() {
            break;
        }
        if let Err(error) = round.run(&open).await {
            for index in open {
                round.results[index].get_or_insert_with(|| Err(error.clone()));
            }
        }
    }
    let unsettled = if round.unclear {
        GatewayError::OutcomeUnknown("the catalog did not answer, again and again".to_owned())
    } else {
        GatewayError::Busy("others keep changing the same key")
    };
    let still = still_may_answer(context.authority(), lease.epoch);
    round
        .results
        .into_iter()
        .map(|result| result.unwrap_or(Err(unsettled.clone())).and_then(|done| still.clone().map(|()| done)))
        .collect()
}

impl Round<'_> {
    /// One view, one commit, and what became of each change that is open.
    async fn run(&mut self, open: &[usize]) -> Result<()> {
        may_write(self.context.authority())?;
        let view = self.context.catalog().view().await?;
        let (planned, changes) = self.plan(view.as_ref(), open)?;
        drop(view);
        if planned.is_empty() {
            return Ok(());
        }
        let together = self.shared.is_some();
        let batch = Batch { epoch: Some(self.lease.epoch), changes };
        let committed = match self.context.catalog().commit(batch).await {
            Ok(committed) => committed,
            // The next round's view tells: a head that names our version was applied, any other was not.
            Err(CatalogError::Unclear { reason }) => {
                tracing::warn!(reason, "the outcome of a commit is unclear, reading to know");
                self.unclear = true;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mut late_marks = Vec::new();
        for (order, plan) in planned.into_iter().enumerate() {
            match committed.outcomes.get(if together { 0 } else { order }) {
                Some(Outcome::Applied) => {
                    let done =
                        CommittedHead { at: plan.at, replaced: plan.replaced, position: committed.position };
                    self.results[plan.index] = Some(Ok(done));
                    late_marks.extend(plan.late_marks);
                }
                // Somebody else was faster on the same key: plan anew on what is there now.
                Some(Outcome::Refused { guard }) if together || *guard == 0 => {
                    self.context.metrics().commit_retries.inc();
                }
                Some(Outcome::Refused { .. }) | None => {
                    let what =
                        "what it builds on was changed or collected meanwhile; nothing was stored, try again";
                    self.results[plan.index] = Some(Err(GatewayError::Busy(what)));
                }
            }
        }
        mark_dead(self.context, self.lease, late_marks).await;
        Ok(())
    }

    /// What to commit now. Of several changes of one key, or that stand in each other's way, one waits for the next round.
    fn plan(&mut self, view: &dyn View, open: &[usize]) -> Result<(Vec<Planned>, Vec<Change>)> {
        let extent_guard = self.shared.map(|shared| extent_guard(view, shared)).transpose()?;
        let mut footprint = Footprint::default();
        let mut planned = Vec::new();
        let mut changes: Vec<Change> = Vec::new();
        let mut room = Room::of(self.shared);
        for &index in open {
            let next =
                match plan_one(self.context, view, &self.changes[index], self.lease.epoch, self.unclear) {
                    Ok(PlannedChange::Done(done)) => {
                        self.results[index] = Some(Ok(done));
                        continue;
                    }
                    Ok(PlannedChange::Commit(next)) => next,
                    Err(error) => {
                        self.results[index] = Some(Err(error));
                        continue;
                    }
                };
            let alone = planned.is_empty().then_some(Room::NONE);
            let Some(left) = room.with(&next.change).or(alone) else { continue };
            if footprint.add(&next.change).is_err() {
                continue;
            }
            room = left;
            changes.push(next.change);
            planned.push(Planned {
                index,
                at: next.at,
                replaced: next.replaced,
                late_marks: next.late_marks,
            });
        }
        if let (Some(shared), Some(guard)) = (self.shared, extent_guard) {
            changes = vec![together(shared, guard, changes)];
        }
        Ok((planned, changes))
    }
}

/// What one commit still takes.
struct Room {
    changes: usize,
    bytes: usize,
    guards: usize,
    writes: usize,
}

impl Room {
    const NONE: Self = Self { changes: 0, bytes: 0, guards: 0, writes: 0 };

    /// With a shared extent all goes into one change, and the limits of one hold for the sum.
    fn of(shared: Option<&SharedExtent>) -> Self {
        let Limits { guards, writes, .. } = Limits::ACTIVE;
        let (guards, writes) = shared.map_or((usize::MAX, usize::MAX), |shared| {
            (guards - 1, writes.saturating_sub(1 + shared.writes.len()))
        });
        Self { changes: MAX_CHANGES - 1, bytes: COMMIT_BYTES, guards, writes }
    }

    /// What is left behind a change; None: it does not fit.
    fn with(&self, change: &Change) -> Option<Self> {
        Some(Self {
            changes: self.changes.checked_sub(1)?,
            bytes: self.bytes.checked_sub(change.bytes())?,
            guards: self.guards.checked_sub(change.guards.len())?,
            writes: self.writes.checked_sub(change.writes.len())?,
        })
    }
}

/// All in one change: the extent, if it is not entered yet, and every head that names it.
fn together(shared: &SharedExtent, guard: Guard, changes: Vec<Change>) -> Change {
    let mut one = Change { guards: Vec::new(), writes: Vec::new() };
    if guard.expect == Expect::Absent {
        one.writes.push(Write::Put(shared.key.clone(), shared.record.clone()));
        one.writes.extend(shared.writes.iter().cloned());
    }
    one.guards.push(guard);
    for change in changes {
        one.guards.extend(change.guards);
        one.writes.extend(change.writes);
    }
    one
}

fn extent_guard(view: &dyn View, shared: &SharedExtent) -> Result<Guard> {
    let expect = match view.get(&shared.key)? {
        None => Expect::Absent,
        Some(found) if found == shared.record => Expect::Value(found),
        Some(_) => {
            return Err(GatewayError::Busy(
                "the extent took too long and was collected; nothing was stored, try again",
            ));
        }
    };
    Ok(Guard { key: shared.key.clone(), expect })
}

enum PlannedChange {
    /// Nothing is left to do.
    Done(CommittedHead),
    Commit(NextChange),
}

struct NextChange {
    at: VersionRef,
    replaced: Option<Box<Object>>,
    /// Guard 0 is the head's.
    change: Change,
    late_marks: Vec<Write>,
}

/// What to commit for a key as `view` shows it.
fn plan_one(
    context: &Context,
    view: &dyn View,
    wanted: &HeadChange,
    epoch: Epoch,
    unclear: bool,
) -> Result<PlannedChange> {
    let key = keys::head(wanted.bucket, wanted.key.as_bytes());
    let raw = view.get(&key)?;
    let current = raw.as_deref().map(Head::decode).transpose()?;
    let done = |at| PlannedChange::Done(CommittedHead { at, replaced: None, position: view.position() });
    if let Some(head) = &current
        && head.at.version == wanted.version
    {
        return Ok(done(head.at));
    }
    if unclear && let Some(at) = replaced_meanwhile(view, wanted)? {
        return Ok(done(at));
    }
    wanted.condition.check(&wanted.bucket_name, &wanted.key, current.as_ref())?;
    if wanted.condition.unretained
        && let Some(head) = &current
    {
        retention::check(context, view, &wanted.key, head)?;
    }
    let hlc = context.clock().tick(current.as_ref().map_or(Hlc(0), |head| head.at.hlc));
    let at = VersionRef { epoch, hlc, version: wanted.version };
    let head = Head {
        kept: wanted.versioning.of_new(),
        retained_until: wanted.retain_until,
        ..Head::new(at, current.as_ref().map(|head| head.at), body_over(wanted, current.as_ref()))
    };
    let expect = raw.clone().map_or(Expect::Absent, Expect::Value);
    let mut guards = vec![Guard { key: key.clone(), expect }];
    guards.extend(wanted.guards.iter().cloned());
    let mut change = Change { guards, writes: vec![Write::Put(key, Bytes::from(head.encode()))] };
    change.writes.extend(wanted.writes.iter().cloned());
    let (replaced, mut marks) = retire(context, view, wanted, head.kept, current.zip(raw), &mut change)?;
    let late_marks = if marks.len() > MARKS_WITH_HEAD { std::mem::take(&mut marks) } else { Vec::new() };
    change.writes.append(&mut marks);
    Ok(PlannedChange::Commit(NextChange { at, replaced, change, late_marks }))
}

/// A tombstone is forgotten some day, and would leave what is kept below it without a head: over such it is a marker, also where its
/// gateway had not heard yet that the bucket keeps versions.
fn body_over(wanted: &HeadChange, current: Option<&Head>) -> HeadBody {
    match &wanted.body {
        HeadBody::Tombstone if current.is_some_and(Head::is_kept) => HeadBody::Marker,
        body => body.clone(),
    }
}

/// After an unclear commit: the version, if it became head and was replaced since. Committed again it would bring back
/// what others have replaced.
fn replaced_meanwhile(view: &dyn View, wanted: &HeadChange) -> Result<Option<VersionRef>> {
    let older = view.scan(&keys::older_versions(wanted.bucket, wanted.key.as_bytes()), MAX_CHANGES)?;
    for (_, raw) in &older.entries {
        let at = Head::decode(raw)?.at;
        if at.version == wanted.version {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// What a change replaced is kept under `v/` until the change is confirmed, or for readers; the blobs of what is not for readers get
/// dead marks.
///
/// FENCING: what a version is from now on and the marks on its blobs are one change: no version that readers find has bytes that are
/// marked, whatever a gateway knows of the bucket. For the same reason it is here that what is retained is refused.
fn retire(
    context: &Context,
    view: &dyn View,
    wanted: &HeadChange,
    by: Kept,
    current: Option<(Head, Bytes)>,
    change: &mut Change,
) -> Result<(Option<Box<Object>>, Vec<Write>)> {
    let Some((head, raw)) = current else { return Ok((None, Vec::new())) };
    retention::check_replaced(context, view, &wanted.key, &head, by)?;
    let was = head.kept;
    let head = head.replaced_by(by);
    let key = keys::older_version(wanted.bucket, wanted.key.as_bytes(), head.at.epoch, head.at.hlc);
    let value = if head.kept == was { raw } else { Bytes::from(head.encode()) };
    change.writes.push(Write::Put(key, value));
    let mut marks = Vec::new();
    // Of versions without an id there is one a key: this one takes the place of that which lies below.
    if was == Kept::Numbered
        && by != Kept::Numbered
        && let Some(null) = versions::older(view, wanted.bucket, &wanted.key, |head| head.kept == Kept::Null)?
    {
        retention::check(context, view, &wanted.key, &null.head)?;
        marks.extend(null.let_go(view, wanted.bucket, Kept::No, change)?);
    }
    let is_kept = head.is_kept();
    let HeadBody::Object(object) = head.body else { return Ok((None, marks)) };
    if !is_kept {
        marks.extend(dead_marks(&blobs_of(view, wanted.bucket, head.at.version, &object.content)?));
    }
    Ok((Some(object), marks))
}

/// Marks of a replaced object that has more extents than a commit takes. After its head, never before: a mark on a blob
/// that is still named would let its bytes be freed. If they get lost, `v/` still names what they stand for.
pub(crate) async fn mark_dead(context: &Context, lease: &SubLease, marks: Vec<Write>) {
    for some in marks.chunks(MARKS_WITH_HEAD) {
        let batch = Batch::one(Some(lease.epoch), Change::blind(some.to_vec()));
        if let Err(error) = context.catalog().commit(batch).await {
            tracing::warn!(%error, "dead marks of a replaced object were not written; its older version still names them");
            return;
        }
    }
}

/// Commits one change that makes no version: buckets, uploads, parts, extents of an upload, tags of a version, a version that goes.
///
/// `landed` reads whether it was done, for an answer that did not come. Ok(false): a guard did not hold.
pub(crate) async fn commit_plain(
    context: &Context,
    lease: &SubLease,
    change: Change,
    landed: impl Fn(&dyn View) -> Result<bool>,
) -> Result<bool> {
    for _ in 0..ROUNDS {
        let batch = Batch::one(Some(lease.epoch), change.clone());
        match context.catalog().commit(batch).await {
            Ok(committed) => {
                still_may_answer(context.authority(), lease.epoch)?;
                return Ok(committed.all_applied() || landed(context.catalog().view().await?.as_ref())?);
            }
            Err(CatalogError::Unclear { .. }) => {
                if landed(context.catalog().view().await?.as_ref())? {
                    still_may_answer(context.authority(), lease.epoch)?;
                    return Ok(true);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(GatewayError::OutcomeUnknown("the catalog did not answer, again and again".to_owned()))
}

/// Commits changes that touch no head, as many in one batch as it takes, in order. Ok(false): a guard did not hold, and
/// `landed` says that the change was not done either; those before it were.
pub(crate) async fn commit_many(
    context: &Context,
    lease: &SubLease,
    changes: Vec<Change>,
    landed: impl Fn(&dyn View, usize) -> Result<bool>,
) -> Result<bool> {
    let mut start = 0;
    while start < changes.len() {
        let mut bytes = 0;
        let fits = |change: &&Change| {
            bytes += change.bytes();
            bytes <= COMMIT_BYTES
        };
        let count = changes[start..].iter().take(MAX_CHANGES).take_while(fits).count().max(1);
        let batch = Batch { epoch: Some(lease.epoch), changes: changes[start..start + count].to_vec() };
        let outcomes = match context.catalog().commit(batch).await {
            Ok(committed) => committed.outcomes,
            Err(CatalogError::Unclear { .. }) => vec![Outcome::Refused { guard: 0 }; count],
            Err(error) => return Err(error.into()),
        };
        let refused = (0..count).filter(|&at| outcomes.get(at) != Some(&Outcome::Applied));
        for at in refused {
            let view = context.catalog().view().await?;
            if !landed(view.as_ref(), start + at)? {
                return Ok(false);
            }
        }
        start += count;
    }
    still_may_answer(context.authority(), lease.epoch)?;
    Ok(true)
}
