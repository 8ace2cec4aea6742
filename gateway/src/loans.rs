//! What agents on this machine have lent: the files of segments; and where rows lie in them (docs/adr/0023).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use diptych_core::ids::{DeviceId, NodeName};
use diptych_wire::agent::{AgentError, RowAt, RowPlace};
use diptych_wire::client::{AgentClient, CallError, Loan};

use crate::agents::Agents;

/// Rows of which it is remembered where they lie.
const ROWS: usize = 64 << 10;
/// Files that are borrowed at one time.
const FILES: usize = 256;
/// A device that lends nothing, or hangs, is asked for nothing for so long.
const REST: Duration = Duration::from_secs(10);
/// A read waits for its loans no longer than this: then it goes by way of the agents,
const WITHIN: Duration = Duration::from_millis(50);
/// and so do others for so long: the agent may only be busy.
const SHORT_REST: Duration = Duration::from_secs(1);

/// A segment of a device.
type SegmentAt = (DeviceId, u64);

/// A row that can be read where it lies.
#[derive(Debug, Clone)]
pub(crate) struct LentRow {
    pub(crate) loan: Arc<Loan>,
    pub(crate) place: RowPlace,
}

/// All that is lent.
#[derive(Debug, Default)]
pub(crate) struct Loans(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// For as long as its file is lent: a row that was deleted is not read for longer.
    rows: HashMap<RowAt, (RowPlace, Weak<Loan>)>,
    files: HashMap<SegmentAt, Arc<Loan>>,
    /// Until when.
    resting: HashMap<DeviceId, Instant>,
}

impl Known {
    fn file(&self, segment: &SegmentAt) -> Option<&Arc<Loan>> {
        self.files.get(segment).filter(|loan| loan.is_good())
    }

    fn row(&self, at: &RowAt) -> Option<LentRow> {
        let (place, loan) = self.rows.get(at)?;
        let loan = loan.upgrade().filter(|loan| loan.is_good())?;
        Some(LentRow { loan, place: *place })
    }

    fn keep_row(&mut self, at: RowAt, place: RowPlace) {
        let Some(loan) = self.file(&(at.device, place.segment)).map(Arc::downgrade) else { return };
        // What was left behind is not asked for again soon.
        if self.rows.len() >= ROWS {
            self.rows.clear();
        }
        self.rows.insert(at, (place, loan));
    }

    fn keep(&mut self, segment: SegmentAt, loan: Loan) {
        // Another read may have borrowed it meanwhile.
        if self.file(&segment).is_some() {
            return;
        }
        if self.files.len() >= FILES {
            self.files.retain(|_, loan| loan.is_good());
        }
        if self.files.len() >= FILES {
            let oldest = self.files.iter().min_by_key(|(_, loan)| loan.given()).map(|(segment, _)| *segment);
            if let Some(oldest) = oldest {
                self.files.remove(&oldest);
            }
        }
        self.files.insert(segment, Arc::new(loan));
    }

    fn rest(&mut self, device: DeviceId, time: Duration) {
        self.resting.insert(device, Instant::now() + time);
        self.files.retain(|(lent, _), _| *lent != device);
    }
}

impl Loans {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows, if all of them are lent, or will be soon.
    pub(crate) async fn rows(&self, agents: &Agents, wanted: &[RowAt]) -> Option<Vec<LentRow>> {
        let known = self.lent(wanted)?;
        let mut by_node: BTreeMap<&NodeName, Vec<RowAt>> = BTreeMap::new();
        for (at, _) in wanted.iter().zip(&known).filter(|(_, row)| row.is_none()) {
            by_node.entry(agents.node_of(at.device)?).or_default().push(*at);
        }
        if by_node.is_empty() {
            return known.into_iter().collect();
        }
        let asked = by_node.into_iter().map(|(node, rows)| async move {
            self.ask(agents.client(node)?, &rows).await;
            Some(())
        });
        futures::future::join_all(asked).await;
        self.lent(wanted)?.into_iter().collect()
    }

    /// What is lent of the rows; None: one of the devices lends nothing now.
    fn lent(&self, wanted: &[RowAt]) -> Option<Vec<Option<LentRow>>> {
        let known = self.known();
        let now = Instant::now();
        let rests = |at: &RowAt| known.resting.get(&at.device).is_some_and(|until| now < *until);
        if wanted.iter().any(rests) {
            return None;
        }
        Some(wanted.iter().map(|at| known.row(at)).collect())
    }

    async fn ask(&self, client: &AgentClient, rows: &[RowAt]) {
        let (reason, rest) = match tokio::time::timeout(WITHIN, self.borrow(client, rows)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => (error.to_string(), REST),
            Err(_) => (format!("no answer in {WITHIN:?}"), SHORT_REST),
        };
        tracing::debug!(node = %client.endpoint().node, reason, "nothing is lent");
        for at in rows {
            self.known().rest(at.device, rest);
        }
    }

    async fn borrow(&self, client: &AgentClient, rows: &[RowAt]) -> Result<(), CallError> {
        let mut placed = Vec::with_capacity(rows.len());
        for (at, located) in rows.iter().zip(client.locate(rows.to_vec()).await?) {
            match located {
                Ok(Some(place)) => placed.push((*at, place)),
                // The agent says what is wrong with the row when it is asked to read it.
                Err(AgentError::NotFound | AgentError::Rotten { .. }) => {}
                Ok(None) | Err(_) => self.rest(at.device),
            }
        }
        let files: BTreeSet<SegmentAt> = {
            let known = self.known();
            let files = placed.iter().map(|(at, place)| (at.device, place.segment));
            files.filter(|segment| known.file(segment).is_none()).collect()
        };
        let borrowed = files
            .into_iter()
            .map(|segment| async move { (segment, client.borrow(segment.0, segment.1).await) });
        for (segment, loan) in futures::future::join_all(borrowed).await {
            match loan {
                Ok(loan) => self.known().keep(segment, loan),
                // Emptied since, and unlinked: next time the row lies elsewhere.
                Err(CallError::Agent(AgentError::NotFound)) => {}
                Err(CallError::Agent(_)) => self.rest(segment.0),
                Err(error) => return Err(error),
            }
        }
        let mut known = self.known();
        for (at, place) in placed {
            known.keep_row(at, place);
        }
        Ok(())
    }

    /// Something was wrong where these rows lay: their agents are asked anew.
    pub(crate) fn forget(&self, rows: &[RowAt]) {
        let mut known = self.known();
        for at in rows {
            known.rows.remove(at);
        }
    }

    /// Nothing of the device is read by loan for a while.
    pub(crate) fn rest(&self, device: DeviceId) {
        self.known().rest(device, REST);
    }

    /// Gives everything back.
    pub(crate) fn clear(&self) {
        *self.known() = Known::default();
    }

    /// Gives back what has ended.
    pub(crate) fn look(&self) {
        let mut known = self.known();
        known.files.retain(|_, loan| loan.is_good());
        known.rows.retain(|_, (_, loan)| loan.strong_count() > 0);
        let now = Instant::now();
        known.resting.retain(|_, until| now < *until);
    }
}
