//! Checksums of uploads in parts: each part's, and the object's, which follows from them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, checksum_combine};
use diptych_core::checksum::{ChecksumType, UploadChecksum};
use diptych_core::records::{Part, Upload};

use super::complete::{CompletePart, Completion};
use crate::digests::{Algorithm, Announced, Checksums};
use crate::error::{GatewayError, Result};

/// What a part's body is summed by: what its client announces, and what the upload was begun with.
///
/// # Errors
/// `InvalidRequest`: its client sums it by another algorithm.
pub(super) fn announced(upload: &Upload, mut announced: Announced) -> Result<Announced> {
    if let Some(checksum) = upload.checksum {
        let wanted = checksum.algorithm();
        if let Some(other) = announced.algorithms().next()
            && announced.algorithms().all(|algorithm| algorithm != wanted)
        {
            return Err(other_algorithm(wanted, other));
        }
        announced.wanted.push(wanted);
    }
    Ok(announced)
}

fn other_algorithm(begun: Algorithm, found: Algorithm) -> GatewayError {
    let (begun, found) = (begun.as_str(), found.as_str());
    GatewayError::InvalidRequest(format!(
        "the upload was begun with checksum {begun}, this request comes with {found}"
    ))
}

fn kept(part: &Part, wanted: Algorithm) -> Option<&[u8]> {
    part.sums.iter().find(|(algorithm, _)| *algorithm == wanted).map(|(_, sum)| sum.as_slice())
}

/// Sums as headers have them.
pub(super) fn encoded(part: &Part) -> Vec<(Algorithm, String)> {
    part.sums.iter().map(|(algorithm, sum)| (*algorithm, STANDARD.encode(sum))).collect()
}

/// Compares a part with what the completion says of it.
///
/// # Errors
/// `InvalidPart`: it has another sum. `InvalidRequest`: a composite sum rests on those of its parts, so each is named.
pub(super) fn check(upload: &Upload, named: &CompletePart, part: &Part) -> Result<()> {
    for (algorithm, sum) in &named.sums {
        if kept(part, *algorithm).is_none_or(|kept| STANDARD.encode(kept) != sum.trim()) {
            return Err(GatewayError::InvalidPart(named.number));
        }
    }
    match upload.checksum.filter(|checksum| checksum.of() == ChecksumType::Composite) {
        Some(checksum) if named.sums.iter().all(|(algorithm, _)| *algorithm != checksum.algorithm()) => {
            let (algorithm, number) = (checksum.algorithm().as_str(), named.number);
            Err(GatewayError::InvalidRequest(format!(
                "the upload was begun with a composite checksum {algorithm}: its completion names that of each part, and lacks that of part {number}"
            )))
        }
        _ => Ok(()),
    }
}

/// The object's sum, as its header has it, if the upload was begun with one; compared with what the completion says of it.
///
/// # Errors
/// `BadDigest`, and `InvalidRequest` where there is nothing to compare with.
pub(super) async fn of_object(
    upload: &Upload,
    parts: &[(u16, Part)],
    said: &Completion,
) -> Result<Option<(Algorithm, String)>> {
    let Some(checksum) = upload.checksum else {
        if said.sums.is_empty() && said.of.is_none() {
            return Ok(None);
        }
        let reason = "the upload was begun without a checksum: there is none of its object to compare with";
        return Err(GatewayError::InvalidRequest(reason.to_owned()));
    };
    if let Some(of) = said.of.filter(|of| *of != checksum.of()) {
        let (found, announced) = (checksum.of().as_str().to_owned(), of.as_str().to_owned());
        return Err(GatewayError::BadDigest { what: "x-amz-checksum-type", found, announced });
    }
    let algorithm = checksum.algorithm();
    let sums = parts.iter().map(|(_, part)| Some((kept(part, algorithm)?.to_vec(), part.size)));
    let sums: Option<Vec<_>> = sums.collect();
    let sums = sums.ok_or_else(|| GatewayError::Corrupt("a part has no checksum".to_owned()))?;
    // Ten thousand parts take a second or so.
    let joined = tokio::task::spawn_blocking(move || joined(checksum, &sums)).await;
    let sum = joined.map_err(|error| GatewayError::Internal(error.to_string()))?;
    for (named, announced) in &said.sums {
        if *named != algorithm {
            return Err(other_algorithm(algorithm, *named));
        }
        if announced.trim() != sum {
            let (what, announced) = (algorithm.header(), announced.clone());
            return Err(GatewayError::BadDigest { what, found: sum, announced });
        }
    }
    Ok(Some((algorithm, sum)))
}

