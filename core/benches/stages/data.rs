//! What is measured with: the same in every run, here and in the gateway.

/// k, and all rows, of the two geometries that are measured.
pub(crate) const GEOMETRIES: [(u8, u8); 2] = [(4, 6), (8, 12)];

/// Bytes that nothing makes shorter: xorshift, so that every run has the same.
pub(crate) fn random(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = std::iter::repeat_with(|| next().to_le_bytes());
    words.flatten().take(length).collect()
}

/// Words in an order that does not repeat: what log files and documents are made of.
pub(crate) fn text(length: usize) -> Vec<u8> {
    let words =
        ["the ", "node ", "answers ", "site ", "with ", "rows ", "extent ", "is ", "durable ", "again, "];
    let picks = random(length / 2);
    let picked = picks.iter().flat_map(|pick| words[usize::from(*pick) % words.len()].bytes());
    picked.take(length).collect()
}
