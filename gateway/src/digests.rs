//! Checksums of a body: the MD5 that is its etag (computed by `md5`), and those that the client announced.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
pub use diptych_core::checksum::ChecksumAlgorithm as Algorithm;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};

use crate::error::{GatewayError, Result};

/// What the client says of its body.
#[derive(Debug, Clone, Default)]
pub struct Announced {
    /// `Content-MD5`.
    pub md5: Option<[u8; 16]>,
    /// Others, base64 as in the header.
    pub sums: Vec<(Algorithm, String)>,
    /// To be computed though not announced yet: a trailer will.
    pub wanted: Vec<Algorithm>,
}

impl Announced {
    /// Reads `Content-MD5`.
    pub fn set_md5(&mut self, base64: &str) -> Result<()> {
        let bytes = STANDARD.decode(base64.trim()).map_err(|_| GatewayError::InvalidDigest("Content-MD5"))?;
        self.md5 = Some(bytes.try_into().map_err(|_| GatewayError::InvalidDigest("Content-MD5"))?);
        Ok(())
    }

    /// What the body is summed by besides.
    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.sums.iter().map(|(algorithm, _)| *algorithm).chain(self.wanted.iter().copied())
    }
}

/// The sums that the client announced, updated as the body comes.
pub struct Checksums(Option<ChecksumHasher>);

/// Sums of a whole body.
#[derive(Debug, Clone)]
pub struct Sums {
    /// MD5.
    pub md5: [u8; 16],
    /// Base64, by algorithm.
    pub others: Vec<(Algorithm, String)>,
}

impl Checksums {
    /// By all algorithms that it named.
    pub fn new(announced: &Announced) -> Self {
        let algorithms: Vec<Algorithm> = announced.algorithms().collect();
        let wants = |algorithm| algorithms.contains(&algorithm);
        let hasher = ChecksumHasher {
            crc32: wants(Algorithm::Crc32).then(Crc32::new),
            crc32c: wants(Algorithm::Crc32c).then(Crc32c::new),
            sha1: wants(Algorithm::Sha1).then(Sha1::new),
            sha256: wants(Algorithm::Sha256).then(Sha256::new),
            crc64nvme: wants(Algorithm::Crc64Nvme).then(Crc64Nvme::new),
        };
        Self((!algorithms.is_empty()).then_some(hasher))
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.0 {
            hasher.update(bytes);
        }
    }

    /// The sums, base64, by algorithm.
    pub fn finish(self) -> Vec<(Algorithm, String)> {
        let Some(sums) = self.0.map(ChecksumHasher::finalize) else { return Vec::new() };
        let all = [
            (Algorithm::Crc32, sums.checksum_crc32),
            (Algorithm::Crc32c, sums.checksum_crc32c),
            (Algorithm::Crc64Nvme, sums.checksum_crc64nvme),
            (Algorithm::Sha1, sums.checksum_sha1),
            (Algorithm::Sha256, sums.checksum_sha256),
        ];
        all.into_iter().filter_map(|(algorithm, sum)| Some((algorithm, sum?))).collect()
    }
}

impl Sums {
    /// One of them.
    pub fn get(&self, wanted: Algorithm) -> Option<&str> {
        self.others.iter().find(|(algorithm, _)| *algorithm == wanted).map(|(_, sum)| sum.as_str())
    }

    /// All but the MD5, as bytes.
    pub fn raw(&self) -> Vec<(Algorithm, Vec<u8>)> {
        let raw = |(algorithm, sum): &(Algorithm, String)| Some((*algorithm, STANDARD.decode(sum).ok()?));
        self.others.iter().filter_map(raw).collect()
    }

    /// Compares them with what the client announced.
    pub fn check(&self, announced: &Announced) -> Result<()> {
        if let Some(md5) = announced.md5
            && md5 != self.md5
        {
            let (found, announced) = (STANDARD.encode(self.md5), STANDARD.encode(md5));
            return Err(GatewayError::BadDigest { what: "Content-MD5", found, announced });
        }
        for (algorithm, sum) in &announced.sums {
            let found = self.get(*algorithm).unwrap_or_default();
            if found != sum.trim() {
                let (found, announced) = (found.to_owned(), sum.clone());
                return Err(GatewayError::BadDigest { what: algorithm.header(), found, announced });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_sum_is_named() {
        let mut announced = Announced::default();
        announced.sums.push((Algorithm::Crc32c, "AAAAAA==".to_owned()));
        let mut checksums = Checksums::new(&announced);
        checksums.update(b"hello ");
        checksums.update(b"world");
        let sums = Sums { md5: [0; 16], others: checksums.finish() };
        assert_eq!(sums.get(Algorithm::Crc32c), Some("yZRlqg=="));
        let error = sums.check(&announced).expect_err("it differs");
        assert!(error.to_string().starts_with("x-amz-checksum-crc32c of the bytes is yZRlqg=="), "{error}");
    }
}
