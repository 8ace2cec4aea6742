//! The thread that hashes bodies together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fearless_simd::Level;
use tokio::sync::oneshot;

use super::kernel::{self, MAX_LANES};
use super::{Md5, whole_blocks};
use crate::error::{GatewayError, Result};

/// Bytes of each lane between two looks at who has come.
const STRIDE: usize = 64 << 10;
/// So long bytes wait for those of other bodies that are on their way. Whoever sent them codes and writes them meanwhile, which takes longer.
const COMPANY: Duration = Duration::from_millis(2);

/// Hashes bodies together: one thread of a gateway.
#[derive(Debug, Clone)]
pub struct Md5Lanes {
    queue: Sender<Job>,
    /// Bodies that are being hashed, or will be with their next bytes.
    bodies: Arc<AtomicUsize>,
}

/// A body whose bytes go to the lanes as they come.
#[derive(Debug)]
pub struct Hashing {
    lanes: Md5Lanes,
    at: At,
}

#[derive(Debug)]
enum At {
    /// All bytes so far are in it.
    Here(Box<Md5>),
    /// The lanes have it, with the bytes last given.
    Lanes(oneshot::Receiver<Box<Md5>>),
}

/// Bytes of a body, and where it stands.
struct Job {
    md5: Box<Md5>,
    bytes: Bytes,
    /// Bytes that are in.
    done: usize,
    answer: oneshot::Sender<Box<Md5>>,
}

impl Md5Lanes {
    /// Starts the thread; it ends with the last handle and body.
    pub fn start() -> Result<Self> {
        let (queue, jobs) = channel();
        let bodies = Arc::new(AtomicUsize::new(0));
        let waited_for = Arc::clone(&bodies);
        std::thread::Builder::new()
            .name("md5".to_owned())
            .spawn(move || Worker { level: Level::new(), jobs, bodies: waited_for, lanes: Vec::new() }.run())
            .map_err(|error| GatewayError::Internal(format!("no thread for MD5: {error}")))?;
        Ok(Self { queue, bodies })
    }

    /// A body of which nothing has come yet.
    pub fn body(&self) -> Hashing {
        self.bodies.fetch_add(1, Ordering::Relaxed);
        Hashing { lanes: self.clone(), at: At::Here(Box::default()) }
    }
}

impl Hashing {
    /// Hands over the next bytes, and waits for those before them only. They are let go of when the next call, or [`Self::finish`],
    /// has returned.
    pub async fn update(&mut self, bytes: Bytes) -> Result<()> {
        let md5 = self.here().await?;
        let (answer, answered) = oneshot::channel();
        let job = Job { md5, bytes, done: 0, answer };
        self.lanes.queue.send(job).map_err(|_| stopped())?;
        self.at = At::Lanes(answered);
        Ok(())
    }

    /// Waits until all bytes that were given are in.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        let md5 = self.here().await?;
        self.at = At::Here(md5);
        Ok(())
    }

    /// The MD5 of it all.
    pub async fn finish(mut self) -> Result<[u8; 16]> {
        Ok(self.here().await?.finish())
    }

    async fn here(&mut self) -> Result<Box<Md5>> {
        match &mut self.at {
            At::Here(md5) => Ok(std::mem::take(md5)),
            At::Lanes(answered) => answered.await.map_err(|_| stopped()),
        }
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.lanes.bodies.fetch_sub(1, Ordering::Relaxed);
    }
}

fn stopped() -> GatewayError {
    GatewayError::Internal("the thread for MD5 has ended".to_owned())
}

/// Bytes of a job that are whole blocks, and not in yet.
fn left(job: &Job) -> usize {
    whole_blocks(&job.bytes[job.done..]).len()
}

struct Worker {
    level: Level,
    jobs: Receiver<Job>,
    bodies: Arc<AtomicUsize>,
    lanes: Vec<Job>,
}

impl Worker {
    fn run(mut self) {
        while self.gather() {
            self.stride();
        }
    }

