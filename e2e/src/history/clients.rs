//! Clients of registers: each asks for one thing after the other, whatever happens to the sites, and writes down what it was told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use diptych::client::s3::{Expect, Refused, S3Client};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::record::{Action, Line, Operation, Outcome, Recorder};
use super::value::{ABSENT, body, etag, of_body};
use crate::demo::installation::until;

/// A request is given up after this: its outcome is unknown.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Between two requests of a client. More of them make no better test, and a search that takes longer.
const PACE: Duration = Duration::from_millis(25);
/// Until requests are answered again.
const GOES_ON: Duration = Duration::from_mins(2);
/// Until every register can be read.
const READABLE: Duration = Duration::from_mins(1);

/// Who uses which registers.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// How many clients.
    pub clients: u32,
    /// Keys.
    pub registers: Vec<String>,
    /// What they ask for, in which order.
    pub seed: u64,
}

/// What all clients of a run share.
pub(super) struct Shared {
    s3: Arc<S3Client>,
    recorder: Arc<Recorder>,
    next_value: AtomicU64,
    next_client: AtomicU64,
}

impl Shared {
    /// The S3 client must not try again by itself.
    pub(super) fn new(s3: Arc<S3Client>, recorder: Arc<Recorder>) -> Self {
        Self { s3, recorder, next_value: AtomicU64::new(ABSENT + 1), next_client: AtomicU64::new(0) }
    }

    /// Values that were asked to be written so far: these, from 1 on.
    pub(super) fn values(&self) -> u64 {
        self.next_value.load(Ordering::Relaxed) - 1
    }

    fn value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    fn client(&self) -> u64 {
        self.next_client.fetch_add(1, Ordering::Relaxed)
    }

    /// Does one thing, and writes down what came of it. What a get found.
    async fn ask(&self, client: u64, register: &str, action: Action) -> Result<(Outcome, Option<u64>)> {
        let call = self.recorder.now();
        let attempt = tokio::time::timeout(ATTEMPT, send(&self.s3, register, action)).await;
        let r#return = self.recorder.now();
        let (outcome, read) = match attempt {
            Err(_) => (Outcome::Unknown, None),
            Ok(Ok(None)) => (Outcome::Ok, None),
            Ok(Ok(Some(bytes))) => {
                let value =
                    of_body(&bytes).with_context(|| format!("{register} has bytes that nobody wrote"));
                (Outcome::Ok, Some(value?))
            }
            Ok(Err(error)) => outcome_of(action, error)?,
        };
        self.recorder.line(&Line::Operation(Operation {
            register,
            client,
            action,
            read,
            outcome,
            call,
            r#return,
        }))?;
        Ok((outcome, read))
    }

    /// Reads each register once more, each until it is answered.
    pub(super) async fn read_all(&self, registers: &[String]) -> Result<()> {
        let client = self.client();
        for register in registers {
            until(&format!("{register} is read"), READABLE, || async {
                let (outcome, _) = self.ask(client, register, Action::Get).await?;
                Ok(if outcome == Outcome::Ok { Ok(()) } else { Err(format!("{outcome:?}")) })
            })
            .await?;
        }
        Ok(())
    }
}

/// Sends it; the bytes that a get found.
async fn send(s3: &S3Client, register: &str, action: Action) -> Result<Option<Bytes>> {
    match action {
        Action::Get => Ok(Some(s3.get(register).await?.bytes().await?)),
        Action::Put { writes } => put(s3, register, writes, Expect::Anything).await,
        Action::Delete => s3.delete(register).await.map(|()| None),
        Action::Create { writes } => put(s3, register, writes, Expect::Absent).await,
        Action::Replace { expects, writes } => put(s3, register, writes, Expect::Etag(&etag(expects))).await,
    }
}

async fn put(s3: &S3Client, register: &str, value: u64, expect: Expect<'_>) -> Result<Option<Bytes>> {
    s3.put_where(register, body(value), expect).await.map(|_| None)
}

