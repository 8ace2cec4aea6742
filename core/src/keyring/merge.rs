//! Two keyrings of which each may have keys that the other has not: a site that was active returns, and another was active
//! meanwhile.
//!
//! No key that a blob may lie under ever goes by it: the union of keys by number, each as far in use as in either.
//! It is commutative, associative and idempotent but for the generation, which is above both where anything is new.

use std::collections::BTreeMap;

use super::{Keyring, KeyringError, RingKey};
use crate::ids::{Generation, RingKeyNumber};

impl Keyring {
    /// The keyring with what `other` has, too; None: it has nothing that is new here, and devices that hold it take this one.
    ///
    /// # Errors
    /// `OtherCluster`, `SameNumber`: nothing is merged.
    pub fn merged(&self, other: &Self) -> Result<Option<Self>, KeyringError> {
        if self.cluster != other.cluster {
            return Err(KeyringError::OtherCluster(self.cluster, other.cluster));
        }
        if self == other {
            return Ok(None);
        }
        let mut union: BTreeMap<RingKeyNumber, RingKey> =
            self.ring_keys.iter().map(|key| (key.number, key.clone())).collect();
        for theirs in &other.ring_keys {
            let ours = union.entry(theirs.number).or_insert_with(|| theirs.clone());
            if (&ours.key, ours.made_ms, ours.nonce) != (&theirs.key, theirs.made_ms, theirs.nonce) {
                return Err(KeyringError::SameNumber(theirs.number));
            }
            ours.state = ours.state.max(theirs.state);
        }
        let ring_keys: Vec<RingKey> = union.into_values().collect();
        // Devices refuse a lower generation than theirs, and other bytes under the same one.
        if ring_keys == self.ring_keys && other.generation < self.generation {
            return Ok(None);
        }
        let generation = Generation(self.generation.max(other.generation).0 + 1);
        Ok(Some(Self { cluster: self.cluster, generation, ring_keys }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::cipher::SecretKey;
    use crate::ids::{ClusterId, Epoch};
    use crate::keyring::{NewRingKey, RingKeyState};

    const CLUSTER: ClusterId = ClusterId([1; 16]);

    /// Fresh randomness, of which no two are alike.
    fn fresh(byte: u8) -> NewRingKey {
        NewRingKey { key: SecretKey::new([byte; 32]), nonce: [byte; 12], made_ms: u64::from(byte) }
    }

    /// What a site does with its keyring in a term.
    #[derive(Debug, Clone, Copy)]
    enum Act {
        Prepare,
        Use,
        Rewrap,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        vec(prop_oneof![Just(Act::Prepare), Just(Act::Use), Just(Act::Rewrap)], 0..6)
    }

    /// A term of one epoch; `seed` makes its keys others than those of another term.
    fn term(begin: &Keyring, epoch: u64, acts: &[Act], seed: u8) -> Keyring {
        let mut keyring = begin.clone();
        for (act, byte) in acts.iter().zip(seed..) {
            keyring = match act {
                Act::Prepare => keyring
                    .with_ring_key(Epoch(epoch), fresh(byte), RingKeyState::Prepared)
                    .expect("numbers are left"),
                Act::Use => keyring.all_in_use(),
                Act::Rewrap => keyring.next_generation(),
            };
        }
        keyring
    }

    fn union(a: &Keyring, b: &Keyring) -> Keyring {
        a.merged(b).expect("it merges").unwrap_or_else(|| a.clone())
    }

    proptest! {
        #[test]
        fn terms_that_did_not_know_of_each_other_lose_no_key(first in acts(), ours in acts(), theirs in acts(), third in acts()) {
            let common = term(&Keyring::create(CLUSTER, fresh(1)), 1, &first, 10);
            let a = term(&common, 2, &ours, 30);
            let b = term(&common, 3, &theirs, 50);
            let c = term(&common, 4, &third, 70);
            let both = union(&a, &b);
            for key in a.ring_keys().iter().chain(b.ring_keys()) {
                let kept = both.ring_key(key.number()).expect("it is there");
                prop_assert!(kept.key == key.key && kept.state() >= key.state());
            }
            prop_assert!(both.generation() >= a.generation() && both.generation() >= b.generation());
            prop_assert_eq!(&both.ring_keys, &union(&b, &a).ring_keys);
            prop_assert_eq!(union(&both, &c).ring_keys, union(&a, &union(&b, &c)).ring_keys);
            // What was handed over once is nothing new, however often it comes.
            if a != b {
                prop_assert_eq!(both.merged(&b), Ok(None));
            }
            // A device that holds either takes the union.
            prop_assert!(both == b || both.generation() > b.generation());
            prop_assert!(both == a || both.generation() > a.generation());
        }
    }

    #[test]
    fn two_keys_of_one_number_and_other_clusters_are_refused() {
        let ours = Keyring::create(CLUSTER, fresh(1));
        let forged = Keyring::create(CLUSTER, fresh(2));
        assert_eq!(ours.merged(&forged), Err(KeyringError::SameNumber(RingKeyNumber(1))));
        let other = Keyring::create(ClusterId([2; 16]), fresh(1));
        assert!(matches!(ours.merged(&other), Err(KeyringError::OtherCluster(..))));
    }
}
