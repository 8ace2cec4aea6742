//! The prober: numbered records through the public name, as any client writes them, all the while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use diptych_core::drill::{BUCKET, Event, Probe, ReadBack};
use diptych_core::lease::BootTime;
use futures::{StreamExt, stream};
use reqwest::{Method, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::rest::{Failure, Rest};
use crate::keeper::boot_time;

/// Between two records: what is measured is no finer.
const PACE: Duration = Duration::from_millis(100);
/// Records under way at once: a request that hangs holds up none behind it.
const UNDER_WAY: usize = 64;
/// Records that are read back at once.
const AT_ONCE: usize = 16;
/// An answer that takes longer is none.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A record whose read gets no clear answer is read again for so long.
const READ_LIMIT: Duration = Duration::from_secs(15);
/// Bytes that can't be read for so long are not there.
const STANDS: Duration = Duration::from_millis(500);
const READ_AGAIN: Duration = Duration::from_millis(200);

/// A record that was answered with success.
#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    number: u64,
    at: BootTime,
}

/// The records of one drill. Cheap to clone.
#[derive(Clone)]
pub(super) struct Prober {
    rest: Rest,
    drill: String,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    /// Number of the newest record that was sent.
    sent: Arc<AtomicU64>,
}

impl Prober {
    pub(super) fn new(rest: Rest, drill: &str) -> Self {
        Self { rest, drill: drill.to_owned(), acknowledged: Arc::default(), sent: Arc::default() }
    }

    /// Writes one after the other until it is dropped, and tells each that was acknowledged.
    pub(super) async fn run(self, events: mpsc::UnboundedSender<Event>) {
        let mut writing = JoinSet::new();
        let mut due = tokio::time::interval(PACE);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for number in 1_u64.. {
            due.tick().await;
            while writing.try_join_next().is_some() {}
            if writing.len() >= UNDER_WAY {
                continue;
            }
            self.sent.store(number, Ordering::Relaxed);
            let (prober, events) = (self.clone(), events.clone());
            writing.spawn(async move {
                if prober.write(number).await {
                    let at = boot_time();
                    prober.known().push(Acknowledged { number, at });
                    let _ = events.send(Event::Probed(Probe { answered: at }));
                }
            });
        }
    }

    /// Each attempt has a number of its own: an answer that did not come is never asked for again.
    async fn write(&self, number: u64) -> bool {
        let query = [("bucket", BUCKET), ("id", &self.key(number))];
        let path = ["api", "v1", "files"];
        let written = self.rest.ask(Method::POST, &path, &query, content(number), ANSWER_LIMIT).await;
        matches!(written, Ok((status, _)) if status.is_success())
    }

    /// Reads every record back that was acknowledged before now.
    pub(super) async fn read_back(&self) -> Result<ReadBack, Failure> {
        let mut all = self.known().clone();
        all.sort_by_key(|record| record.at);
        let reads = all.clone().into_iter().map(|record| async move {
            let is_there = self.is_there(record.number).await?;
            Ok::<_, Failure>((!is_there).then_some(record))
        });
        let reads: Vec<_> = stream::iter(reads).buffered(AT_ONCE).collect().await;
        let missing: Vec<Acknowledged> =
            reads.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let last_before = longest_gap_begins(&all);
        let age_ms = match (missing.first(), last_before) {
            (Some(oldest), Some(last)) => (oldest.at.until(last).0).max(PACE.as_millis() as u64),
            (Some(_), None) | (None, _) => 0,
        };
        Ok(ReadBack { acknowledged: all.len() as u64, missing: missing.len() as u64, age_ms })
    }

    /// Whether a record is there with its own bytes. Only a clear answer counts; that the site was told of it and can't read its
    /// bytes is one, once that has stood for a while.
    async fn is_there(&self, number: u64) -> Result<bool, Failure> {
        let begun = tokio::time::Instant::now();
        let key = self.key(number);
        loop {
            let path = ["api", "v1", "files", key.as_str()];
            let query = [("bucket", BUCKET)];
            let read = self.rest.ask(Method::GET, &path, &query, Bytes::new(), ANSWER_LIMIT);
            let unclear = match read.await {
                Ok((StatusCode::OK, bytes)) => return Ok(bytes == content(number)),
                Ok((StatusCode::NOT_FOUND, _)) => return Ok(false),
                Ok((status, body)) => format!("{status}: {}", String::from_utf8_lossy(&body)),
                Err(failure) => failure,
            };
            if unclear.contains("InsufficientFragments") && begun.elapsed() >= STANDS {
                return Ok(false);
            }
            if begun.elapsed() >= READ_LIMIT {
                return Err(format!("record {number}: {unclear}"));
            }
            tokio::time::sleep(READ_AGAIN).await;
        }
    }

    /// Takes the records away again, those too that may be there though nobody said so. One that stays harms nobody.
    pub(super) async fn tidy(&self) {
        let all = 1..=self.sent.load(Ordering::Relaxed);
        let deletes = all.map(|number| async move {
            let key = self.key(number);
            let path = ["api", "v1", "files", key.as_str()];
            self.rest.ask(Method::DELETE, &path, &[("bucket", BUCKET)], Bytes::new(), ANSWER_LIMIT).await
        });
        stream::iter(deletes).buffered(AT_ONCE).for_each(|_| std::future::ready(())).await;
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<Acknowledged>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, number: u64) -> String {
        format!("{}-{number:06}", self.drill)
    }
}

fn content(number: u64) -> Bytes {
    Bytes::from(format!("record {number}\n").repeat(16))
}

/// When the last record was acknowledged before the longest time without one.
fn longest_gap_begins(all: &[Acknowledged]) -> Option<BootTime> {
    let gap = all.windows(2).max_by_key(|pair| pair[0].at.until(pair[1].at));
    gap.map(|pair| pair[0].at).or_else(|| all.last().map(|last| last.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_record_before_an_outage_is_the_one_before_the_longest_gap() {
        let at = |times: &[u64]| -> Vec<Acknowledged> {
            times.iter().map(|time| Acknowledged { number: *time, at: BootTime(*time) }).collect()
        };
        assert_eq!(longest_gap_begins(&at(&[100, 200, 310, 5_000, 5_100])), Some(BootTime(310)));
        assert_eq!(longest_gap_begins(&at(&[100])), Some(BootTime(100)));
        assert_eq!(longest_gap_begins(&[]), None);
    }
}
