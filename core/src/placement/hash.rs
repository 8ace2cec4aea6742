//! The ranking behind placement: weighted rendezvous hashing in whole numbers, so that every machine ranks alike.

use crate::ids::{DeviceId, ExtentId, NodeName};

/// Key of the hash: nobody who chooses a name or an id for another purpose steers placement by it.
const KEY: &[u8; 32] = b"diptych: the rank of a place, v1";

/// Bits behind the point of a logarithm.
const FRACTION_BITS: u32 = 32;

/// Rank of a place for an extent; the least comes first. It is -log(u) / weight of a uniform u, so that a place comes first
/// as often as its share of the weights says, whatever other places there are. No weight: last.
pub(super) type Cost = u128;

pub(super) fn node_cost(extent: ExtentId, node: &NodeName, weight: u64) -> Cost {
    cost(uniform(b'n', extent, node.as_str().as_bytes()), weight)
}

pub(super) fn device_cost(extent: ExtentId, device: DeviceId, weight: u32) -> Cost {
    cost(uniform(b'd', extent, &device.0.to_be_bytes()), u64::from(weight))
}

/// 64 bits that depend on the kind of place, the extent and the place.
pub(super) fn uniform(kind: u8, extent: ExtentId, place: &[u8]) -> u64 {
    let mut input = Vec::with_capacity(1 + ExtentId::LEN + place.len());
    input.push(kind);
    input.extend_from_slice(extent.as_bytes());
    input.extend_from_slice(place);
    let hash = blake3::keyed_hash(KEY, &input);
    hash.as_bytes()[..8].iter().fold(0, |number, &byte| (number << 8) | u64::from(byte))
}

fn cost(uniform: u64, weight: u64) -> Cost {
    if weight == 0 {
        return Cost::MAX;
    }
    (Cost::from(negative_log2(uniform)) << 64) / Cost::from(weight)
}

/// -log2(`uniform` / 2^64), with `FRACTION_BITS` bits behind the point.
fn negative_log2(uniform: u64) -> u64 {
    let uniform = uniform.max(1);
    let zeros = uniform.leading_zeros();
    // The mantissa is in [1, 2), with 63 bits behind the point; each squaring shows one more bit of its logarithm.
    let mut mantissa = uniform << zeros;
    let mut fraction = 0_u64;
    for _ in 0..FRACTION_BITS {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let doubled = square >> 64 != 0;
        mantissa = (if doubled { square >> 1 } else { square }) as u64;
        fraction = (fraction << 1) | u64::from(doubled);
    }
    let log2 = (u64::from(63 - zeros) << FRACTION_BITS) + fraction;
    (64 << FRACTION_BITS) - log2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_in_whole_numbers_is_the_logarithm() {
        let exact = |uniform: u64| 64.0 - (uniform as f64).log2();
        let samples = (0..64).flat_map(|bit| {
            [1_u64 << bit, (1_u64 << bit) | (u64::MAX >> (63 - bit) >> 1), (u64::MAX / 3) >> bit]
        });
        for uniform in samples.filter(|&uniform| uniform > 0) {
            let fixed = negative_log2(uniform) as f64 / (1_u64 << FRACTION_BITS) as f64;
            assert!((fixed - exact(uniform)).abs() < 1e-9, "{uniform}: {fixed} against {}", exact(uniform));
        }
        assert_eq!(negative_log2(0), 64 << FRACTION_BITS);
        assert_eq!(negative_log2(1 << 63), 1 << FRACTION_BITS);
    }
}
