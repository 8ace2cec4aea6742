//! Times of the lease. Each is CLOCK_BOOTTIME of one machine: no two clocks are ever compared, and only their rates are
//! trusted, to 1 %.

use std::fmt;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// A length of time, in milliseconds of one machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// Longer than any wait: what is counted with it never ends.
    pub const FOREVER: Self = Self(u64::MAX);

    const fn percent(self, percent: u64) -> Self {
        Self(self.0 * percent / 100)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:03} s", self.0 / 1000, self.0 % 1000)
    }
}

/// A moment: milliseconds of CLOCK_BOOTTIME, which goes on counting while the machine sleeps. Means nothing to another
/// machine, nor to the same one after a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootTime(pub u64);

impl BootTime {
    /// A moment that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// What is left until `later`; zero if that is past.
    pub const fn until(self, later: Self) -> Millis {
        if later.0 == u64::MAX { Millis::FOREVER } else { Millis(later.0.saturating_sub(self.0)) }
    }
}

impl Add<Millis> for BootTime {
    type Output = Self;

    /// Saturates at `NEVER`.
    fn add(self, length: Millis) -> Self {
        Self(self.0.saturating_add(length.0))
    }
}

/// Every length that the protocol counts. A holder's are the shorter, a voter's the longer, by the drift of two clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// A holder counts on an acknowledgement for this long from sending (0.99 of the lease).
    pub peer_hold: Millis,
    /// A voter keeps its promise for this long from giving it (1.01 of the lease).
    pub peer_wait: Millis,
    /// Between renewals or hellos to the peer (a sixth of the lease).
    pub peer_renew: Millis,
    /// From the sending of the last acknowledged renewal until the holder turns to the witness (a third of the lease).
    pub peer_switch: Millis,
    /// From the sending of the last answered message until the peer counts as silent (a third of the lease).
    pub peer_silence: Millis,
    /// A holder counts on a swap for this long from sending.
    pub witness_hold: Millis,
    /// A challenger waits for this long from first seeing a record.
    pub witness_wait: Millis,
    /// Between swaps of the record while the peer is silent.
    pub witness_renew: Millis,
    /// A call to the witness that takes longer counts as unknown.
    pub witness_call: Millis,
    /// Between looks at the witness while the peer answers.
    pub witness_look: Millis,
    /// Between looks at the witness while the peer is silent.
    pub witness_look_silent: Millis,
    /// A handover that has not got past the peer's confirmation by then is given up (two fifths of the lease, 1 s at least):
    /// what the peer has to do behind that takes half as long again, and no write is to wait for more than 2 s.
    pub handover: Millis,
    /// A decision of the gate on loss holds for this long.
    pub loss: Millis,
    /// How much longer the site that is not favoured waits before it asks the peer for its vote, so that two sites
    /// without a lease don't outbid each other.
    pub yielding: Millis,
}

impl Timers {
    /// The shortest lease that leaves room for a renewal across a wide-area link.
    pub const SHORTEST_LEASE: Millis = Millis(600);

    /// What a person approves counts for this long at most: time enough for a witness lease and a way to the witness that
    /// has to be put right first, and over before the next outage.
    pub const LONGEST_APPROVAL: Millis = Millis(600_000);

    /// Timers for `lease.duration`. The peer lease's scale with it, the witness lease's stay: they answer to the
    /// witness's own limits (1,200 calls in 5 minutes), not to the sites. Shorter leases than `SHORTEST_LEASE` are taken
    /// as that.
    pub fn for_lease(duration: Millis) -> Self {
        let duration = duration.max(Self::SHORTEST_LEASE);
        Self {
            peer_hold: duration.percent(99),
            peer_wait: Millis(duration.0 * 101).div_ceil(100),
            peer_renew: Millis(duration.0 / 6),
            peer_switch: Millis(duration.0 / 3),
            peer_silence: Millis(duration.0 / 3),
            witness_hold: Millis(9_900),
            witness_wait: Millis(10_100),
            witness_renew: Millis(2_500),
            witness_call: Millis(2_000),
            witness_look: Millis(20_000),
            witness_look_silent: Millis(2_000),
            handover: Millis((duration.0 * 2 / 5).max(1_000)),
            loss: duration,
            yielding: Millis(duration.0 / 3),
        }
    }
}

impl Millis {
    const fn div_ceil(self, divisor: u64) -> Self {
        Self(self.0.div_ceil(divisor))
    }
}

impl Default for Timers {
    /// For `lease.duration: 3s`.
    fn default() -> Self {
        Self::for_lease(Millis(3_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_of_three_seconds_has_the_times_of_the_protocol() {
        let timers = Timers::default();
        assert_eq!(
            (timers.peer_hold, timers.peer_wait, timers.peer_renew, timers.peer_switch),
            (Millis(2_970), Millis(3_030), Millis(500), Millis(1_000))
        );
    }

    #[test]
    fn a_holder_stops_before_a_voter_whatever_the_lease() {
        for duration in (0..20_000).step_by(7) {
            let timers = Timers::for_lease(Millis(duration));
            // The slowest clock of a holder (1 % slow) against the fastest of a voter (1 % fast), in real time.
            assert!(timers.peer_hold.0 * 101 <= timers.peer_wait.0 * 100, "lease of {duration} ms");
            assert!(timers.witness_hold.0 * 101 <= timers.witness_wait.0 * 100);
        }
    }

    #[test]
    fn never_stays_never() {
        assert_eq!(BootTime(7) + Millis::FOREVER, BootTime::NEVER);
        assert_eq!(BootTime(7).until(BootTime::NEVER), Millis::FOREVER);
        assert_eq!(BootTime(7).until(BootTime(5)), Millis(0));
    }
}
