//! The hybrid logical clock, and the version ids that S3 clients see.
//!
//! A head's time is one more than that of the head it replaces, or the clock's, whichever is greater; so (epoch, time)
//! orders the versions of a key whatever the clocks say. A clock that is far off therefore loses nothing, but it makes
//! wrong dates: it is reported by `check_skew`, and never refuses a write.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::ids::{Epoch, Hlc, VersionId};
use crate::records::VersionRef;

/// Bits of the counter, below the milliseconds.
const COUNTER_BITS: u32 = 16;

/// The last millisecond that 48 bits hold, in the year 10889.
pub const MAX_MILLISECONDS: u64 = (1 << (u64::BITS - COUNTER_BITS)) - 1;

/// How far a clock may be behind what it reads before it is called wrong: an hour, in milliseconds.
pub const MAX_SKEW_MS: u64 = 3_600_000;

impl Hlc {
    /// Greater than any real time: a head can't be followed by it in order, which only a damaged record can ask for.
    pub const LAST: Self = Self(u64::MAX);

    /// The first time of a millisecond since 1970; what 48 bits can't hold saturates.
    pub const fn from_milliseconds(milliseconds: u64) -> Self {
        let milliseconds = if milliseconds > MAX_MILLISECONDS { MAX_MILLISECONDS } else { milliseconds };
        Self(milliseconds << COUNTER_BITS)
    }

    /// Milliseconds since 1970.
    pub const fn milliseconds(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// Number within the millisecond. A counter that is full runs on into the next millisecond.
    pub const fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

/// The time of a change: `max(clock, seen + 1)`.
///
/// `now_ms` is the wall clock in milliseconds since 1970, `seen` the time of the head that is replaced (zero where there
/// is none). At `Hlc::LAST` it stands still rather than wrap: the compare on the head still tells two changes apart.
#[must_use]
pub fn next(now_ms: u64, seen: Hlc) -> Hlc {
    Hlc::from_milliseconds(now_ms).max(Hlc(seen.0.saturating_add(1)))
}

/// This machine's clock is hours off, or another's was: condition `ClockSkew`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "ClockSkew: this clock is {} s behind a time that was already given out. Nothing is lost and writes go on in order, \
     but dates are wrong: set this machine's clock, or find the machine that ran ahead",
    .behind_ms / 1000
)]
pub struct ClockSkew {
    /// Milliseconds by which the clock is behind what it read.
    pub behind_ms: u64,
}

/// Tells when the clock is more than `MAX_SKEW_MS` behind a time that some machine has given out.
///
/// # Errors
/// `ClockSkew`, for the condition and the log; the write itself goes on.
pub fn check_skew(now_ms: u64, seen: Hlc) -> Result<(), ClockSkew> {
    match seen.milliseconds().saturating_sub(now_ms) {
        behind_ms if behind_ms > MAX_SKEW_MS => Err(ClockSkew { behind_ms }),
        _ => Ok(()),
    }
}

// ---- version ids ----

/// Digits of base32hex (RFC 4648, in lower case): their order is that of the bytes, so ids sort as versions do.
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const ID_BYTES: usize = 32;
const ID_DIGITS: usize = 52;

/// Text that is not a version id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is not a version id: {ID_DIGITS} digits of 0-9 and a-v are needed, as a listing shows them"
)]
pub struct ParseVersionError {
    text: String,
}

/// The version id of S3: epoch, time and version, 32 bytes, as 52 digits.
impl fmt::Display for VersionRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; ID_BYTES];
        bytes[..8].copy_from_slice(&self.epoch.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.hlc.0.to_be_bytes());
        bytes[16..].copy_from_slice(self.version.as_bytes());
        formatter.write_str(&encode(&bytes))
    }
}

impl FromStr for VersionRef {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        let bytes =
            decode(text).ok_or_else(|| ParseVersionError { text: text.chars().take(64).collect() })?;
        let (epoch, rest) = bytes.split_at(8);
        let (hlc, version) = rest.split_at(8);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| (number << 8) | u64::from(byte));
        let mut id = [0; VersionId::LEN];
        id.copy_from_slice(version);
        Ok(Self { epoch: Epoch(number(epoch)), hlc: Hlc(number(hlc)), version: VersionId(id) })
    }
}

