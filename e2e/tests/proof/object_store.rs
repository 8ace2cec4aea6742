//! The witness in a bucket: stores that were not made for it keep one record of two that race, and two sites fail over by it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diptych::client::endpoints::S3Endpoint;
use diptych::client::s3::S3Client;
use diptych_core::ids::{ClusterId, Epoch, KeeperNumber};
use diptych_core::lease::{Nonce, SwapResult, Token, WitnessRead, WitnessRecord};
use diptych_e2e::demo::installation::{Installation, until};
use diptych_e2e::minio::Minio;
use diptych_e2e::program::{cache, in_folder};
use diptych_site::keeper::witness::Witness;
use diptych_site::witness::{ObjectStoreConfig, ObjectStoreWitness};

use crate::failover::is_taken_over_and_handed_back;

const PATIENCE: Duration = Duration::from_secs(30);
const BUCKET: &str = "witness";
const KEY: &str = "clusters/one/lease";
const ROUNDS: u64 = 25;

/// Diptych itself as a store of objects, one site of one node, and a bucket in it.
pub(crate) async fn store(folder: &Path, bucket: &str) -> Result<Installation> {
    let store = Installation::start(folder, &["--sites", "1", "--nodes", "1", "--devices", "2"]).await?;
    client(folder, &store.endpoints()?.s3, bucket)?.create_bucket().await?;
    Ok(store)
}

/// A client of that bucket.
pub(crate) fn client(folder: &Path, endpoint: &S3Endpoint, bucket: &str) -> Result<S3Client> {
    S3Client::new(diptych::client::http_client(folder)?, endpoint, bucket, PATIENCE)
}

/// A bucket, by a URL as `diptych dev` takes it.
pub(crate) fn url(endpoint: &S3Endpoint, path: &str) -> Result<String> {
    let S3Endpoint { endpoint, access_key, secret_key } = endpoint;
    let address = endpoint.strip_prefix("http://").context("the store does not speak http")?;
    Ok(format!("http://{access_key}:{secret_key}@{address}/{path}"))
}

fn witness(endpoint: &S3Endpoint) -> Result<ObjectStoreWitness> {
    let config = ObjectStoreConfig {
        endpoint: endpoint.endpoint.clone(),
        bucket: BUCKET.to_owned(),
        key: KEY.to_owned(),
        region: "us-east-1".to_owned(),
        access_key: endpoint.access_key.clone(),
        secret_key: endpoint.secret_key.clone(),
        authority: None,
    };
    Ok(ObjectStoreWitness::new(&config, ClusterId([7; 16]))?)
}

fn record(site: &str, epoch: u64) -> WitnessRecord {
    let nonce = Nonce { seed: site.len() as u64, keeper: KeeperNumber(1), number: epoch };
    WitnessRecord { epoch: Epoch(epoch), site: site.parse().expect("a name"), nonce }
}

/// Two sites swap from the same token at the same moment, again and again: one of them wins, and its record stands.
async fn race(name: &str, endpoint: &S3Endpoint) -> Result<()> {
    let sites = [("east", witness(endpoint)?), ("west", witness(endpoint)?)];
    let mut token: Token = until(&format!("{name} is known to honour conditions"), PATIENCE, || async {
        match sites[0].1.swap(None, record("east", 1), false).await {
            SwapResult::Won { token } => Ok(Ok(token)),
            other => Ok(Err(format!("{other:?}, {:?}", sites[0].1.trouble()))),
        }
    })
    .await?;
    let late = until("west knows it too", PATIENCE, || async {
        match sites[1].1.swap(Some(token.clone()), record("west", 2), false).await {
            SwapResult::Won { token } => Ok(Ok(token)),
            other => Ok(Err(format!("{other:?}, {:?}", sites[1].1.trouble()))),
        }
    });
    token = late.await?;
    let mut wins = [0, 0];
    for epoch in 3..3 + ROUNDS {
        let swaps =
            sites.iter().map(|(site, witness)| witness.swap(Some(token.clone()), record(site, epoch), false));
        let swapped = futures::future::join_all(swaps).await;
        let won: Vec<usize> =
            (0..2).filter(|&index| matches!(swapped[index], SwapResult::Won { .. })).collect();
        ensure!(won.len() == 1, "{name}, epoch {epoch}: {swapped:?}");
        let (winner, loser) = (won[0], 1 - won[0]);
        ensure!(swapped[loser] == SwapResult::Lost, "{name}, epoch {epoch}: {swapped:?}");
        wins[winner] += 1;
        let WitnessRead::Found { token: found, record: read } = sites[loser].1.read().await else {
            anyhow::bail!("{name}: the record can't be read: {:?}", sites[loser].1.trouble());
        };
        ensure!(
            swapped[winner] == SwapResult::Won { token: found.clone() },
            "{name}: {swapped:?}, {found:?}"
        );
        ensure!(read == record(sites[winner].0, epoch), "{name}: {read:?}");
        token = found;
    }
    println!("{name}: {ROUNDS} races, east won {}, west {}", wins[0], wins[1]);
    Ok(())
}

#[tokio::test]
async fn of_two_sites_that_race_for_the_object_one_wins() -> Result<()> {
    in_folder("race", async |folder| {
        let store = store(&folder.join("store"), BUCKET).await?;
        race("Diptych", &store.endpoints()?.s3).await?;
        store.stop().await?;
        // `cargo xtask bench` makes it; nothing else needs it.
        let tools = cache()?.join("bench");
        if tools.join("minio").is_file() {
            let folder = folder.join("minio");
            let minio = Minio::start(&tools, &folder).await?;
            client(&folder, &minio.endpoint(), BUCKET)?.create_bucket().await?;
            race("MinIO", &minio.endpoint()).await?;
            minio.stop().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn with_the_witness_in_a_bucket_a_site_is_taken_over_and_handed_back() -> Result<()> {
    in_folder("bucket", async |folder| {
        let store = store(&folder.join("store"), BUCKET).await?;
        let url = url(&store.endpoints()?.s3, &format!("{BUCKET}/{KEY}"))?;
        let words =
            ["--sites", "2", "--witness", "objectstore", "--witness-store", &url, "--node-dead-after", "3"];
        let installation = Installation::start(&folder.join("data"), &words).await?;
        ensure!(installation.endpoints()?.witness.is_none(), "a witness of its own is announced");
        is_taken_over_and_handed_back(&installation, folder).await?;
        installation.stop().await?;
        store.stop().await
    })
    .await
}
