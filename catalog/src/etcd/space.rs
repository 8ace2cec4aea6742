//! Where the catalog lies in etcd: its keys under `<prefix>c/`, its incarnation under `<prefix>incarnation`.

use diptych_core::keys::Key;

/// Keys in etcd.
#[derive(Debug, Clone)]
pub(super) struct Space {
    keys: Vec<u8>,
    incarnation: Vec<u8>,
}

/// Which catalog it is, and in which etcd it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Incarnation {
    /// Random.
    pub(super) number: u64,
    /// A restored etcd is another cluster, and so another incarnation.
    pub(super) cluster: u64,
}

impl Space {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            keys: format!("{prefix}c/").into_bytes(),
            incarnation: format!("{prefix}incarnation").into_bytes(),
        }
    }

    /// What the names of all keys begin with.
    pub(super) fn keys(&self) -> &[u8] {
        &self.keys
    }

    /// Key in etcd of a key.
    pub(super) fn name(&self, key: &Key) -> Vec<u8> {
        [self.keys.as_slice(), &key.0].concat()
    }

    /// Bytes of the key of a key in etcd; None: of something else.
    pub(super) fn key<'name>(&self, name: &'name [u8]) -> Option<&'name [u8]> {
        name.strip_prefix(self.keys.as_slice())
    }

    /// Where the incarnation stands.
    pub(super) fn incarnation(&self) -> &[u8] {
        &self.incarnation
    }
}

impl Incarnation {
    pub(super) fn encode(self) -> Vec<u8> {
        [self.number.to_be_bytes(), self.cluster.to_be_bytes()].concat()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let (number, cluster) = value.split_first_chunk()?;
        let cluster = cluster.try_into().ok()?;
        Some(Self { number: u64::from_be_bytes(*number), cluster: u64::from_be_bytes(cluster) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_name() {
        let space = Space::new("diptych/");
        let key = Key(b"h/\0\xff".to_vec());
        assert_eq!(space.key(&space.name(&key)), Some(key.0.as_slice()));
        assert_eq!(space.key(space.incarnation()), None);
        assert_eq!(space.key(b"other/c/h/"), None);
    }

    #[test]
    fn an_incarnation_reads_back() {
        let incarnation = Incarnation { number: 7, cluster: u64::MAX };
        assert_eq!(Incarnation::decode(&incarnation.encode()), Some(incarnation));
        assert_eq!(Incarnation::decode(b"short"), None);
    }
}
