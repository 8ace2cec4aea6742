//! How long a batch that was begun waits for more.
//!
//! Clients that were answered together come back together, within a moment. The first one back would go alone, and a batch of one
//! costs as many syncs as one of sixteen. So a batch waits for as many as its share of those who were there lately, but never for
//! longer than a part of what a batch takes, and a client who comes alone is not made to wait at all.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// No batch waits for longer.
const LONGEST: Duration = Duration::from_micros(800);
/// Nor for longer than this part of what one takes.
const PART: u32 = 4;
/// So long after which half is left of a crowd that does not come back. Many batches fit into it: at the moment in which one closes
/// some of the crowd are always on their way, and only now and then everybody is there.
const HALF_LIFE: Duration = Duration::from_millis(250);
/// Weight of the newest batch in what one takes.
const NEWEST: f64 = 0.125;

/// Who was there lately.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    crowd: f64,
    /// When it was last seen.
    last: Option<Instant>,
    takes: Duration,
}

impl Gathering {
    /// A batch was closed while so many objects waited or were in batches, itself included.
    pub(super) fn saw(&mut self, inside: usize, now: Instant) {
        let ago = self.last.map_or(Duration::ZERO, |last| now - last);
        let faded = self.crowd * 0.5f64.powf(ago.div_duration_f64(HALF_LIFE));
        self.crowd = faded.max(inside as f64);
        self.last = Some(now);
    }

    /// A batch was in flight for so long.
    pub(super) fn took(&mut self, time: Duration) {
        self.takes =
            if self.takes.is_zero() { time } else { self.takes.mul_f64(1.0 - NEWEST) + time.mul_f64(NEWEST) };
    }

    /// Objects that a batch waits for, where `batches` are in flight at one time.
    pub(super) fn share(&self, batches: usize) -> usize {
        (self.crowd / batches as f64).round() as usize
    }

    /// How long it does.
    pub(super) fn patience(&self) -> Duration {
        LONGEST.min(self.takes / PART)
    }
}

/// Puts what waits into a batch, and what comes until it has `wanted` objects or `patience` is over; `takes`: whether it takes
/// another one.
pub(super) async fn fill<T>(
    batch: &mut Vec<T>,
    waiting: &mut mpsc::Receiver<T>,
    (wanted, patience): (usize, Duration),
    mut takes: impl FnMut(&[T]) -> bool,
) {
    let end = Instant::now() + patience;
    while takes(batch) {
        let next = match waiting.try_recv() {
            Ok(next) => Some(next),
            Err(_) if batch.len() < wanted => timeout_at(end, waiting.recv()).await.ok().flatten(),
            Err(_) => None,
        };
        let Some(next) = next else { return };
        batch.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_waited_for_and_forgotten() {
        let mut gathering = Gathering::default();
        assert_eq!((gathering.share(2), gathering.patience()), (0, Duration::ZERO));
        gathering.took(Duration::from_millis(6));
        let begun = Instant::now();
        gathering.saw(16, begun);
        assert_eq!((gathering.share(2), gathering.patience()), (8, LONGEST));
        gathering.saw(9, begun + Duration::from_millis(20));
        assert_eq!(gathering.share(2), 8, "the others are on their way");
        gathering.saw(1, begun + Duration::from_secs(1));
        assert!(gathering.share(2) <= 1, "one who is alone is not made to wait for those who left");
        gathering.took(Duration::from_secs(10));
        assert_eq!(gathering.patience(), LONGEST);
    }

    /// Nobody waits for so long in a test that passes.
    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_batch_waits_for_those_who_come_and_not_for_those_who_do_not() {
        let (queue, mut waiting) = mpsc::channel(8);
        let later = queue.clone();
        let comes = tokio::spawn(async move {
            for number in 1..3 {
                tokio::task::yield_now().await;
                later.send(number).await.expect("the batch is filled");
            }
        });
        let mut batch = vec![0];
        fill(&mut batch, &mut waiting, (3, LONG), |_| true).await;
        assert_eq!(batch, [0, 1, 2], "it goes as soon as it has as many as it waits for");
        comes.await.expect("it has sent all");
        let mut batch = vec![0];
        fill(&mut batch, &mut waiting, (3, Duration::from_millis(1)), |_| true).await;
        assert_eq!(batch, [0], "its patience ends");
        fill(&mut batch, &mut waiting, (1, LONG), |_| true).await;
        assert_eq!(batch, [0], "who is alone does not wait");
        drop(queue);
    }

    #[tokio::test]
    async fn a_full_batch_leaves_the_rest_to_the_next_one() {
        let (queue, mut waiting) = mpsc::channel(8);
        for number in 1..8 {
            queue.send(number).await.expect("it has room");
        }
        let mut batch = vec![0];
        fill(&mut batch, &mut waiting, (16, LONG), |batch| batch.len() < 4).await;
        assert_eq!(batch, [0, 1, 2, 3]);
    }
}
