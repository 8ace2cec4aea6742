//! How long something takes lately, and who is slow beside its peers.
//!
//! A histogram that forgets: it is halved now and then, so that its quantiles are those of the last few halvings. To record costs one
//! relaxed addition; quantiles are worked out by whoever halves, never where something waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Buckets of each doubling: a quantile is at most a quarter too long.
const PARTS: u32 = 4;
/// The least that is told apart, as a power of two of microseconds.
const SHORTEST: u32 = 2;
/// All that takes longer than 2^this microseconds, half a minute, is as slow as that.
const LONGEST: u32 = 25;
const BUCKETS: usize = ((LONGEST - SHORTEST) * PARTS) as usize;
/// What one measurement adds: halving it loses nothing for a while.
const ONE: u32 = 16;

/// How far a way is that takes so long there and back, in doublings of a millisecond: what is about as near is as good.
pub fn doublings(round_trip: Duration) -> u32 {
    round_trip.as_millis().checked_ilog2().map_or(0, |doublings| doublings + 1)
}

/// Durations, by count. Shared by many that record.
#[derive(Debug)]
pub struct LatencyHistogram {
    buckets: [AtomicU32; BUCKETS],
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU32::new(0) }; BUCKETS] }
    }
}

impl LatencyHistogram {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        self.buckets[bucket_of(took)].fetch_add(ONE, Ordering::Relaxed);
    }

    /// Forgets half of all that was counted. What is counted meanwhile stays.
    pub fn halve(&self) {
        for bucket in &self.buckets {
            let count = bucket.load(Ordering::Relaxed);
            bucket.fetch_sub(count.div_ceil(2), Ordering::Relaxed);
        }
    }

    /// The quantiles of what is remembered. None: that is fewer than `least` measurements.
    pub fn quantiles(&self, least: u32) -> Option<Quantiles> {
        let counts = self.buckets.each_ref().map(|bucket| u64::from(bucket.load(Ordering::Relaxed)));
        let total: u64 = counts.iter().sum();
        if total == 0 || total < u64::from(least) * u64::from(ONE) {
            return None;
        }
        let at = |percent: u64| {
            let wanted = (total * percent).div_ceil(100);
            let mut counted = 0;
            let reached = |count: &u64| {
                counted += count;
                counted >= wanted
            };
            end_of(counts.iter().position(reached).unwrap_or(BUCKETS - 1))
        };
        Some(Quantiles { p50: at(50), p90: at(90), p99: at(99) })
    }
}

/// Half, nine tenths and 99 of 100 took no longer, to within a quarter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantiles {
    /// The median.
    pub p50: Duration,
    /// Of ten, one took longer.
    pub p90: Duration,
    /// Of a hundred, one took longer.
    pub p99: Duration,
}

fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let micros = micros.clamp(1 << SHORTEST, (1 << LONGEST) - 1);
    let doubling = micros.ilog2();
    let part = (micros >> (doubling - SHORTEST)) as u32 - PARTS;
    ((doubling - SHORTEST) * PARTS + part) as usize
}

/// Where a bucket ends.
fn end_of(bucket: usize) -> Duration {
    let (doubling, part) = (bucket as u32 / PARTS, bucket as u32 % PARTS);
    Duration::from_micros(u64::from(PARTS + part + 1) << doubling)
}

/// When one of several counts as slow. Between the two factors it stays what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slowness {
    /// So many times the median of the others, and it is slow.
    pub from: u32,
    /// So many times, and it is slow no more.
    pub until: u32,
    /// What takes no longer than this is never slow.
    pub least: Duration,
}

impl Slowness {
    /// Those of `measured` that are slow beside the others; `before`: those that were. With fewer than two others nobody is: of two that
    /// differ it can't be told which one is wrong.
    pub fn judge<Id: Ord + Copy>(
        self,
        measured: &BTreeMap<Id, Duration>,
        before: &BTreeSet<Id>,
    ) -> BTreeSet<Id> {
        let slow = |(id, usual): (Id, Duration)| {
            let factor = if before.contains(&id) { self.until } else { self.from };
            let took = measured[&id];
            (took > self.least && took > usual * factor).then_some(id)
        };
        usual_of_others(measured).filter_map(slow).collect()
    }
}

