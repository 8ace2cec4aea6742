//! Checksums in s3s's types, which have a field for each algorithm.

use diptych_core::checksum::{ChecksumType, UploadChecksum};
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::digests::Algorithm;
use crate::objects::ObjectInfo;

/// Fills an answer: `$sum` tells the sum of an algorithm, if there is one.
macro_rules! set_sums {
    ($answer:expr, $sum:expr) => {{
        let sum = $sum;
        $answer.checksum_crc32 = sum($crate::digests::Algorithm::Crc32);
        $answer.checksum_crc32c = sum($crate::digests::Algorithm::Crc32c);
        $answer.checksum_crc64nvme = sum($crate::digests::Algorithm::Crc64Nvme);
        $answer.checksum_sha1 = sum($crate::digests::Algorithm::Sha1);
        $answer.checksum_sha256 = sum($crate::digests::Algorithm::Sha256);
    }};
}

/// The sums that a request names, by algorithm.
macro_rules! named_sums {
    ($request:expr) => {{
        let all = [
            ($crate::digests::Algorithm::Crc32, $request.checksum_crc32),
            ($crate::digests::Algorithm::Crc32c, $request.checksum_crc32c),
            ($crate::digests::Algorithm::Crc64Nvme, $request.checksum_crc64nvme),
            ($crate::digests::Algorithm::Sha1, $request.checksum_sha1),
            ($crate::digests::Algorithm::Sha256, $request.checksum_sha256),
        ];
        all.into_iter().filter_map(|(algorithm, sum)| Some((algorithm, sum?))).collect::<Vec<_>>()
    }};
}

pub(super) use {named_sums, set_sums};

/// One of some sums.
pub(super) fn sum(sums: &[(Algorithm, String)], wanted: Algorithm) -> Option<String> {
    sums.iter().find(|(algorithm, _)| *algorithm == wanted).map(|(_, sum)| sum.clone())
}

/// Sums that are kept with an object, where a client asks for them: they are of the whole, so not given beside a range of it.
pub(super) fn kept(
    info: &ObjectInfo,
    mode: Option<&dto::ChecksumMode>,
    partial: bool,
) -> Vec<(Algorithm, String)> {
    let asked = mode.is_some_and(|mode| mode.as_str() == dto::ChecksumMode::ENABLED);
    let kept = |algorithm: Algorithm| Some((algorithm, info.header(algorithm.header())?.to_owned()));
    Algorithm::ALL.into_iter().filter_map(kept).filter(|_| asked && !partial).collect()
}

/// What sums are of, where there are any.
pub(super) fn type_of(sums: &[(Algorithm, String)]) -> Option<dto::ChecksumType> {
    sums.first().map(|(_, sum)| checksum_type(ChecksumType::of_sum(sum)))
}

fn checksum_type(of: ChecksumType) -> dto::ChecksumType {
    dto::ChecksumType::from_static(of.as_str())
}

/// What an upload is summed by, in S3's words.
pub(super) fn words(
    checksum: Option<UploadChecksum>,
) -> (Option<dto::ChecksumAlgorithm>, Option<dto::ChecksumType>) {
    let algorithm =
        |checksum: UploadChecksum| dto::ChecksumAlgorithm::from_static(checksum.algorithm().as_str());
    (checksum.map(algorithm), checksum.map(|checksum| checksum_type(checksum.of())))
}

/// The type that a request names.
pub(super) fn named_type(named: Option<dto::ChecksumType>) -> S3Result<Option<ChecksumType>> {
    let parse = |named: dto::ChecksumType| {
        let unknown =
            || invalid(format!("{:?} is not a checksum type: COMPOSITE or FULL_OBJECT", named.as_str()));
        ChecksumType::parse(named.as_str()).ok_or_else(unknown)
    };
    named.map(parse).transpose()
}

/// What a request wants an upload to be summed by.
pub(super) fn wanted(
    algorithm: Option<dto::ChecksumAlgorithm>,
    of: Option<dto::ChecksumType>,
) -> S3Result<Option<UploadChecksum>> {
    let of = named_type(of)?;
    let Some(algorithm) = algorithm else {
        return match of {
            None => Ok(None),
            Some(_) => {
                Err(invalid("x-amz-checksum-type needs x-amz-checksum-algorithm beside it".to_owned()))
            }
        };
    };
    let known = Algorithm::parse(algorithm.as_str())
        .ok_or_else(|| invalid(format!("{:?} is not a checksum algorithm", algorithm.as_str())))?;
    UploadChecksum::new(known, of).map(Some).map_err(|unfit| invalid(unfit.to_string()))
}

fn invalid(message: String) -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidRequest, message)
}
