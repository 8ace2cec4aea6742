//! The fault switch of a drill: for a while this site is cut off. Its keeper withholds its messages to the peer and the
//! witness and hears none, its gateways and its peer door answer nothing but that, and nothing of the other site is asked for.
//!
//! It only withholds, as a cut line does, and grants nothing. It ends by itself, by this machine's clock, whatever becomes of
//! whoever asked for it: that is the dead-man timer.

use std::sync::Arc;
use std::time::Duration;

use diptych_core::lease::{BootTime, Millis};
use tokio::sync::watch;

use crate::keeper::boot_time;

/// Longer ones are cut down to it.
const LONGEST: Millis = Millis(10 * 60_000);
/// Two moments that are closer are one.
const CLOSE: Millis = Millis(500);

/// Whether this site is cut off, and until when. Cheap to clone; all clones are one switch.
#[derive(Debug, Clone)]
pub struct CutSwitch(Arc<watch::Sender<Option<BootTime>>>);

impl Default for CutSwitch {
    /// Not cut off.
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl CutSwitch {
    /// Cuts the site off for so long, or changes for how long; until when. Must be called inside a tokio runtime.
    pub fn cut(&self, length: Millis) -> BootTime {
        let until = boot_time() + length.min(LONGEST);
        self.cut_until(until);
        until
    }

    /// The same, until a moment of this machine's clock.
    pub fn cut_until(&self, until: BootTime) {
        // Told again and again from another process, the moment wavers.
        if self.0.borrow().is_some_and(|known| known.0.abs_diff(until.0) < CLOSE.0) {
            return;
        }
        self.0.send_replace(Some(until));
        let switch = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(boot_time().until(until).0)).await;
            let ended = |known: &mut Option<BootTime>| known.take_if(|known| *known == until).is_some();
            if switch.0.send_if_modified(ended) {
                tracing::info!("the time of the cut is over: this site comes back by itself");
            }
        });
    }

    /// Ends it.
    pub fn restore(&self) {
        self.0.send_if_modified(|known| known.take().is_some());
    }

    /// The time that is left of a cut; None: the site is not cut off.
    pub fn left(&self) -> Option<Millis> {
        // By the clock too: a timer that is late keeps nothing cut off.
        let now = boot_time();
        self.0.borrow().filter(|until| now < *until).map(|until| now.until(until))
    }

    /// Whether the site is cut off now.
    pub fn is_cut(&self) -> bool {
        self.left().is_some()
    }

    /// Wakes whoever waits for a change.
    pub fn watch(&self) -> watch::Receiver<Option<BootTime>> {
        self.0.subscribe()
    }

    /// Returns when the site is cut off.
    pub async fn begun(&self) {
        let mut seen = self.watch();
        // The sender is this switch's own: it can't be gone.
        let _ = seen.wait_for(Option::is_some).await;
    }

    /// Returns when the site is not cut off.
    pub async fn ended(&self) {
        let mut seen = self.watch();
        let _ = seen.wait_for(Option::is_none).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cut_ends_by_itself_though_nobody_restores_it() {
        let switch = CutSwitch::default();
        assert!(!switch.is_cut());
        switch.cut(Millis(50));
        assert!(switch.is_cut());
        switch.begun().await;
        switch.ended().await;
        assert_eq!(switch.left(), None);
    }

    #[tokio::test]
    async fn a_cut_that_was_restored_is_not_ended_again_by_an_older_timer() {
        let switch = CutSwitch::default();
        switch.cut(Millis(20));
        switch.restore();
        switch.cut(LONGEST);
        // The first timer has come and gone once one that was set later has.
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(switch.is_cut(), "the timer of the first cut ended the second one");
    }

    #[tokio::test]
    async fn no_cut_is_longer_than_the_longest() {
        let switch = CutSwitch::default();
        switch.cut(Millis::FOREVER);
        assert!(switch.left().is_some_and(|left| left <= LONGEST));
    }
}
