//! What a register holds: a number that no other write of the run has.

use bytes::Bytes;
use md5::{Digest, Md5};

/// No object is there.
pub(super) const ABSENT: u64 = 0;

/// The bytes of a value.
pub(super) fn body(value: u64) -> Bytes {
    Bytes::from(format!("{value:064}"))
}

/// The value of bytes that a read gave.
pub(super) fn of_body(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body).ok()?.parse().ok().filter(|value| self::body(*value) == body)
}

/// The etag of a value that was put whole, without quotes.
pub(super) fn etag(value: u64) -> String {
    hex::encode(Md5::digest(body(value)))
}
