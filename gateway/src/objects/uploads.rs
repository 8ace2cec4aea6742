//! Uploads in parts: listed, and their parts.

use diptych_core::checksum::UploadChecksum;
use diptych_core::ids::UploadId;
use diptych_core::keys;
use diptych_core::records::{Part, Record, Upload};

use super::{Objects, part_sums};
use crate::digests::Algorithm;
use crate::error::Result;

/// A part as it is stored.
#[derive(Debug, Clone)]
pub struct StoredPart {
    /// Its number.
    pub number: u16,
    /// Its MD5.
    pub md5: [u8; 16],
    /// Its checksums, base64.
    pub sums: Vec<(Algorithm, String)>,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
}

/// Parts of an upload, in order.
#[derive(Debug, Clone, Default)]
pub struct PartsPage {
    /// The parts.
    pub parts: Vec<StoredPart>,
    /// There are more after the last one.
    pub more: bool,
    /// What the upload is summed by.
    pub checksum: Option<UploadChecksum>,
}

/// What uploads to list.
#[derive(Debug, Clone, Default)]
pub struct UploadsRequest {
    /// Of keys that begin with it.
    pub prefix: String,
    /// After this key, and after this upload of it.
    pub after: Option<(String, Option<String>)>,
    /// Uploads at most.
    pub limit: usize,
}

/// An upload that is open.
#[derive(Debug, Clone)]
pub struct UploadSummary {
    /// The object's key.
    pub key: String,
    /// Which.
    pub id: UploadId,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// What it is summed by.
    pub checksum: Option<UploadChecksum>,
}

/// Open uploads, in order of key and upload.
#[derive(Debug, Clone, Default)]
pub struct UploadsPage {
    /// The uploads.
    pub uploads: Vec<UploadSummary>,
    /// There are more after the last one.
    pub more: bool,
}

impl Objects {
    /// Parts of an upload after a number.
    pub async fn parts(
        &self,
        namespace: &str,
        target: (&str, &str, &str),
        after: u16,
        limit: usize,
    ) -> Result<PartsPage> {
        let (bucket, key, id) = target;
        let open = self.open_upload(namespace, bucket, key, id).await?;
        let mut range = keys::upload_and_parts(open.bucket.id, key.as_bytes(), open.id);
        range.start = keys::upload_part(open.bucket.id, key.as_bytes(), open.id, after.saturating_add(1));
        let view = self.context.view_for_client().await?;
        let page = view.scan(&range, limit)?;
        let mut parts = Vec::with_capacity(page.entries.len());
        for (part_key, raw) in &page.entries {
            if let Some((_, _, Some(number))) = keys::upload_of(part_key) {
                let part = Part::decode(raw)?;
                parts.push(StoredPart {
                    number,
                    md5: part.md5,
                    sums: part_sums::encoded(&part),
                    size: part.size,
                    modified_ms: part.modified_ms,
                });
            }
        }
        Ok(PartsPage { parts, more: page.next.is_some(), checksum: open.upload.checksum })
    }

    /// Open uploads of a bucket.
    pub async fn uploads(
        &self,
        namespace: &str,
        bucket: &str,
        request: &UploadsRequest,
    ) -> Result<UploadsPage> {
        let view = self.context.view_for_client().await?;
        let bucket = super::buckets::find(view.as_ref(), namespace, bucket)?;
        let mut range = keys::uploads(bucket.id, request.prefix.as_bytes());
        if let Some((key, id)) = &request.after {
            let id = id.as_ref().and_then(|id| id.parse().ok());
            let past =
                keys::upload_and_parts(bucket.id, key.as_bytes(), id.unwrap_or(UploadId([0xff; 16]))).end;
            range.start = range.start.max(past);
        }
        let mut found = UploadsPage::default();
        while range.start < range.end {
            let page = view.scan(&range, 1)?;
            let Some((catalog_key, raw)) = page.entries.first() else { break };
            let Some((key, id, _)) = keys::upload_of(catalog_key) else { break };
            if found.uploads.len() == request.limit {
                found.more = true;
                break;
            }
            // Its parts, up to 10,000, are passed by in one step.
            range.start = keys::upload_and_parts(bucket.id, &key, id).end;
            let Upload { started_ms, checksum, .. } = Upload::decode(raw)?;
            let key = String::from_utf8_lossy(&key).into_owned();
            found.uploads.push(UploadSummary { key, id, started_ms, checksum });
        }
        Ok(found)
    }
}
