//! Changes that must be noticed, and how an input says which.

/// Takes the next bytes of an input; zeros where it has ended.
pub(crate) fn take<const N: usize>(input: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = input.split_at(N.min(input.len()));
    *input = rest;
    let mut bytes = [0; N];
    bytes[..taken.len()].copy_from_slice(taken);
    bytes
}

/// A change of at most 32 neighbouring bits, which a CRC32C notices for certain, or a cut.
pub(crate) struct Alteration {
    at: usize,
    mask: [u8; 4],
}

impl Alteration {
    /// Takes the first 8 bytes of an input: where 4, mask 4.
    pub(crate) fn take(input: &mut &[u8]) -> Self {
        Self { at: u32::from_le_bytes(take(input)) as usize, mask: take(input) }
    }

    /// `bytes` (one at least) with some of four neighbouring bytes changed.
    pub(crate) fn of(&self, bytes: &[u8]) -> Vec<u8> {
        let at = self.at % bytes.len();
        let mut altered = bytes.to_vec();
        altered[at..].iter_mut().zip(self.mask).for_each(|(byte, mask)| *byte ^= mask);
        if altered == bytes {
            altered[at] ^= 1;
        }
        altered
    }

    /// `bytes` (one at least) without their last, or more of them.
    pub(crate) fn cut<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[..self.at % bytes.len()]
    }
}
