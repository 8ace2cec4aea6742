//! How long the devices take to answer this gateway: when a read asks others besides, when a row goes elsewhere, and which devices reads
//! go around.
//!
//! What waits for an answer adds one number to a histogram. Quantiles and verdicts are made by [`Latencies::look`], twice a second.

mod budget;
mod device;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use diptych_core::ids::DeviceId;
use diptych_core::latency::{Slowness, usual_of_others};

use crate::agents::Agents;
pub(crate) use budget::HedgeBudget;
pub(crate) use device::{DeviceLatency, Operation, Size};

/// Other rows are asked for after the p99 of what is waited for, but never sooner: a pause of the scheduler is no slow device.
const HEDGE_SOONEST: Duration = Duration::from_millis(10);
/// Nor later, whatever was measured; and after this where nothing was.
pub(crate) const HEDGE_LATEST: Duration = Duration::from_millis(200);
/// A row goes elsewhere after three times its p99, but never sooner: each one leaves an orphan behind.
const ELSEWHERE_SOONEST: Duration = Duration::from_millis(50);
/// Nor later, whatever was measured; and after this where nothing was.
const ELSEWHERE_LATEST: Duration = Duration::from_secs(1);
/// Reads go around a device of which a tenth of the answers take so much longer than its peers'.
const AROUND: Slowness = Slowness { from: 4, until: 2, least: HEDGE_SOONEST };
/// A device is waited for as long as its p99 says, but no longer than so many times what its peers take: one that hangs must not
/// teach that it is to be waited for.
const MOST_OF_PEERS: u32 = 4;
/// What was measured counts half after so many looks.
const HALVED_EVERY: u32 = 10;

/// After this other rows are asked for, where a range of a row on this device is waited for.
pub(crate) fn hedge_after(device: &DeviceLatency, size: Size) -> Duration {
    let expected = device.meter(Operation::Read, size).expected();
    expected.map_or(HEDGE_LATEST, |p99| p99.clamp(HEDGE_SOONEST, HEDGE_LATEST))
}

/// After this a row that is not durable on this device goes elsewhere.
pub(crate) fn elsewhere_after(device: &DeviceLatency, size: Size) -> Duration {
    let expected = device.meter(Operation::Write, size).expected();
    expected.map_or(ELSEWHERE_LATEST, |p99| (3 * p99).clamp(ELSEWHERE_SOONEST, ELSEWHERE_LATEST))
}

/// An answer that is waited for. Dropped before it came, it counts as having taken so long at least: what is slow must not look fast
/// since others were.
pub(crate) struct Wait<'a> {
    devices: Vec<&'a DeviceLatency>,
    operation: Operation,
    size: Size,
    begun: Instant,
}

impl<'a> Wait<'a> {
    pub(crate) fn begin(devices: Vec<&'a DeviceLatency>, operation: Operation, size: Size) -> Self {
        Self { devices, operation, size, begun: Instant::now() }
    }

    /// It was no answer of the devices: it says nothing of them.
    pub(crate) fn failed(mut self) {
        self.devices.clear();
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        for device in &self.devices {
            device.meter(self.operation, self.size).record(took);
        }
    }
}

/// What is looked at now and then.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    looks: std::sync::atomic::AtomicU32,
}

impl Latencies {
    /// Works out what is known of all devices of these pools, and which of them are slow beside the others of their pool.
    pub(crate) fn look(&self, pools: &[&Agents]) {
        let looks = self.looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        for agents in pools {
            let devices: Vec<Known<'_>> = agents.latencies().collect();
            for (_, device) in &devices {
                device.look(looks % HALVED_EVERY == HALVED_EVERY - 1);
            }
            expect(&devices);
            judge(&devices);
        }
    }
}

type Known<'a> = (DeviceId, &'a DeviceLatency);

