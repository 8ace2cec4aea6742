//! Talking to a running Diptych: its endpoints, its S3, its REST.

pub mod endpoints;
pub mod rest;
pub mod s3;

use anyhow::{Context, Result};

/// An HTTP client that trusts the authority of `--tls` where there is one.
pub fn http_client(data_dir: &std::path::Path) -> Result<reqwest::Client> {
    diptych_wire::tls::install_provider();
    let mut builder = reqwest::Client::builder().connect_timeout(std::time::Duration::from_secs(2));
    let authority = data_dir.join("authority").join("ca.pem");
    if let Ok(pem) = std::fs::read(&authority) {
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .with_context(|| format!("{} is no certificate", authority.display()))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().context("the HTTP client can't be made")
}