/// By each, the median of what all others take: the lower one of the two in the middle, so that half of all may be slow. Nothing where
/// there are fewer than two others.
pub fn usual_of_others<Id: Ord + Copy>(
    measured: &BTreeMap<Id, Duration>,
) -> impl Iterator<Item = (Id, Duration)> {
    let mut sorted: Vec<(Duration, Id)> = measured.iter().map(|(id, took)| (*took, *id)).collect();
    sorted.sort_unstable();
    let middle = sorted.len().saturating_sub(2) / 2;
    let usual = move |rank: usize| {
        let other = if rank <= middle { middle + 1 } else { middle };
        (sorted[rank].1, sorted[other].0)
    };
    let ranks = if measured.len() > 2 { 0..measured.len() } else { 0..0 };
    ranks.map(usual)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn quantiles_are_those_of_what_was_recorded_to_within_a_quarter() {
        let histogram = LatencyHistogram::default();
        for milliseconds in 1..=100 {
            histogram.record(milliseconds * MS);
        }
        let Quantiles { p50, p90, p99 } = histogram.quantiles(100).expect("enough");
        for (found, exact) in [(p50, 50), (p90, 90), (p99, 99)] {
            assert!((exact * MS..=exact * MS * 5 / 4).contains(&found), "{found:?} for {exact} ms");
        }
    }

    #[test]
    fn with_too_few_measurements_nothing_is_said() {
        let histogram = LatencyHistogram::default();
        assert_eq!(histogram.quantiles(0), None);
        for _ in 0..31 {
            histogram.record(MS);
        }
        assert_eq!(histogram.quantiles(32), None);
        histogram.record(MS);
        assert!(histogram.quantiles(32).is_some());
        histogram.halve();
        assert_eq!(histogram.quantiles(32), None, "half of it is forgotten");
    }

    #[test]
    fn what_was_is_forgotten_and_what_is_shows() {
        let histogram = LatencyHistogram::default();
        (0..1_000).for_each(|_| histogram.record(100 * MS));
        (0..10).for_each(|_| histogram.halve());
        (0..200).for_each(|_| histogram.record(MS));
        assert!(histogram.quantiles(32).expect("enough").p99 < 2 * MS);
        (0..20).for_each(|_| histogram.halve());
        assert_eq!(histogram.quantiles(0), None, "nothing stays for ever");
    }

    proptest! {
        #[test]
        fn no_duration_is_shown_as_shorter_than_it_was(micros in 0_u64..1 << LONGEST) {
            let histogram = LatencyHistogram::default();
            let took = Duration::from_micros(micros);
            histogram.record(took);
            let found = histogram.quantiles(1).expect("one").p50;
            prop_assert!(found > took);
            prop_assert!(found <= took * 5 / 4 + Duration::from_micros(5));
        }

        #[test]
        fn any_duration_has_a_bucket(seconds: u64, nanos in 0_u32..1_000_000_000) {
            let histogram = LatencyHistogram::default();
            histogram.record(Duration::new(seconds, nanos));
            prop_assert!(histogram.quantiles(1).is_some());
        }
    }

    fn judge(measured: &[u32], before: &[usize]) -> Vec<usize> {
        let measured = measured.iter().enumerate().map(|(id, &took)| (id, took * MS)).collect();
        let slowness = Slowness { from: 4, until: 2, least: 10 * MS };
        slowness.judge(&measured, &before.iter().copied().collect()).into_iter().collect()
    }

    #[test]
    fn slow_is_who_takes_many_times_what_the_others_take() {
        assert_eq!(judge(&[5, 6, 5, 40, 7], &[]), [3]);
        assert_eq!(judge(&[50, 60, 50, 40, 70], &[]), [0; 0], "all are slow together: the load is");
        assert_eq!(judge(&[1, 1, 1, 8], &[]), [0; 0], "what takes so little is not slow");
        assert_eq!(judge(&[5, 5, 5, 90, 90, 90], &[]), [3, 4, 5], "half of them");
        assert_eq!(judge(&[5, 500], &[]), [0; 0], "of two it can't be told");
    }

    #[test]
    fn between_the_factors_who_was_slow_stays_so() {
        assert_eq!(judge(&[5, 5, 5, 15], &[]), [0; 0]);
        assert_eq!(judge(&[5, 5, 5, 15], &[3]), [3]);
        assert_eq!(judge(&[5, 5, 5, 9], &[3]), [0; 0]);
    }
}
