//! Takeover and planned switch with the other ways of running two sites: Cloudflare's record as witness, https everywhere.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diptych::client::s3::S3Client;
use diptych_e2e::demo::installation::{Installation, signal, until};
use diptych_e2e::demo::one_site::Files;
use diptych_e2e::demo::reach::site_of;
use diptych_e2e::demo::table::Table;
use diptych_e2e::demo::tree::{self, Input};
use diptych_e2e::demo::two_sites::{Scene, switch};
use diptych_e2e::demo::verify::{put_all, verify_all};
use diptych_e2e::demo::writer::Writer;
use diptych_e2e::program::{in_folder, outcome, run};
use tokio::process::Command;

/// Puts on their way at once.
const AT_ONCE: usize = 16;

const PATIENCE: Duration = Duration::from_secs(30);
const CURL_LIMIT: Duration = Duration::from_secs(20);

/// Real files, stored through the public name.
async fn stored(installation: &Installation, count: usize) -> Result<(Arc<S3Client>, Vec<Input>)> {
    let s3 = installation.s3(PATIENCE)?;
    s3.create_bucket().await?;
    let mut files = tree::collect(Path::new("/usr/share/doc"), "tree/", usize::MAX)?;
    files.truncate(count);
    put_all(&s3, &files, AT_ONCE).await?;
    Ok((s3, files))
}

/// With real files, and a writer all the while; `folder` is for what is made for it.
pub(crate) async fn is_taken_over_and_handed_back(installation: &Installation, folder: &Path) -> Result<()> {
    let (s3, tree) = stored(installation, 100).await?;
    let large = tree::large(&folder.join("large.bin"), 20)?;
    s3.put_file(&large.key, &large.path).await?;
    let files = Files { tree, large, at_once: AT_ONCE };
    let writer = Writer::start(installation.s3(Duration::ZERO)?);
    let mut table = Table::default();
    let scene = Scene { reach: installation, faults: installation, acknowledge: "OneSite", files: &files };
    scene.site_dies_and_returns(&mut table, writer).await?;
    println!("{}", table.render());
    Ok(())
}

#[tokio::test]
async fn with_the_record_as_witness_a_site_is_taken_over_and_handed_back() -> Result<()> {
    in_folder("record", async |folder| {
        let words = ["--sites", "2", "--witness", "record", "--node-dead-after", "3"];
        let installation = Installation::start(&folder.join("data"), &words).await?;
        ensure!(installation.endpoints()?.witness.is_none(), "a witness is announced");
        ensure!(!installation.data_dir.join("logs").join("witness.log").exists(), "a witness was started");
        is_taken_over_and_handed_back(&installation, folder).await?;
        installation.stop().await
    })
    .await
}

/// What `curl` says, which knows nothing of Diptych, with or without the authority's certificate.
async fn curl(installation: &Installation, authority: bool, url: &str) -> Result<(bool, String)> {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-m", "10"]);
    if authority {
        curl.arg("--cacert").arg(installation.data_dir.join("authority").join("ca.pem"));
    } else {
        // Whatever this machine trusts besides, it is not the cluster's authority.
        curl.env_remove("CURL_CA_BUNDLE").env_remove("SSL_CERT_FILE");
    }
    outcome(curl.arg(url), CURL_LIMIT).await
}

#[tokio::test]
async fn with_tls_clients_edge_and_origins_speak_https_before_and_after_a_switch() -> Result<()> {
    in_folder("tls", async |folder| {
        let words = ["--sites", "2", "--tls"];
        let installation = Installation::start(&folder.join("data"), &words).await?;
        let endpoints = installation.endpoints()?;
        let mut urls = vec![endpoints.public.clone(), endpoints.s3.endpoint.clone()];
        for site in endpoints.sites.values() {
            urls.extend([site.s3.clone(), site.rest.clone(), site.metrics.clone()]);
        }
        for url in &urls {
            ensure!(url.starts_with("https://"), "{url}");
            let (_, said) = curl(&installation, false, &format!("{url}/live")).await?;
            ensure!(said.contains("certificate"), "{url} was trusted without the authority: {said}");
            let (_, said) =
                curl(&installation, false, &format!("{}/live", url.replace("https", "http"))).await?;
            ensure!(
                !said.contains("\"live\"") && !said.contains("AccessDenied"),
                "{url} answers http: {said}"
            );
        }
        let live = format!("{}/live", endpoints.public);
        ensure!(
            curl(&installation, true, &live).await?.1.contains("live"),
            "the public name with the authority"
        );

        let (s3, files) = stored(&installation, 60).await?;
        verify_all(&s3, &files).await?;
        let file = folder.join("one");
        std::fs::write(&file, "by the command line")?;
        installation.command(&["put", &file.display().to_string()]).await?;
        ensure!(installation.command(&["ls"]).await?.contains("one"), "it is listed");

        // East hands over: the edge follows to west, by https as before; and back.
        let _: serde_json::Value = installation.rest("east")?.post(&["api", "v1", "handover"]).await?;
        until("west is active", PATIENCE, || async {
            let status = installation.status("west").await?;
            Ok(if status.role == "active" { Ok(()) } else { Err(status.role) })
        })
        .await?;
        until("nobody but a person gives the lease back", PATIENCE, || async {
            let failback = installation.status("west").await?.failback;
            let manual = failback.as_ref().is_some_and(|failback| failback.waiting == "Manual");
            Ok(if manual { Ok(()) } else { Err(format!("{failback:?}")) })
        })
        .await?;
        s3.put("after", bytes::Bytes::from_static(b"the switch")).await?;
        verify_all(&s3, &files).await?;
        let mut table = Table::default();
        switch(&mut table, &installation, "west").await?;
        verify_all(&s3, &files).await?;
        println!("{}", table.render());
        stranger_at_the_origin(&installation, folder).await
    })
    .await
}

/// Both sites are dead, and somebody else listens at east's address, with a certificate of his own.
async fn stranger_at_the_origin(installation: &Installation, folder: &Path) -> Result<()> {
    let endpoints = installation.endpoints()?;
    for site in endpoints.sites.values() {
        signal(site.pid, "KILL")?;
    }
    let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]);
    openssl.args(["-subj", "/CN=files.diptych.test", "-addext", "subjectAltName=DNS:files.diptych.test"]);
    run(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate), CURL_LIMIT).await?;
    let address = site_of(&endpoints, "east")?.rest.trim_start_matches("https://").to_owned();
    let mut server = Command::new("openssl");
    server.args(["s_server", "-www", "-accept", &address, "-key"]).arg(&key).arg("-cert").arg(&certificate);
    server.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = server.spawn().context("openssl can't be started")?;
    until("the edge refuses the stranger", PATIENCE, || async {
        let (_, said) = curl(installation, true, &format!("{}/live", endpoints.public)).await?;
        Ok(if said.contains("526") { Ok(()) } else { Err(said) })
    })
    .await
}
