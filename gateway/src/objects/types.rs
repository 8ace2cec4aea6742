//! What callers of the object layer see of objects.

use std::fmt;

use diptych_core::ids::{Epoch, SiteName};
use diptych_core::records::{Etag, Object, VersionRef};
use diptych_core::retention::RetainUntil;

use super::versions::VersionName;
use crate::error::{GatewayError, Result};

/// Longest key, in bytes (S3's limit).
pub const MAX_KEY_BYTES: usize = 1024;
/// Largest object, in bytes (S3's limit).
pub const MAX_OBJECT_BYTES: u64 = 5 << 40;
/// Largest body of one request, in bytes (S3's limit).
pub const MAX_REQUEST_BYTES: u64 = 5 << 30;

/// Refuses keys that S3 has no room for.
pub(crate) fn check_key(key: &str) -> Result<()> {
    match key.len() {
        0 => Err(GatewayError::InvalidArgument("the key is empty".to_owned())),
        1..=MAX_KEY_BYTES => Ok(()),
        bytes => Err(GatewayError::KeyTooLong(bytes)),
    }
}

/// `9e107d9d372bb6826bd81d3542a419d6`, or `…-3` for an upload of three parts; without quotes.
pub fn etag_text(etag: &Etag) -> String {
    match etag.parts {
        0 => hex::encode(etag.md5),
        parts => format!("{}-{parts}", hex::encode(etag.md5)),
    }
}

/// An object that a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// Name of its bucket.
    pub bucket: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Which version; None: the newest.
    pub version: Option<&'a VersionName>,
}

impl<'a> Target<'a> {
    /// The newest version of a key.
    pub const fn newest(bucket: &'a str, key: &'a str) -> Self {
        Self { bucket, key, version: None }
    }
}

/// An object as it is described.
#[derive(Debug, Clone)]
pub struct ObjectInfo {
    /// Its key.
    pub key: String,
    /// The version.
    pub at: VersionRef,
    /// Its id, where its bucket has versions; not said in lists.
    pub version: Option<String>,
    /// The description.
    pub object: Object,
    /// Until then nobody deletes or replaces it.
    pub retained_until: Option<RetainUntil>,
}

impl ObjectInfo {
    /// Value of a stored header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.object.headers.iter().find(|(stored, _)| stored == name).map(|(_, value)| value.as_str())
    }

    /// The etag as text, without quotes.
    pub fn etag(&self) -> String {
        etag_text(&self.object.etag)
    }
}

/// Rows of a write that are durable in a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRows {
    /// The site.
    pub site: SiteName,
    /// Durable rows of the extent that has fewest.
    pub durable: u8,
    /// Rows that the coding has there.
    pub of: u8,
}

/// What a writer learns: where its bytes are durable, and under which epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Term in which it was committed.
    pub epoch: Epoch,
    /// By site.
    pub sites: Vec<SiteRows>,
    /// Of two sites only this one is known to have it whole.
    pub exposed: bool,
    /// Both were to acknowledge it, and the other one did not in time.
    pub downgraded: bool,
}

impl fmt::Display for Receipt {
    /// `epoch=1; east=6/6; west=0/6; exposed=yes; downgraded=yes`; the last only where it is so.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "epoch={}", self.epoch)?;
        for rows in &self.sites {
            write!(formatter, "; {}={}/{}", rows.site, rows.durable, rows.of)?;
        }
        write!(formatter, "; exposed={}", if self.exposed { "yes" } else { "no" })?;
        if self.downgraded { write!(formatter, "; downgraded=yes") } else { Ok(()) }
    }
}
