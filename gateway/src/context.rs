//! What all requests of a gateway share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use bytes::Bytes;
use diptych_catalog::{Catalog, View};
use diptych_core::cipher::BulkCipher;
use diptych_core::ids::{ExtentId, NodeName, Row, SiteName};
use diptych_core::journal::FOUND_WITHIN;
use diptych_core::keyring::Keyring;
use diptych_core::keys::{self, Key};
use diptych_core::placement::PlacementMap;
use diptych_core::planner::Survive;
use diptych_core::records::{CodingPlan, OnTimeout, Position, Promise, Record};
use diptych_wire::client::CallError;
use diptych_wire::peer::RowSpan;
use tokio::sync::{Notify, Semaphore};

use crate::agents::{AgentDial, AgentPool, Agents};
use crate::authority::{Authority, Role, may_write};
use crate::clock::GatewayClock;
use crate::error::{GatewayError, Result};
use crate::hold::{HeldWrites, WriteTurns};
use crate::latency::{HedgeBudget, Latencies};
use crate::loans::Loans;
use crate::md5::Md5Lanes;
use crate::metrics::Metrics;

/// For this long a node that did not answer counts as down.
const DOWN_FOR: Duration = Duration::from_secs(5);
/// Between two looks at map and plan.
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// Bounds of what a gateway holds at one time.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bodies of more than a batch's object that are written at one time; each holds a few stripes.
    pub streams: usize,
    /// Bytes of chunks that are read and not yet taken by clients.
    pub read_bytes: usize,
    /// Bytes of small bodies that wait for a batch.
    pub batch_bytes: usize,
    /// Rows of an extent that are sent whole, together, at most; more are streamed.
    pub whole_rows: usize,
    /// An extent that a body has filled for this long is entered, and the body goes on in another one.
    pub extent_open: Duration,
    /// An extent that is this old is not entered any more: a resurrection takes older ones that it does not know for deleted.
    pub enter_within: Duration,
    /// A body that is silent for this long is given up.
    pub body_idle: Duration,
    /// Time for a request's header.
    pub header: Duration,
    /// Connections of each listener.
    pub connections: usize,
    /// How long a request waits for its turn before it is told to come again.
    pub turn: Duration,
}

impl Default for Limits {
    /// 256 MiB a process hold these.
    fn default() -> Self {
        Self {
            streams: 16,
            read_bytes: 80 << 20,
            batch_bytes: 24 << 20,
            whole_rows: 2 << 20,
            extent_open: Duration::from_mins(10),
            enter_within: FOUND_WITHIN,
            body_idle: Duration::from_secs(30),
            header: Duration::from_secs(15),
            connections: 2048,
            turn: Duration::from_mins(1),
        }
    }
}

/// Tells when the other site has what was committed here. `BothSites` waits for it.
#[async_trait]
pub trait PeerConfirmation: Send + Sync + 'static {
    /// Waits until the other site has applied `position` and holds these extents whole: how many rows it has of the one that has
    /// fewest there. None: not within this time, or else the one that the cluster declares.
    async fn confirmed(
        &self,
        position: Position,
        extents: &[ExtentId],
        within: Option<Duration>,
    ) -> Option<u8>;

    /// The same for what was read of a head at `seen`, whoever wrote it; false: not within the time.
    async fn settled(
        &self,
        head: &Key,
        seen: Position,
        extents: &[ExtentId],
        within: Option<Duration>,
    ) -> bool;

    /// The same for many heads that a list went past, each with all its extents.
    async fn all_settled(&self, heads: &[Key], seen: Position, within: Option<Duration>) -> bool;
}

/// Rows that the other site has, through its peer door: read where too few are left in this one.
#[async_trait]
pub trait PeerRows: Send + Sync + 'static {
    /// Ranges of rows: by range its bytes, or why they do not read. The outer error: the other site can't be asked.
    async fn read(
        &self,
        extent: ExtentId,
        spans: Vec<RowSpan>,
    ) -> std::result::Result<Vec<std::result::Result<Bytes, String>>, String>;
}

/// What a gateway is given.
pub struct Dependencies {
    /// The site.
    pub site: SiteName,
    /// Its catalog.
    pub catalog: Arc<dyn Catalog>,
    /// Its keeper's word.
    pub authority: Arc<dyn Authority>,
    /// The opened keyring.
    pub keyring: Keyring,
    /// The bulk cipher.
    pub cipher: Arc<dyn BulkCipher>,
    /// How agents are reached.
    pub dial: AgentDial,
    /// What is to be survived.
    pub survive: Survive,
    /// Waited for before a write is acknowledged, where both sites must have it.
    pub peer: Option<Arc<dyn PeerConfirmation>>,
    /// The other site's rows; None with one site.
    pub peer_rows: Option<Arc<dyn PeerRows>>,
}