fn encode(bytes: &[u8; ID_BYTES]) -> String {
    let digit = |index: usize| {
        let bits = (0..5).map(|bit| index * 5 + bit);
        let value = bits.fold(0, |value, bit| (value << 1) | usize::from(bit_of(bytes, bit)));
        char::from(DIGITS[value])
    };
    (0..ID_DIGITS).map(digit).collect()
}

/// A bit, the highest of the first byte being number 0; zero past the end.
fn bit_of(bytes: &[u8; ID_BYTES], bit: usize) -> u8 {
    bytes.get(bit / 8).map_or(0, |byte| (byte >> (7 - bit % 8)) & 1)
}

/// The one spelling of 32 bytes, or nothing: what follows the last bit must be zero.
fn decode(text: &str) -> Option<[u8; ID_BYTES]> {
    if text.len() != ID_DIGITS {
        return None;
    }
    let mut bytes = [0; ID_BYTES];
    for (index, digit) in text.bytes().enumerate() {
        let value = DIGITS.iter().position(|&known| known == digit)?;
        for bit in (0..5).filter(|bit| value & (16 >> bit) != 0) {
            *bytes.get_mut((index * 5 + bit) / 8)? |= 0x80 >> ((index * 5 + bit) % 8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(epoch: u64, hlc: u64, version: [u8; 16]) -> VersionRef {
        VersionRef { epoch: Epoch(epoch), hlc: Hlc(hlc), version: VersionId(version) }
    }

    #[test]
    fn a_clock_that_stands_still_or_falls_back_still_orders() {
        let first = next(1_000, Hlc(0));
        let second = next(1_000, first);
        let third = next(10, second);
        assert_eq!((first.milliseconds(), first.counter()), (1_000, 0));
        assert_eq!((second.milliseconds(), second.counter()), (1_000, 1));
        assert_eq!((third.milliseconds(), third.counter()), (1_000, 2));
    }

    #[test]
    fn a_full_counter_runs_on_into_the_next_millisecond() {
        let full = Hlc(Hlc::from_milliseconds(7).0 | 0xffff);
        let after = next(7, full);
        assert_eq!((after.milliseconds(), after.counter()), (8, 0));
    }

    #[test]
    fn at_the_end_of_time_it_stands_still_rather_than_wrap() {
        assert_eq!(next(u64::MAX, Hlc(0)).milliseconds(), MAX_MILLISECONDS);
        assert_eq!(next(0, Hlc::LAST), Hlc::LAST);
    }

    #[test]
    fn a_clock_hours_behind_is_named_and_one_minutes_behind_is_not() {
        let seen = Hlc::from_milliseconds(10 * MAX_SKEW_MS);
        assert_eq!(check_skew(9 * MAX_SKEW_MS, seen), Ok(()));
        let error = check_skew(7 * MAX_SKEW_MS, seen).expect_err("three hours are too many");
        assert!(error.to_string().starts_with("ClockSkew: this clock is 10800 s behind"), "{error}");
    }

    /// By `python3 -c "import base64; print(base64.b32hexencode(bytes(range(32))).decode().lower().rstrip('='))"`.
    #[test]
    fn a_version_id_is_base32hex_of_its_32_bytes() {
        let bytes: [u8; 32] = std::array::from_fn(|index| index as u8);
        assert_eq!(encode(&bytes), "000g40o40k30e209185go38e1s8124gj2gahc5oo34d1m70t3ofg");
    }

    #[test]
    fn other_spellings_of_a_version_id_are_refused() {
        let id = version(3, 9, [7; 16]).to_string();
        let loose = format!("{}1", &id[..51]);
        for text in [&id.to_uppercase(), &id[1..], &format!("{id}0"), &loose, "null", &"é".repeat(26)] {
            assert!(text.parse::<VersionRef>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn each_change_is_later_than_what_it_replaced_and_no_earlier_than_the_clock(now in 0..MAX_MILLISECONDS, seen in 0..u64::MAX) {
            let time = next(now, Hlc(seen));
            prop_assert!(time > Hlc(seen));
            prop_assert!(time >= Hlc::from_milliseconds(now));
            prop_assert!(time == Hlc::from_milliseconds(now) || time.0 == seen + 1);
        }

        #[test]
        fn version_ids_read_back_and_sort_as_versions_do(a: (u64, u64, [u8; 16]), b: (u64, u64, [u8; 16])) {
            let (a, b) = (version(a.0, a.1, a.2), version(b.0, b.1, b.2));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
