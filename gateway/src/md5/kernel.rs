//! The rounds of MD5 (RFC 1321, 3.4), for one stream in plain words or for as many as a vector of the CPU has lanes.

#![expect(
    clippy::inline_always,
    reason = "what is called from vector code has to be compiled for that CPU, too"
)]

use std::marker::PhantomData;

use fearless_simd::{Level, Simd, SimdBase, SimdInt, u32x8};

/// Bytes that MD5 takes at once.
pub(super) const BLOCK: usize = 64;

/// A, B, C and D between two blocks.
pub(super) type State = [u32; 4];

/// What A, B, C and D begin with (RFC 1321, 3.3).
pub(super) const START: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// The most lanes that any CPU has: 512 bits.
pub(super) const MAX_LANES: usize = 16;

/// Lanes of a pass over few streams.
const NARROW: usize = 8;

/// `floor(2^32 * |sin(i + 1)|)`: the table T of RFC 1321.
const SINES: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];

/// By how much each step of a round turns, four after another.
const TURNS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// A 32-bit word of one stream, or the same word of several.
trait Word: Copy {
    fn plus(self, other: Self) -> Self;
    fn plus_constant(self, constant: u32) -> Self;
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn not(self) -> Self;
    fn turned(self, bits: u32) -> Self;
}

impl Word for u32 {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    #[inline(always)]
    fn plus_constant(self, constant: u32) -> Self {
        self.wrapping_add(constant)
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self & other
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        self | other
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        self ^ other
    }
    #[inline(always)]
    fn not(self) -> Self {
        !self
    }
    #[inline(always)]
    fn turned(self, bits: u32) -> Self {
        self.rotate_left(bits)
    }
}

/// Words of as many streams as a vector has lanes.
trait Lanes<S: Simd>: SimdInt<S, Element = u32> {}
impl<S: Simd, V: SimdInt<S, Element = u32>> Lanes<S> for V {}

/// A vector as a word: `S` is what the CPU can do.
#[derive(Clone, Copy)]
struct Many<S, V>(V, PhantomData<S>);

impl<S: Simd, V: Lanes<S>> Many<S, V> {
    #[inline(always)]
    const fn of(vector: V) -> Self {
        Self(vector, PhantomData)
    }
}

impl<S: Simd, V: Lanes<S>> Word for Many<S, V> {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Self::of(self.0 + other.0)
    }
    #[inline(always)]
    fn plus_constant(self, constant: u32) -> Self {
        Self::of(self.0 + constant)
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self::of(self.0 & other.0)
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self::of(self.0 | other.0)
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self::of(self.0 ^ other.0)
    }
    #[inline(always)]
    fn not(self) -> Self {
        Self::of(!self.0)
    }
    #[inline(always)]
    fn turned(self, bits: u32) -> Self {
        Self::of((self.0 << bits) | (self.0 >> (32 - bits)))
    }
}

/// One step of 64. Its number is a constant: which word, which turn and how it mixes are known to the compiler.
#[inline(always)]
fn step<W: Word, const STEP: usize>([a, b, c, d]: [W; 4], words: &[W; 16]) -> [W; 4] {
    let (mixed, word) = match STEP / 16 {
        0 => (d.xor(b.and(c.xor(d))), STEP),
        1 => (c.xor(d.and(b.xor(c))), (5 * STEP + 1) % 16),
        2 => (b.xor(c).xor(d), (3 * STEP + 5) % 16),
        _ => (c.xor(b.or(d.not())), (7 * STEP) % 16),
    };
    let sum = a.plus(words[word].plus_constant(SINES[STEP])).plus(mixed);
    [d, b.plus(sum.turned(TURNS[STEP / 16][STEP % 4])), b, c]
}

/// The steps of these numbers, one after the other.
macro_rules! steps {
    ($state:ident, $words:ident, $($step:literal)*) => { $($state = step::<W, $step>($state, $words);)* };
}