/// How an extent is coded. It keeps this to its end, whatever plan comes into force meanwhile.
#[derive(Debug, Clone)]
pub struct Coding {
    /// k and f, by site.
    pub plan: Arc<CodingPlan>,
    /// The rows that the writer's site holds.
    pub rows: Vec<Row>,
}

/// What all requests share.
pub struct Context {
    site: SiteName,
    catalog: Arc<dyn Catalog>,
    authority: Arc<dyn Authority>,
    keyring: ArcSwap<Keyring>,
    cipher: Arc<dyn BulkCipher>,
    md5: Md5Lanes,
    pool: AgentPool,
    outside: AgentPool,
    plan: ArcSwapOption<CodingPlan>,
    survive: Survive,
    peer: Option<Arc<dyn PeerConfirmation>>,
    peer_rows: Option<Arc<dyn PeerRows>>,
    clock: GatewayClock,
    metrics: Metrics,
    limits: Limits,
    streams: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    down: Mutex<HashMap<NodeName, Instant>>,
    latencies: Latencies,
    hedges: HedgeBudget,
    loans: Arc<Loans>,
    refresh: Notify,
    writes: WriteTurns,
}

impl Context {
    /// Reads map and plan; a site that has none yet gets them by the refresh that runs later.
    pub async fn new(given: Dependencies, limits: Limits) -> Result<Self> {
        let metrics = Metrics::new().map_err(|error| GatewayError::Internal(error.to_string()))?;
        let context = Self {
            pool: AgentPool::new(given.site.clone(), given.dial.clone()),
            outside: AgentPool::new(SiteName::outside(), given.dial),
            site: given.site,
            catalog: given.catalog,
            authority: given.authority,
            keyring: ArcSwap::from_pointee(given.keyring),
            cipher: given.cipher,
            md5: Md5Lanes::start()?,
            plan: ArcSwapOption::empty(),
            survive: given.survive,
            peer: given.peer,
            peer_rows: given.peer_rows,
            clock: GatewayClock::default(),
            metrics,
            streams: Arc::new(Semaphore::new(limits.streams)),
            reads: Arc::new(Semaphore::new(limits.read_bytes)),
            limits,
            down: Mutex::default(),
            latencies: Latencies::default(),
            hedges: HedgeBudget::default(),
            loans: Arc::default(),
            refresh: Notify::new(),
            writes: WriteTurns::default(),
        };
        context.refresh_now().await?;
        Ok(context)
    }

    /// Who may write now.
    pub(crate) fn writes(&self) -> &WriteTurns {
        &self.writes
    }

    /// Holds new writes back until the result is dropped; returns when those under way have ended.
    pub async fn hold_writes(&self) -> HeldWrites {
        self.writes.hold().await
    }

    /// The site.
    pub fn site(&self) -> &SiteName {
        &self.site
    }

    /// Its catalog.
    pub fn catalog(&self) -> &Arc<dyn Catalog> {
        &self.catalog
    }

    /// A view for an answer to a client.
    ///
    /// FENCING: the look at the deadline comes after the view. An active site whose time ran out, or one that knows too
    /// little, gives nothing out: another site may have taken writes meanwhile.
    pub async fn view_for_client(&self) -> Result<Box<dyn View>> {
        let view = self.catalog.view().await?;
        match self.authority.role() {
            Role::Passive => Ok(view),
            Role::Active | Role::Fenced => may_write(self.authority.as_ref()).map(|_| view),
        }
    }

    /// Who is asked whether a failover could take back what is read here. None: with `OneSite` nobody is, and a passive site gives
    /// out what it has from the active one. Nor is anybody where the bucket has writes downgraded: what it holds is acknowledged by one
    /// site, and would not be read while the other one is away.
    pub(crate) fn settler(&self, promise: Promise) -> Option<&dyn PeerConfirmation> {
        let waits = promise.on_timeout == OnTimeout::Refuse && self.authority.role() == Role::Active;
        self.peer.as_deref().filter(|_| waits)
    }

    /// Its keeper's word.
    pub fn authority(&self) -> &dyn Authority {
        self.authority.as_ref()
    }

    /// The bulk cipher.
    pub fn cipher(&self) -> &Arc<dyn BulkCipher> {
        &self.cipher
    }

    /// Hashes bodies together.
    pub(crate) fn md5(&self) -> &Md5Lanes {
        &self.md5
    }

