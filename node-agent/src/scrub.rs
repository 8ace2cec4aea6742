//! Scrub: all that lies on a device is read from the disk and checked, in rounds and by a budget; rotten records are
//! put in quarantine by the device and reported in the status.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diptych_core::ids::DeviceId;
use diptych_store::{Device, ScrubState};
use diptych_wire::agent::{AgentError, Scrub, ScrubProgress};
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::device::Slot;
use crate::options::ScrubOptions;
use crate::pace::Pace;

/// Bytes that are read between two looks at budget and shutdown.
const STEP: u64 = 2 << 20;
/// Between two looks whether a round is due.
const DUE: Duration = Duration::from_mins(1);

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

impl Slot {
    pub(crate) fn scrub_progress(&self, state: &ScrubState) -> ScrubProgress {
        ScrubProgress {
            running: self.scrub_running.load(Ordering::Relaxed),
            rows: self.scrubbed_rows.load(Ordering::Relaxed),
            bytes: self.scrubbed_bytes.load(Ordering::Relaxed),
            finished_ms: state.last_finished_ms.unwrap_or(0),
        }
    }

    /// One step. True: the round has ended with it.
    async fn scrub_step(&self, pace: &mut Pace) -> Result<bool, AgentError> {
        let progress = {
            let _turn = self.scrub_turn.lock().await;
            if !self.scrub_running.swap(true, Ordering::Relaxed) {
                self.scrubbed_rows.store(0, Ordering::Relaxed);
                self.scrubbed_bytes.store(0, Ordering::Relaxed);
            }
            let step = self.with(|device| device.scrub_step(STEP, now_ms())).await;
            let ended = step.as_ref().map_or(true, |progress| progress.finished);
            if ended {
                self.scrub_running.store(false, Ordering::Relaxed);
            }
            step?
        };
        self.scrubbed_rows.fetch_add(progress.records, Ordering::Relaxed);
        self.scrubbed_bytes.fetch_add(progress.bytes, Ordering::Relaxed);
        if progress.rotten > 0 {
            tracing::error!(device = ?self.id(), rotten = progress.rotten, "scrub found rotten records");
        }
        pace.spend(progress.bytes).await;
        Ok(progress.finished)
    }

    /// To the end of the round that runs, or of a new one.
    async fn scrub_round(&self, rate: Option<u64>, stop: &CancellationToken) -> Result<(), AgentError> {
        let mut pace = Pace::new(rate);
        while !self.scrub_step(&mut pace).await? {
            if stop.is_cancelled() {
                return Err(AgentError::ShuttingDown);
            }
        }
        Ok(())
    }

    async fn scrub_is_due(&self, every: Duration) -> bool {
        let look = |device: &Device| {
            Ok((device.scrub_state()?, device.record_count()?, device.identity().generation))
        };
        self.with(look).await.is_ok_and(|(state, records, made)| {
            // A device's generation is the time at which it was made, in milliseconds since 1970.
            let ended = state.last_finished_ms.unwrap_or(made.0);
            // A round that a restart interrupted goes on; an empty device has nothing to read.
            records > 0
                && (state.after.is_some() || now_ms().saturating_sub(ended) > every.as_millis() as u64)
        })
    }

    /// Rounds when they are due or asked for, until the shutdown.
    pub(crate) async fn scrub_loop(self: Arc<Self>, options: ScrubOptions, stop: CancellationToken) {
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = self.scrub_asked.notified() => true,
                () = tokio::time::sleep(DUE.min(options.every)) => false,
            };
            if !asked && !self.scrub_is_due(options.every).await {
                continue;
            }
            let round = tokio::select! {
                round = self.scrub_round(Some(options.bytes_per_second), &stop) => round,
                () = stop.cancelled() => return,
            };
            match round {
                Ok(()) => tracing::info!(device = ?self.id(), "scrub round ended"),
                Err(error) => tracing::warn!(device = ?self.id(), %error, "scrub round broken off"),
            }
        }
    }
}

impl Agent {
    pub(crate) async fn scrub(&self, request: Scrub, stop: &CancellationToken) -> Result<(), AgentError> {
        let slots = self.scrub_slots(request.device)?;
        if !request.now {
            for slot in slots {
                slot.scrub_asked.notify_one();
            }
            return Ok(());
        }
        for slot in slots {
            // The round that runs may have passed what rots now: it is ended, then a whole one is made.
            let under_way = slot.with(Device::scrub_state).await?.after.is_some();
            if under_way {
                slot.scrub_round(None, stop).await?;
            }
            slot.scrub_round(None, stop).await?;
        }
        Ok(())
    }

    fn scrub_slots(&self, device: Option<DeviceId>) -> Result<Vec<Arc<Slot>>, AgentError> {
        match device {
            Some(device) => Ok(vec![self.writable(device)?]),
            None => Ok(self.devices.open().into_iter().map(|(slot, _)| slot).collect()),
        }
    }
}
