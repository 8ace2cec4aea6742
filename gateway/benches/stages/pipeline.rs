//! All stages that a body goes through on one core, one after the other: compress, seal, hash, code, checksum. What each takes by itself adds up
//! to what all would take together if nothing were lost between them, 1 ÷ Σ(1 ÷ stage): at least 90 % of that is asked for.

#![expect(clippy::print_stdout, reason = "a person reads it")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_core::chunk::ChunkSealer;
use diptych_core::cipher::{Algorithm, BulkCipher, CipherError, Nonce, SecretKey, TAG_LEN, Tag};
use diptych_core::erasure::Encoder;
use diptych_core::fragment::BlockChecks;
use diptych_core::ids::{BlobId, Row};
use diptych_core::layout::{CHUNK, CRC_BLOCK, Stripe, StripeBuilder};
use diptych_gateway::cipher::AwsLcAesGcm;
use diptych_gateway::stages::ExtentCoder;

use crate::data::{GEOMETRIES, random, text};

/// Chunks of an extent: enough to leave the caches.
const CHUNKS: usize = 16;
/// How long a ratio is measured for; of each figure the fastest round counts, as others work on the same CPU.
const MEASURED_FOR: Duration = Duration::from_secs(4);
/// Asked for.
const RATIO: f64 = 0.9;
const STAGES: [&str; 5] = ["compress", "seal", "hash", "code", "checksum"];

/// Prints a line for each geometry and kind of bytes.
pub(crate) fn measure() {
    println!(
        "\nstages of {CHUNKS} chunks of 1 MiB on one core, ms; at least {RATIO} of what they add up to is asked for"
    );
    for (needed, rows) in GEOMETRIES {
        for (name, bytes) in [("random", random(CHUNKS * CHUNK)), ("text", text(CHUNKS * CHUNK))] {
            let extent = Extent::new(bytes, needed, rows);
            let mut fastest = [Duration::MAX; STAGES.len()];
            let mut whole = Duration::MAX;
            let begun = Instant::now();
            while begun.elapsed() < MEASURED_FOR {
                for (fastest, took) in fastest.iter_mut().zip(extent.stages()) {
                    *fastest = took.min(*fastest);
                }
                whole = whole.min(timed(|| extent.pipeline()));
            }
            let sum: Duration = fastest.iter().sum();
            let stages: Vec<String> =
                STAGES.iter().zip(fastest).map(|(stage, took)| format!("{stage} {}", ms(took))).collect();
            println!(
                "{needed} of {rows}, {name}: {}; sum {}, one after the other {}, {:.0} MiB/s: {:.2}",
                stages.join(", "),
                ms(sum),
                ms(whole),
                CHUNKS as f64 / whole.as_secs_f64(),
                sum.as_secs_f64() / whole.as_secs_f64(),
            );
        }
    }
}

fn ms(took: Duration) -> String {
    format!("{:.2}", took.as_secs_f64() * 1e3)
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let begun = Instant::now();
    black_box(work());
    begun.elapsed()
}

/// Leaves everything as it is: what is left of sealing is compression, and the copy that it makes.
struct NoCipher;

impl BulkCipher for NoCipher {
    fn algorithm(&self) -> Algorithm {
        Algorithm::Aes256Gcm
    }

    fn seal(&self, _: &SecretKey, _: &Nonce, _: &[u8], _: &mut [u8]) -> Result<Tag, CipherError> {
        Ok([0; TAG_LEN])
    }

    fn open(&self, _: &SecretKey, _: &Nonce, _: &[u8], _: &mut [u8]) -> Result<(), CipherError> {
        Ok(())
    }
}

/// An extent's bytes before and after each stage.
struct Extent {
    plain: Vec<u8>,
    needed: u8,
    rows: Vec<Row>,
    sealed: Vec<Vec<u8>>,
    stripes: Vec<Stripe>,
    encoder: Encoder,
    shards: Vec<Vec<Bytes>>,
}

impl Extent {
    fn new(plain: Vec<u8>, needed: u8, rows: u8) -> Self {
        let rows: Vec<Row> = (0..rows).map(Row).collect();
        let sealed = sealed(&plain, Arc::new(AwsLcAesGcm));
        let mut builder = StripeBuilder::new(needed);
        let mut stripes = Vec::new();
        for mut rest in sealed.iter().map(Vec::as_slice) {
            while !rest.is_empty() {
                stripes.extend(builder.push(&mut rest));
            }
        }
        stripes.extend(builder.finish());
        let encoder = Encoder::new(needed, rows.iter().copied()).expect("k is the format's");
        let shards = stripes.iter().map(|stripe| encoder.encode(stripe)).collect();
        Self { plain, needed, rows, sealed, stripes, encoder, shards }
    }

    /// What each takes by itself, in the order of `STAGES`.
    fn stages(&self) -> [Duration; STAGES.len()] {
        let (cipher, key) = (AwsLcAesGcm, SecretKey::new([5; 32]));
        let mut open = self.sealed.clone();
        [
            timed(|| sealed(&self.plain, Arc::new(NoCipher))),
            timed(|| {
                for (chunk, number) in open.iter_mut().zip(0_u8..) {
                    let body = chunk.len() - TAG_LEN;
                    black_box(cipher.seal(&key, &[number; 12], b"chunk", &mut chunk[..body]))
                        .expect("it seals");
                }
            }),
            timed(|| {
                let mut hasher = blake3::Hasher::new();
                for chunk in &self.sealed {
                    hasher.update(chunk);
                }
                hasher.finalize()
            }),
            timed(|| self.stripes.iter().for_each(|stripe| drop(black_box(self.encoder.encode(stripe))))),
            timed(|| {
                let mut checks = self.checks();
                self.shards.iter().for_each(|shards| check(&mut checks, shards));
                checks
            }),
        ]
    }

    /// As the gateway does it, and then the agents.
    fn pipeline(&self) -> Vec<BlockChecks> {
        let mut sealer = sealer(Arc::new(AwsLcAesGcm));
        let mut coder = ExtentCoder::new(self.needed, &self.rows).expect("k is the format's");
        let mut checks = self.checks();
        for chunk in self.plain.chunks(CHUNK) {
            for shards in coder.push(&seal(&mut sealer, chunk)) {
                check(&mut checks, &shards);
            }
        }
        let coded = coder.finish().expect("an extent is not that long");
        coded.last.iter().for_each(|shards| check(&mut checks, shards));
        checks
    }

    fn checks(&self) -> Vec<BlockChecks> {
        vec![BlockChecks::new(CRC_BLOCK); self.rows.len()]
    }
}

fn check(checks: &mut [BlockChecks], shards: &[Bytes]) {
    checks.iter_mut().zip(shards).for_each(|(checks, shard)| checks.push(shard));
}

fn sealer(cipher: Arc<dyn BulkCipher>) -> ChunkSealer {
    ChunkSealer::new(BlobId([7; 16]), SecretKey::new([5; 32]), cipher)
}

fn seal(sealer: &mut ChunkSealer, plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plain.len() + 64);
    sealer.seal(plain, false, &mut sealed).expect("a whole chunk is sealed");
    sealed
}

fn sealed(plain: &[u8], cipher: Arc<dyn BulkCipher>) -> Vec<Vec<u8>> {
    let mut sealer = sealer(cipher);
    plain.chunks(CHUNK).map(|chunk| seal(&mut sealer, chunk)).collect()
}