    /// The clock.
    pub fn clock(&self) -> &GatewayClock {
        &self.clock
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What is to be survived.
    pub fn survive(&self) -> Survive {
        self.survive
    }

    /// Whom a write waits for, besides.
    pub fn peer(&self) -> Option<&Arc<dyn PeerConfirmation>> {
        self.peer.as_ref()
    }

    /// Rows of the other site.
    pub fn peer_rows(&self) -> Option<&Arc<dyn PeerRows>> {
        self.peer_rows.as_ref()
    }

    /// The site's agents.
    pub fn agents(&self) -> Arc<Agents> {
        self.pool.current()
    }

    /// Devices of the site of which it is known what they take to answer.
    pub fn measured_devices(&self) -> usize {
        self.agents().latencies().filter(|(_, device)| device.is_known()).count()
    }

    /// The agents in neither site.
    pub(crate) fn outside_agents(&self) -> Arc<Agents> {
        self.outside.current()
    }

    /// How many reads may ask others besides.
    pub(crate) fn hedges(&self) -> &HedgeBudget {
        &self.hedges
    }

    /// What agents on this machine have lent.
    pub(crate) fn loans(&self) -> &Arc<Loans> {
        &self.loans
    }

    /// Gives back what agents on this machine have lent. Rows that have been deleted since they were read last are not read any more then; of
    /// itself that takes ten seconds.
    pub fn return_loans(&self) {
        self.loans.clear();
    }

    /// Turns of streamed bodies.
    pub(crate) fn streams(&self) -> &Arc<Semaphore> {
        &self.streams
    }

    /// Room for chunks of answers, in bytes.
    pub(crate) fn reads(&self) -> &Arc<Semaphore> {
        &self.reads
    }

    /// Takes a keyring into use: after a rotation, or the join.
    pub fn set_keyring(&self, keyring: Keyring) {
        self.keyring.store(Arc::new(keyring));
    }

    /// The keyring.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.keyring.load_full()
    }

    /// The coding in force, for an extent that begins.
    pub fn coding(&self) -> Result<Coding> {
        let plan = self.plan()?;
        let rows = plan.own_rows(&self.site);
        if rows.is_empty() {
            let reason = format!("the coding plan has no rows for site {}", self.site);
            return Err(GatewayError::NotReady(reason));
        }
        Ok(Coding { plan, rows })
    }

    /// The plan in force.
    pub fn plan(&self) -> Result<Arc<CodingPlan>> {
        let missing = || GatewayError::NotReady("the catalog has no coding plan yet".to_owned());
        self.plan.load_full().ok_or_else(missing)
    }

    /// Notes a node that can't be reached. One that is merely slow does not count as down: that would lower what a
    /// write has to survive just when the site is busy.
    pub fn note(&self, node: &NodeName, error: &CallError) {
        if matches!(error, CallError::Unreachable { .. } | CallError::Disconnected { .. }) {
            let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
            down.insert(node.clone(), Instant::now());
        }
    }

    /// A node answered.
    pub fn note_reachable(&self, node: &NodeName) {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    /// Whether a node could not be reached lately.
    pub fn is_unreachable(&self, node: &NodeName) -> bool {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.get(node).is_some_and(|since| since.elapsed() < DOWN_FOR)
    }

    /// Asks for a look at map and plan now.
    pub fn want_refresh(&self) {
        self.refresh.notify_one();
    }

    /// Reads map and plan anew.
    pub async fn refresh_now(&self) -> Result<()> {
        let view = self.catalog.view().await?;
        for (place, pool) in [(&self.site, &self.pool), (&SiteName::outside(), &self.outside)] {
            if let Some(raw) = view.get(&keys::map(place))? {
                pool.take(PlacementMap::decode(&raw)?);
            }
        }
        if let Some((_, raw)) = view.last(&keys::plans())? {
            let plan = CodingPlan::decode(&raw)?;
            if self.plan.load().as_deref() != Some(&plan) {
                tracing::info!(needed = plan.needed, rows = ?plan.rows, "coding plan");
                self.plan.store(Some(Arc::new(plan)));
            }
        }
        let lease = self.authority.sub_lease();
        let running = lease.is_some_and(|lease| lease.admits(crate::authority::boot_time(), lease.epoch));
        self.metrics.lease_running.set(i64::from(running));
        self.metrics.epoch.set(i64::try_from(self.authority.epoch().0).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Keeps map, plan and what is known of devices fresh, for as long as it is polled.
    pub async fn keep_fresh(&self) {
        loop {
            let timed = tokio::time::timeout(REFRESH_EVERY, self.refresh.notified()).await;
            if timed.is_err() {
                self.latencies.look(&[&self.agents(), &self.outside_agents()]);
                self.hedges.look();
                self.loans.look();
            }
            if let Err(error) = self.refresh_now().await {
                tracing::warn!(%error, "placement map and coding plan could not be read again");
            }
        }
    }
}