    /// Fills the lanes; false: nothing is left to do, and nothing will come.
    fn gather(&mut self) -> bool {
        if self.lanes.is_empty() {
            let Ok(first) = self.jobs.recv() else { return false };
            self.enter(first);
        }
        let until = Instant::now() + COMPANY;
        while self.lanes.len() < MAX_LANES {
            let next = match self.jobs.try_recv() {
                Ok(next) => Ok(next),
                // Lanes that are under way wait for nobody.
                Err(_) if self.is_company_coming() => {
                    self.jobs.recv_timeout(until.saturating_duration_since(Instant::now()))
                }
                Err(_) => break,
            };
            match next {
                Ok(job) => self.enter(job),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        true
    }

    fn is_company_coming(&self) -> bool {
        let lanes = self.lanes.len();
        lanes < self.bodies.load(Ordering::Relaxed)
            && lanes < kernel::width(self.level, lanes)
            && self.lanes.iter().all(|job| job.done < STRIDE)
    }

    /// Takes a lane, at the start of a block.
    fn enter(&mut self, mut job: Job) {
        job.done = job.md5.begin(&job.bytes);
        self.lanes.push(job);
    }

    /// The next blocks of all lanes; who has none left is answered.
    fn stride(&mut self) {
        if let Some(bytes) = self.lanes.iter().map(left).filter(|left| *left > 0).min() {
            self.hash(bytes.min(STRIDE));
        }
        for at in (0..self.lanes.len()).rev() {
            if left(&self.lanes[at]) == 0 {
                let Job { mut md5, bytes, done, answer } = self.lanes.swap_remove(at);
                md5.keep(&bytes[done..]);
                // Before the answer: who gets it may want to write into them.
                drop(bytes);
                // Who has gone wants no sum.
                let _: Result<(), _> = answer.send(md5);
            }
        }
    }

    fn hash(&mut self, bytes: usize) {
        let mut busy: Vec<kernel::Lane<'_>> = Vec::with_capacity(MAX_LANES);
        for job in &mut self.lanes {
            if left(job) > 0 {
                busy.push((&mut job.md5.state, &job.bytes[job.done..job.done + bytes]));
                job.done += bytes;
            }
        }
        match busy.as_mut_slice() {
            [(state, blocks)] => kernel::one(state, blocks),
            lanes => {
                for some in lanes.chunks_mut(kernel::width(self.level, lanes.len())) {
                    kernel::many(self.level, some);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ::md5::Digest;
    use rand::rngs::StdRng;
    use rand::{Rng, RngCore, SeedableRng};

    use super::*;

    /// Pieces of a body: some shorter than a block, some longer than a stride.
    fn body(seed: u64) -> Vec<Bytes> {
        let mut rng = StdRng::seed_from_u64(seed);
        let piece = |rng: &mut StdRng| {
            let longest = [40, 400, 3 * STRIDE][rng.random_range(0..3)];
            let mut bytes = vec![0; rng.random_range(0..longest)];
            rng.fill_bytes(&mut bytes);
            Bytes::from(bytes)
        };
        let pieces = rng.random_range(0..6);
        (0..pieces).map(|_| piece(&mut rng)).collect()
    }

    async fn by_lanes(lanes: Md5Lanes, pieces: Vec<Bytes>) -> [u8; 16] {
        let mut hashing = lanes.body();
        for piece in pieces {
            hashing.update(piece).await.expect("it is taken");
        }
        hashing.finish().await.expect("a sum")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bodies_that_come_together_are_not_mixed_up() {
        let lanes = Md5Lanes::start().expect("a thread");
        for company in [1, 2, 7, 9, 40] {
            let bodies: Vec<Vec<Bytes>> = (0..company).map(|number| body(company * 100 + number)).collect();
            let sums = bodies.iter().map(|pieces| tokio::spawn(by_lanes(lanes.clone(), pieces.clone())));
            for (sum, pieces) in futures::future::join_all(sums).await.into_iter().zip(&bodies) {
                let wanted: [u8; 16] = ::md5::Md5::digest(pieces.concat()).into();
                assert_eq!(sum.expect("it ends"), wanted, "{company} bodies");
            }
        }
        assert_eq!(lanes.bodies.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_was_hashed_is_let_go_of() {
        let lanes = Md5Lanes::start().expect("a thread");
        let mut hashing = lanes.body();
        let bytes = Bytes::from(vec![7; 3 * STRIDE + 5]);
        hashing.update(bytes.clone()).await.expect("it is taken");
        hashing.settle().await.expect("it is in");
        assert!(bytes.try_into_mut().is_ok(), "the buffer can be filled again");
    }
}
