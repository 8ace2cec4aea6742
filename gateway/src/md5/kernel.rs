//! The rounds of MD5 (RFC 1321, 3.4), for one stream in plain words or for as many as a vector of the CPU has lanes.

#![expect(
    clippy::inline_always,
    reason = "what is called from vector code has to be compiled for that CPU, too"
)]

use fearless_simd::{Level, Simd, SimdBase};

/// Bytes that MD5 takes at once.
pub(super) const BLOCK: usize = 64;

/// A, B, C and D between two blocks.
pub(super) type State = [u32; 4];

/// What A, B, C and D begin with (RFC 1321, 3.3).
pub(super) const START: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// The most lanes that any CPU has: 512 bits.
pub(super) const MAX_LANES: usize = 16;

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
#[derive(Clone, Copy)]
struct Many<S: Simd>(S::u32s);

impl<S: Simd> Word for Many<S> {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
    #[inline(always)]
    fn plus_constant(self, constant: u32) -> Self {
        Self(self.0 + constant)
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }
    #[inline(always)]
    fn not(self) -> Self {
        Self(!self.0)
    }
    #[inline(always)]
    fn turned(self, bits: u32) -> Self {
        Self((self.0 << bits) | (self.0 >> (32 - bits)))
    }
}

/// One block, of one stream or of several.
#[inline(always)]
fn rounds<W: Word>(state: [W; 4], words: &[W; 16]) -> [W; 4] {
    let [mut a, mut b, mut c, mut d] = state;
    for step in 0..64 {
        let (mixed, word) = match step / 16 {
            0 => (d.xor(b.and(c.xor(d))), step),
            1 => (c.xor(d.and(b.xor(c))), (5 * step + 1) % 16),
            2 => (b.xor(c).xor(d), (3 * step + 5) % 16),
            _ => (c.xor(b.or(d.not())), (7 * step) % 16),
        };
        let sum = a.plus(words[word].plus_constant(SINES[step])).plus(mixed);
        (a, d, c) = (d, c, b);
        b = b.plus(sum.turned(TURNS[step / 16][step % 4]));
    }
    [state[0].plus(a), state[1].plus(b), state[2].plus(c), state[3].plus(d)]
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

/// How many streams this CPU does at once in the time of one, nearly: of the two widths of AVX-512 the narrower is the faster pass.
pub(super) fn width(level: Level, streams: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if streams <= 8 && level.as_avx2().is_some() {
        return 8;
    }
    let _ = streams;
    fearless_simd::dispatch!(level, simd => lanes_of(simd))
}

#[inline(always)]
fn lanes_of<S: Simd>(_: S) -> usize {
    S::u32s::LEN
}

/// The same number of whole blocks of each lane; there are at most [`width`] lanes.
pub(super) fn many(level: Level, lanes: &mut [Lane<'_>]) {
    #[cfg(target_arch = "x86_64")]
    if lanes.len() <= 8
        && let Some(avx2) = level.as_avx2()
    {
        avx2.vectorize(
            #[inline(always)]
            || blocks(avx2, lanes),
        );
        return;
    }
    fearless_simd::dispatch!(level, simd => blocks(simd, lanes));
}

#[inline(always)]
fn blocks<S: Simd>(simd: S, lanes: &mut [Lane<'_>]) {
    let width = S::u32s::LEN;
    let count = lanes.iter().map(|(_, bytes)| bytes.len() / BLOCK).min().unwrap_or(0);
    let mut state = [Many::<S>(S::u32s::splat(simd, 0)); 4];
    for (at, into) in state.iter_mut().enumerate() {
        let mut column = [0; MAX_LANES];
        for (lane, (from, _)) in lanes.iter().enumerate().take(width) {
            column[lane] = from[at];
        }
        *into = Many(S::u32s::from_slice(simd, &column[..width]));
    }
    // Lanes that nobody is in go on with what an earlier block left there: nobody looks at them.
    let mut columns = [[0; MAX_LANES]; 16];
    for block in 0..count {
        for (lane, (_, bytes)) in lanes.iter().enumerate().take(width) {
            let (all, _) = bytes.as_chunks::<BLOCK>();
            let block = &all[block];
            for (at, column) in columns.iter_mut().enumerate() {
                column[lane] = word(block, at);
            }
        }
        let mut words = [Many::<S>(S::u32s::splat(simd, 0)); 16];
        for (into, column) in words.iter_mut().zip(&columns) {
            *into = Many(S::u32s::from_slice(simd, &column[..width]));
        }
        state = rounds(state, &words);
    }
    for (at, from) in state.iter().enumerate() {
        for (lane, (into, _)) in lanes.iter_mut().enumerate().take(width) {
            into[at] = from.0.as_slice()[lane];
        }
    }
}