/// By operation and size, how long each device is waited for.
fn expect(devices: &[Known<'_>]) {
    for operation in [Operation::Read, Operation::Write] {
        for size in Size::ALL {
            let p99 = |(id, device): &Known<'_>| Some((*id, device.meter(operation, size).p99()?));
            let measured: BTreeMap<DeviceId, Duration> = devices.iter().filter_map(p99).collect();
            let usual: BTreeMap<DeviceId, Duration> = usual_of_others(&measured).collect();
            for (id, device) in devices {
                let most = usual.get(id).map_or(Duration::MAX, |usual| *usual * MOST_OF_PEERS);
                device.meter(operation, size).expect(measured.get(id).map(|p99| most.min(*p99)));
            }
        }
    }
}

/// A device is slow if it is for reads of one size at least.
fn judge(devices: &[Known<'_>]) {
    let slow_before = devices.iter().filter(|(_, device)| device.is_slow());
    let before: BTreeSet<DeviceId> = slow_before.map(|(id, _)| *id).collect();
    let mut slow = BTreeSet::new();
    for size in Size::ALL {
        let p90 = |(id, device): &Known<'_>| Some((*id, device.meter(Operation::Read, size).p90()?));
        let measured: BTreeMap<DeviceId, Duration> = devices.iter().filter_map(p90).collect();
        slow.extend(AROUND.judge(&measured, &before));
    }
    for (id, device) in devices {
        let now = slow.contains(id);
        if now != before.contains(id) {
            tracing::info!(device = %id, slow = now, "reads go around a device that is slow beside its peers");
        }
        device.set_slow(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Of six devices, after each took so long, a hundred times.
    fn measured(milliseconds: [u32; 6]) -> [DeviceLatency; 6] {
        let devices = milliseconds.map(|took| {
            let device = DeviceLatency::default();
            for operation in [Operation::Read, Operation::Write] {
                (0..100).for_each(|_| device.meter(operation, Size::Small).record(took * MS));
            }
            device
        });
        look(&devices);
        devices
    }

    fn look(devices: &[DeviceLatency]) {
        let known: Vec<Known<'_>> = (0..).map(DeviceId).zip(devices).collect();
        for (_, device) in &known {
            device.look(false);
        }
        expect(&known);
        judge(&known);
    }

    /// To within the quarter by which a quantile may be too long.
    fn about(found: Duration, exact: Duration) -> bool {
        (exact..=exact * 5 / 4).contains(&found)
    }

    #[test]
    fn before_anything_is_known_the_longest_is_waited() {
        let device = DeviceLatency::default();
        assert_eq!(hedge_after(&device, Size::Small), HEDGE_LATEST);
        assert_eq!(elsewhere_after(&device, Size::Small), ELSEWHERE_LATEST);
    }

    #[test]
    fn what_is_waited_follows_what_was_measured_within_its_bounds() {
        for (took, hedge, elsewhere) in [
            (1, 10 * MS, 50 * MS),
            (40, 40 * MS, 120 * MS),
            (150, 150 * MS, 450 * MS),
            (600, 200 * MS, 1000 * MS),
        ] {
            let device = &measured([took; 6])[0];
            let found = (hedge_after(device, Size::Small), elsewhere_after(device, Size::Small));
            assert!(about(found.0, hedge) && about(found.1, elsewhere), "{took} ms: {found:?}");
            assert_eq!(hedge_after(device, Size::Bulk), HEDGE_LATEST, "of other sizes nothing is known");
        }
    }

    #[test]
    fn one_that_is_slow_does_not_teach_that_it_is_to_be_waited_for() {
        let devices = measured([5, 5, 900, 5, 5, 5]);
        assert!(
            about(elsewhere_after(&devices[2], Size::Small), 60 * MS),
            "three times four times its peers'"
        );
        assert!(about(hedge_after(&devices[2], Size::Small), 20 * MS));
        let slow: Vec<bool> = devices.iter().map(DeviceLatency::is_slow).collect();
        assert_eq!(slow, [false, false, true, false, false, false]);
        assert!(devices[2].goes_apart());
    }

    #[test]
    fn a_slow_one_that_nothing_is_known_of_any_more_is_tried_again() {
        let devices = measured([5, 5, 900, 5, 5, 5]);
        let slow = devices[2].meter(Operation::Read, Size::Small);
        (0..10).for_each(|_| slow.look(true));
        look(&devices);
        assert!(!devices[2].is_slow());
    }

    #[test]
    fn what_was_given_up_counts_and_what_failed_does_not() {
        let device = DeviceLatency::default();
        let begin = || Wait::begin(vec![&device], Operation::Read, Size::Small);
        (0..40).for_each(|_| begin().failed());
        device.look(false);
        assert_eq!(device.meter(Operation::Read, Size::Small).p99(), None);
        (0..40).for_each(|_| drop(begin()));
        device.look(false);
        assert!(device.meter(Operation::Read, Size::Small).p99().is_some());
    }
}
