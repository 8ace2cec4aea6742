//! Reading everything back, and comparing every byte by SHA-256.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use diptych::client::s3::S3Client;
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::tree::Input;

/// Files on their way at once.
const GETS: usize = 16;

/// Stores every file, so many at once.
pub async fn put_all(s3: &Arc<S3Client>, inputs: &[Input], at_once: usize) -> Result<()> {
    let puts = inputs.iter().map(|input| {
        let s3 = Arc::clone(s3);
        async move { s3.put_file(&input.key, &input.path).await.with_context(|| input.key.clone()) }
    });
    stream::iter(puts).buffer_unordered(at_once).try_collect().await
}

/// Reads every file and compares it; the bytes that were read.
pub async fn verify_all(s3: &Arc<S3Client>, inputs: &[Input]) -> Result<u64> {
    let gets = inputs.iter().map(|input| {
        let s3 = Arc::clone(s3);
        async move { verify(&s3, input).await.with_context(|| input.key.clone()) }
    });
    stream::iter(gets).buffer_unordered(GETS).try_fold(0, |sum, size| async move { Ok(sum + size) }).await
}

/// Reads one file and compares it; its size.
pub async fn verify(s3: &S3Client, input: &Input) -> Result<u64> {
    let mut answer = s3.get(&input.key).await?;
    let mut hasher = Sha256::new();
    let mut size = 0;
    while let Some(bytes) = answer.chunk().await? {
        size += bytes.len() as u64;
        hasher.update(&bytes);
    }
    let found: [u8; 32] = hasher.finalize().into();
    if size != input.size || found != input.sha256 {
        bail!(
            "{size} bytes with SHA-256 {} came back, {} bytes with {} were stored",
            hex::encode(found),
            input.size,
            hex::encode(input.sha256)
        );
    }
    Ok(size)
}
