//! Changes of one commit as they stand in the log: for each key its length, the key, and the value's length and the
//! value, or `DELETED`. Lengths are 32 bits, big-endian.

use bytes::Bytes;
use diptych_core::keys::{self, Key, Owner};

use super::error::corrupt;
use crate::CatalogError;

/// Stands for the length of a value that is no more.
const DELETED: u32 = u32::MAX;

/// One key's new state; None: deleted.
pub(crate) type Changed = (Key, Option<Bytes>);

/// Whether the other site is told of a key.
pub(crate) fn is_fed(key: &Key) -> bool {
    !matches!(keys::owner(key), Some(Owner::Private(_)))
}

/// The bytes for the changes that are fed.
pub(super) fn encode(changes: &[Changed]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (key, value) in changes.iter().filter(|(key, _)| is_fed(key)) {
        encoded.extend_from_slice(&(key.0.len() as u32).to_be_bytes());
        encoded.extend_from_slice(&key.0);
        let length = value.as_ref().map_or(DELETED, |value| value.len() as u32);
        encoded.extend_from_slice(&length.to_be_bytes());
        encoded.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    encoded
}

pub(super) fn decode(revision: u64, encoded: &[u8]) -> Result<Vec<Changed>, CatalogError> {
    let mut rest = encoded;
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let change = decode_one(&mut rest).ok_or_else(|| corrupt(format!("log entry {revision} is cut")))?;
        changes.push(change);
    }
    Ok(changes)
}

fn decode_one(rest: &mut &[u8]) -> Option<Changed> {
    let key_length = take_length(rest)?;
    let key = Key(rest.split_off(..key_length as usize)?.to_vec());
    let value = match take_length(rest)? {
        DELETED => None,
        length => Some(Bytes::copy_from_slice(rest.split_off(..length as usize)?)),
    };
    Some((key, value))
}

fn take_length(rest: &mut &[u8]) -> Option<u32> {
    let (length, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(u32::from_be_bytes(*length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn changes_read_back_from_the_log(changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
            let changes: Vec<Changed> =
                changes.into_iter().map(|(key, value)| (Key(key), value.map(Bytes::from))).collect();
            let fed: Vec<Changed> = changes.iter().filter(|(key, _)| is_fed(key)).cloned().collect();
            prop_assert_eq!(decode(1, &encode(&changes)).expect("it decodes"), fed);
        }

        #[test]
        fn a_cut_entry_is_refused(key: Vec<u8>, value: Vec<u8>, cut in 1_usize..8) {
            let mut encoded = encode(&[(Key(key), Some(Bytes::from(value)))]);
            encoded.truncate(encoded.len().saturating_sub(cut).max(1));
            prop_assert!(decode(1, &encoded).is_err());
        }
    }
}
