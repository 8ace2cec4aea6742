//! Checksums of S3: which there are, and what an upload in parts is summed by.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A checksum that a client can announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChecksumAlgorithm {
    /// CRC-32 of ISO HDLC.
    Crc32,
    /// CRC-32C, Castagnoli.
    Crc32c,
    /// CRC-64 of NVMe.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl ChecksumAlgorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// The header of its sums, in lower case.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// As `x-amz-checksum-algorithm` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The algorithm of either name: its own, or its header's (`x-amz-trailer`), in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let named = |algorithm: &Self| {
            text.eq_ignore_ascii_case(algorithm.as_str()) || text.eq_ignore_ascii_case(algorithm.header())
        };
        Self::ALL.into_iter().find(named)
    }
}

/// What the sum of an object of several parts is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChecksumType {
    /// Of the parts' sums, one behind the other; `-N` says of how many.
    Composite,
    /// Of the object's bytes, however they were cut.
    FullObject,
}

impl ChecksumType {
    /// As `x-amz-checksum-type` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Composite => "COMPOSITE",
            Self::FullObject => "FULL_OBJECT",
        }
    }

    /// The type of a name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Composite, Self::FullObject].into_iter().find(|kind| kind.as_str() == text.trim())
    }

    /// The type of a sum, as its header has it: base64 has no dash.
    pub fn of_sum(sum: &str) -> Self {
        if sum.contains('-') { Self::Composite } else { Self::FullObject }
    }
}

/// A sum of bytes cut into parts that can't be had from the parts' sums, or a type that S3 does not know for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the checksum type {} can't be used with {}", .of.as_str(), .algorithm.as_str())]
pub struct UnfitType {
    algorithm: ChecksumAlgorithm,
    of: ChecksumType,
}

/// What an upload in parts is summed by: every part, and the object in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadChecksum {
    algorithm: ChecksumAlgorithm,
    of: ChecksumType,
}

impl UploadChecksum {
    /// Without a type, S3's default: composite, but for CRC-64.
    ///
    /// # Errors
    /// A hash of a whole object can't be had from hashes of its parts, and S3 has CRC-64 for whole objects only.
    pub fn new(algorithm: ChecksumAlgorithm, of: Option<ChecksumType>) -> Result<Self, UnfitType> {
        use ChecksumAlgorithm::{Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
        use ChecksumType::{Composite, FullObject};
        let default = if algorithm == Crc64Nvme { FullObject } else { Composite };
        let of = of.unwrap_or(default);
        match (algorithm, of) {
            (Sha1 | Sha256, FullObject) | (Crc64Nvme, Composite) => Err(UnfitType { algorithm, of }),
            (Crc32 | Crc32c, _) | (Sha1 | Sha256, Composite) | (Crc64Nvme, FullObject) => {
                Ok(Self { algorithm, of })
            }
        }
    }

    /// What sums.
    pub const fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// What the object's sum is of.
    pub const fn of(&self) -> ChecksumType {
        self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_are_known_by_both_of_their_names() {
        for algorithm in ChecksumAlgorithm::ALL {
            assert_eq!(ChecksumAlgorithm::parse(algorithm.as_str()), Some(algorithm));
            assert_eq!(ChecksumAlgorithm::parse(algorithm.header()), Some(algorithm));
        }
        assert_eq!(ChecksumAlgorithm::parse("crc32"), Some(ChecksumAlgorithm::Crc32));
        assert_eq!(ChecksumAlgorithm::parse("md4"), None);
    }

    #[test]
    fn an_upload_is_summed_in_the_ways_that_s3_knows() {
        let fits = |algorithm, of| UploadChecksum::new(algorithm, of).ok().map(|checksum| checksum.of());
        let (composite, full) = (Some(ChecksumType::Composite), Some(ChecksumType::FullObject));
        for crc in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c] {
            assert_eq!([None, composite, full].map(|of| fits(crc, of)), [composite, composite, full]);
        }
        for sha in [ChecksumAlgorithm::Sha1, ChecksumAlgorithm::Sha256] {
            assert_eq!([None, composite, full].map(|of| fits(sha, of)), [composite, composite, None]);
        }
        let crc = ChecksumAlgorithm::Crc64Nvme;
        assert_eq!([None, composite, full].map(|of| fits(crc, of)), [full, None, full]);
        let refused = UploadChecksum::new(ChecksumAlgorithm::Sha256, full).expect_err("no sum of the whole");
        assert_eq!(refused.to_string(), "the checksum type FULL_OBJECT can't be used with SHA256");
    }
}