/// The sum of an object, from the sums of its parts and their bytes.
fn joined(checksum: UploadChecksum, parts: &[(Vec<u8>, u64)]) -> String {
    let algorithm = checksum.algorithm();
    match (checksum.of(), algorithm) {
        (ChecksumType::FullObject, Algorithm::Crc32) => joined_crc(CrcAlgorithm::Crc32IsoHdlc, parts),
        (ChecksumType::FullObject, Algorithm::Crc32c) => joined_crc(CrcAlgorithm::Crc32Iscsi, parts),
        (ChecksumType::FullObject, Algorithm::Crc64Nvme) => joined_crc(CrcAlgorithm::Crc64Nvme, parts),
        // No upload is begun with a hash of the whole: it does not follow from hashes of parts.
        (ChecksumType::FullObject, Algorithm::Sha1 | Algorithm::Sha256) | (ChecksumType::Composite, _) => {
            format!("{}-{}", summed(algorithm, parts.iter().map(|(sum, _)| sum.as_slice())), parts.len())
        }
    }
}

fn summed<'a>(algorithm: Algorithm, pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut checksums = Checksums::new(&Announced { wanted: vec![algorithm], ..Announced::default() });
    pieces.for_each(|piece| checksums.update(piece));
    checksums.finish().pop().map(|(_, sum)| sum).unwrap_or_default()
}

/// Sums of a CRC are big-endian, and that of no bytes is 0 for each of the three.
fn joined_crc(crc: CrcAlgorithm, parts: &[(Vec<u8>, u64)]) -> String {
    let number = |sum: &[u8]| sum.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    let join = |joined, (sum, size): &(Vec<u8>, u64)| checksum_combine(crc, joined, number(sum), *size);
    let bytes = parts.iter().fold(0, join).to_be_bytes();
    let width = parts.first().map_or(0, |(sum, _)| sum.len());
    STANDARD.encode(&bytes[bytes.len().saturating_sub(width)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(algorithm: Algorithm, pieces: &[&[u8]]) -> Vec<(Vec<u8>, u64)> {
        let sum = |piece: &[u8]| STANDARD.decode(summed(algorithm, std::iter::once(piece))).expect("base64");
        let part = |piece: &&[u8]| (sum(piece), piece.len() as u64);
        pieces.iter().map(part).collect()
    }

    #[test]
    fn a_crc_of_the_whole_does_not_depend_on_where_it_was_cut() {
        let whole: Vec<u8> =
            (0..100_000_u32).map(|number| (number.wrapping_mul(number) >> 3) as u8).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let checksum = UploadChecksum::new(algorithm, Some(ChecksumType::FullObject)).expect("it fits");
            for cuts in [vec![], vec![1], vec![50_000, 50_000, 99_999], vec![7, 70_000]] {
                let mut pieces = Vec::new();
                let mut rest = whole.as_slice();
                for cut in cuts {
                    let (piece, behind) = rest.split_at(cut - (whole.len() - rest.len()));
                    pieces.push(piece);
                    rest = behind;
                }
                pieces.push(rest);
                let joined = joined(checksum, &parts(algorithm, &pieces));
                assert_eq!(joined, summed(algorithm, std::iter::once(&whole[..])), "{algorithm:?}");
            }
        }
    }

    #[test]
    fn a_composite_sum_is_that_of_the_raw_sums_and_says_of_how_many() {
        // By Python's hashlib and zlib.
        let checksum = UploadChecksum::new(Algorithm::Sha256, None).expect("it fits");
        let found = joined(checksum, &parts(Algorithm::Sha256, &[b"a", b"bc"]));
        assert_eq!(found, "+hmmwN9WmYoOI02fTjJLQ80rYQH332uOywoWKvYycKA=-2");
        let checksum = UploadChecksum::new(Algorithm::Crc32, None).expect("it fits");
        let found = joined(checksum, &parts(Algorithm::Crc32, &[b"a", b"bc"]));
        assert_eq!(found, "u8nFmg==-2");
    }
}