/// One block, of one stream or of several.
#[inline(always)]
fn rounds<W: Word>(state: [W; 4], words: &[W; 16]) -> [W; 4] {
    let mut at = state;
    steps!(at, words, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    steps!(at, words, 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    steps!(at, words, 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47);
    steps!(at, words, 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
    [state[0].plus(at[0]), state[1].plus(at[1]), state[2].plus(at[2]), state[3].plus(at[3])]
}

#[inline(always)]
fn word(block: &[u8; BLOCK], at: usize) -> u32 {
    let at = 4 * at;
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Whole blocks of one stream; what is behind the last one is not looked at.
pub(super) fn one(state: &mut State, blocks: &[u8]) {
    for block in blocks.as_chunks().0 {
        let mut words = [0; 16];
        for (at, into) in words.iter_mut().enumerate() {
            *into = word(block, at);
        }
        *state = rounds(*state, &words);
    }
}

/// A lane: where a stream stands, and its next whole blocks.
pub(super) type Lane<'a> = (&'a mut State, &'a [u8]);

/// How many streams this CPU does at once in the time of one, nearly: eight take less than sixteen where vectors have room for both.
pub(super) fn width(level: Level, streams: usize) -> usize {
    let widest = fearless_simd::dispatch!(level, simd => lanes_of(simd));
    if streams <= NARROW { widest.min(NARROW) } else { widest }
}

#[inline(always)]
fn lanes_of<S: Simd>(_: S) -> usize {
    S::u32s::LEN
}

/// The words of a block, each of all lanes; zeros where nobody is in a lane.
#[inline(always)]
fn words_of<S: Simd, V: Lanes<S>>(simd: S, lanes: &[Lane<'_>], block: usize) -> [Many<S, V>; 16] {
    let (width, nothing) = (V::LEN, V::splat(simd, 0));
    let mut words = [Many::of(nothing); 16];
    for first in (0..16).step_by(width) {
        let mut rows = [nothing; MAX_LANES];
        for (row, (_, bytes)) in rows.iter_mut().zip(lanes).take(width) {
            let block = &bytes.as_chunks::<BLOCK>().0[block];
            let wanted: [u32; 16] = std::array::from_fn(|at| word(block, at));
            *row = V::from_slice(simd, &wanted[first..first + width]);
        }
        // Rows become columns when each of the upper half is interleaved with its fellow of the lower half, log2(width) times.
        for _ in 0..width.ilog2() {
            let mut next = rows;
            for at in 0..width / 2 {
                (next[2 * at], next[2 * at + 1]) = rows[at].interleave(rows[at + width / 2]);
            }
            rows = next;
        }
        for (into, column) in words[first..].iter_mut().zip(&rows[..width]) {
            *into = Many::of(*column);
        }
    }
    words
}

/// The same number of whole blocks of each lane; there are at most [`width`] lanes.
pub(super) fn many(level: Level, lanes: &mut [Lane<'_>]) {
    fearless_simd::dispatch!(level, simd => narrow_or_wide(simd, lanes));
}

/// Eight lanes of a CPU with wider vectors still use its instructions: one for a turn, one for any three words mixed.
#[inline(always)]
fn narrow_or_wide<S: Simd>(simd: S, lanes: &mut [Lane<'_>]) {
    if S::u32s::LEN > NARROW && lanes.len() <= NARROW {
        blocks::<S, u32x8<S>>(simd, lanes);
    } else {
        blocks::<S, S::u32s>(simd, lanes);
    }
}

#[inline(always)]
fn blocks<S: Simd, V: Lanes<S>>(simd: S, lanes: &mut [Lane<'_>]) {
    let width = V::LEN;
    let count = lanes.iter().map(|(_, bytes)| bytes.len() / BLOCK).min().unwrap_or(0);
    let mut state = [Many::<S, V>::of(V::splat(simd, 0)); 4];
    for (at, into) in state.iter_mut().enumerate() {
        let mut column = [0; MAX_LANES];
        for (lane, (from, _)) in lanes.iter().enumerate().take(width) {
            column[lane] = from[at];
        }
        *into = Many::of(V::from_slice(simd, &column[..width]));
    }
    for block in 0..count {
        state = rounds(state, &words_of(simd, lanes, block));
    }
    for (at, from) in state.iter().enumerate() {
        for (lane, (into, _)) in lanes.iter_mut().enumerate().take(width) {
            into[at] = from.0.as_slice()[lane];
        }
    }
}