/// How an error ends an operation; one that says that it was asked wrongly is handed on.
fn outcome_of(action: Action, error: anyhow::Error) -> Result<(Outcome, Option<u64>)> {
    let Some(Refused { status, body }) = error.downcast_ref::<Refused>() else {
        // It broke off somewhere on the way.
        return Ok((Outcome::Unknown, None));
    };
    let is_conditional = matches!(action, Action::Create { .. } | Action::Replace { .. });
    match status.as_u16() {
        404 if action == Action::Get => Ok((Outcome::Ok, Some(ABSENT))),
        412 | 404 if is_conditional => Ok((Outcome::Refused, None)),
        // The site says that it did nothing.
        503 if body.contains("SlowDown") || body.contains("NotDurable") => Ok((Outcome::Failed, None)),
        // Cloudflare did not get through to the site: nothing of the request was sent.
        521..=523 | 525 | 526 | 530 => Ok((Outcome::Failed, None)),
        500.. => Ok((Outcome::Unknown, None)),
        _ => Err(error.context(format!("{action:?}"))),
    }
}

/// Clients that go on until they are stopped.
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    recorder: Arc<Recorder>,
    running: JoinSet<Result<()>>,
}

impl Clients {
    /// Starts them.
    pub(super) fn start(shared: &Arc<Shared>, load: &Load) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        for number in 0..load.clients {
            let client = Client {
                shared: Arc::clone(shared),
                registers: load.registers.clone(),
                rng: StdRng::seed_from_u64(load.seed ^ (u64::from(number) << 32)),
                seen: HashMap::new(),
            };
            running.spawn(client.go_on(Arc::clone(&stop)));
        }
        Self { stop, recorder: Arc::clone(&shared.recorder), running }
    }

    /// Waits until so many more writes were acknowledged.
    pub(super) async fn write_on(&self, more: u64) -> Result<()> {
        let before = self.recorder.acknowledged();
        until("writes are acknowledged", GOES_ON, || async {
            let now = self.recorder.acknowledged() - before;
            Ok(if now >= more { Ok(()) } else { Err(format!("{now} of {more}")) })
        })
        .await
    }

    /// Ends them, when what they asked for last is answered.
    ///
    /// # Errors
    /// A client was answered with what no register can say.
    pub(super) async fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.running.join_next().await {
            ended.context("a client broke")??;
        }
        Ok(())
    }
}

struct Client {
    shared: Arc<Shared>,
    registers: Vec<String>,
    rng: StdRng,
    /// What it knows of registers, to build on.
    seen: HashMap<String, u64>,
}

impl Client {
    async fn go_on(mut self, stop: Arc<AtomicBool>) -> Result<()> {
        let mut client = self.shared.client();
        while !stop.load(Ordering::Relaxed) {
            let register = self.registers.choose(&mut self.rng).context("no register")?.clone();
            let action = self.choose(&register);
            let (outcome, read) = self.shared.ask(client, &register, action).await?;
            match outcome {
                Outcome::Ok => {
                    self.seen.insert(register, read.unwrap_or_else(|| after(action)));
                }
                Outcome::Refused => {
                    self.seen.remove(&register);
                }
                Outcome::Failed => {}
                Outcome::Unknown => client = self.shared.client(),
            }
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    fn choose(&mut self, register: &str) -> Action {
        let seen = self.seen.get(register).copied();
        match (self.rng.random_range(0..20), seen) {
            (0..9, _) => Action::Get,
            (9..14, _) => Action::Put { writes: self.shared.value() },
            (14..16, _) => Action::Delete,
            (_, Some(expects)) if expects != ABSENT => {
                Action::Replace { expects, writes: self.shared.value() }
            }
            _ => Action::Create { writes: self.shared.value() },
        }
    }
}

/// What a write leaves there.
fn after(action: Action) -> u64 {
    match action {
        Action::Get | Action::Delete => ABSENT,
        Action::Put { writes } | Action::Create { writes } | Action::Replace { writes, .. } => writes,
    }
}
