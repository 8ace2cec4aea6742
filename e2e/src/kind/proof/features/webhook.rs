//! `spec.notifications.webhook`: what turns is told, and signed.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::declare;
use crate::demo::table::Table;
use crate::demo::two_sites::hand_over;
use crate::kind::install::random_token;
use crate::kind::network::gateway_address;
use crate::kind::proof::ground::{Ground, then_put_back};

const SECRET: &str = "proof-webhook";
const SIGNATURE: &str = "x-diptych-signature";
const LIMIT: Duration = Duration::from_mins(1);
/// Seconds after which a receiver refuses what came.
const FRESH: u64 = 300;

/// A planned switch is told by both sites.
pub(super) async fn is_told(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    table
        .step("notifications.webhook: both sites tell of a planned switch, each with a signature that is right", async {
            let mut receiver = Receiver::open().await?;
            let key = random_token()?;
            let look = async {
                for cluster in ground.clusters {
                    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET},
                        "stringData": {"secret": key}});
                    cluster.apply(&secret.to_string()).await?;
                }
                let webhook = json!({"url": receiver.url, "secretRef": {"name": SECRET}});
                declare(ground, &json!({"notifications": {"webhook": webhook}})).await?;
                ground.until_well().await?;
                let (active, passive) = ground.sites().await?;
                hand_over(&ground.reach, active.site).await?;
                let said = [(active.site, "passive"), (passive.site, "active")];
                receiver.hears(&key, &said).await
            };
            let put_back = async {
                declare(ground, &json!({"notifications": null})).await?;
                for cluster in ground.clusters {
                    cluster.kubectl(&["delete", "secret", SECRET, "--ignore-not-found"]).await?;
                }
                Ok(())
            };
            Ok(((), Box::pin(then_put_back(look, put_back)).await?))
        })
        .await
}

/// A small web server at the address by which containers reach this machine.
struct Receiver {
    url: String,
    taken: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
    serves: JoinHandle<std::io::Result<()>>,
}

impl Receiver {
    async fn open() -> Result<Self> {
        let (sender, taken) = mpsc::unbounded_channel();
        let take = move |headers: HeaderMap, body: Bytes| async move {
            // Nobody listens any more once the step is over.
            let _ = sender.send((headers, body));
        };
        let router = Router::new().route("/hook", post(take));
        let listener = TcpListener::bind(SocketAddr::new(gateway_address().await?.parse()?, 0)).await?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let serves = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, taken, serves })
    }

    /// Waits until each of these sites has told that it has this role now; the texts.
    async fn hears(&mut self, key: &str, wanted: &[(&str, &str)]) -> Result<String> {
        let mut missing = wanted.to_vec();
        let mut texts = Vec::new();
        while !missing.is_empty() {
            let told = tokio::time::timeout(LIMIT, self.taken.recv()).await;
            let told =
                told.with_context(|| format!("not told in {LIMIT:?}: {missing:?}; told: {texts:?}"))?;
            let (headers, body) = told.context("the receiver has ended")?;
            is_signed(key, &headers, &body)?;
            let told: Value = serde_json::from_slice(&body)?;
            let is_it = |(site, role): &(&str, &str)| {
                told["transition"] == "RoleChanged" && told["site"] == *site && told["role"] == *role
            };
            missing.retain(|wanted| !is_it(wanted));
            texts.push(told["text"].as_str().context("no text")?.to_owned());
        }
        Ok(texts.join("; "))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serves.abort();
    }
}

/// As docs/kubernetes.md has receivers look at it.
fn is_signed(key: &str, headers: &HeaderMap, body: &[u8]) -> Result<()> {
    let header = headers.get(SIGNATURE).with_context(|| format!("there is no {SIGNATURE}"))?.to_str()?;
    let parts = header
        .split_once(',')
        .and_then(|(time, sum)| Some((time.strip_prefix("t=")?, sum.strip_prefix("v1=")?)));
    let (seconds, sum) = parts.with_context(|| format!("{SIGNATURE}: {header}"))?;
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else {
        bail!("HMAC takes keys of any length")
    };
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    ensure!(mac.verify_slice(&hex::decode(sum)?).is_ok(), "{header} is not the signature of the body");
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    ensure!(now.abs_diff(seconds.parse()?) <= FRESH, "it was signed at {seconds}, now it is {now}");
    Ok(())
}
