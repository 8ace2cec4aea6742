//! FileObjects and AccessKeys of another namespace than the StorageCluster's.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use diptych::client::endpoints::S3Endpoint;
use diptych::client::s3::S3Client;
use serde_json::{Value, json};

use super::declare;
use crate::demo::installation::until;
use crate::demo::reach::site_of;
use crate::demo::table::Table;
use crate::kind::cluster::{Cluster, NAMESPACE};
use crate::kind::install::STORAGE_CLUSTER;
use crate::kind::proof::ground::{BUCKET, Ground, random, refusal, then_put_back};
use crate::kind::spec;

/// The other namespace; its AccessKey and the Secret of that have its name, too.
const SHOP: &str = "shop";
const KEY: &str = "accesskey/shop";
const FILE: &str = "fileobject/order";
const LABEL: &str = "diptych=yes";
const CONTENT: &str = "two of everything";
/// AccessKeys are looked at once a minute, and the feed has to carry what follows.
const LIMIT: Duration = Duration::from_mins(3);
/// A gateway may just be rolling.
const PATIENCE: Duration = Duration::from_secs(10);

/// Watched, refused, allowed, refused again; and gone.
pub(super) async fn are_allowed(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let shops = ground.clusters.each_ref().map(|cluster| cluster.in_namespace(SHOP));
    let shop = Shop { ground, shops: &shops, bucket: format!("{SHOP}-{}", ground.run) };
    let look = async {
        table
            .step("watchAllNamespaces by helm upgrade, in both clusters", async {
                for cluster in ground.clusters {
                    watch_all(cluster, true).await?;
                }
                Ok(((), ground.until_well().await?))
            })
            .await?;
        table
            .step(
                "a FileObject and an AccessKey of a namespace that is not allowed say NamespaceNotAllowed",
                shop.is_refused(),
            )
            .await?;
        table
            .step(
                "once allowedNamespaces selects it they work, in buckets of that namespace and no others",
                shop.is_allowed(),
            )
            .await?;
        table
            .step(
                "a namespace that is allowed no longer loses its access keys, and its files stay",
                shop.loses_its_keys(),
            )
            .await
    };
    let put_back = async {
        // While it is allowed, its files go with their FileObjects.
        shop.active().await?.kubectl(&["delete", "fileobjects", "--all", "--timeout=120s"]).await?;
        for cluster in ground.clusters {
            cluster.kubectl(&["delete", "namespace", SHOP, "--ignore-not-found", "--timeout=180s"]).await?;
        }
        declare(ground, &json!({"allowedNamespaces": {"from": "Same", "selector": null}})).await?;
        for cluster in ground.clusters {
            watch_all(cluster, false).await?;
        }
        Ok(())
    };
    Box::pin(then_put_back(look, put_back)).await
}

/// As docs/kubernetes.md has it set, and waits for the operators that run with it.
async fn watch_all(cluster: &Cluster, all: bool) -> Result<()> {
    let set = format!("watchAllNamespaces={all}");
    cluster.helm(&["upgrade", "diptych", "charts/diptych", "--reuse-values", "--set", &set]).await?;
    let operators = "app.kubernetes.io/component=operator";
    let rolled = ["rollout", "status", "deployment", "-l", operators, "--timeout=300s"];
    cluster.kubectl(&rolled).await.map(drop)
}

/// A namespace of both clusters.
struct Shop<'a> {
    ground: &'a Ground<'a>,
    shops: &'a [Cluster; 2],
    /// Nobody else's.
    bucket: String,
}

impl Shop<'_> {
    /// The namespace in the cluster of the active site.
    async fn active(&self) -> Result<&Cluster> {
        let (active, _) = self.ground.sites().await?;
        let [one, other] = self.shops;
        Ok(if one.site == active.site { one } else { other })
    }

    async fn is_refused(&self) -> Result<((), String)> {
        for shop in self.shops {
            shop.apply(
                &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP}}).to_string(),
            )
            .await?;
        }
        let shop = self.active().await?;
        shop.apply(&file("order", &self.bucket).to_string()).await?;
        let key = json!({"apiVersion": "diptych.dev/v1alpha1", "kind": "AccessKey", "metadata": {"name": SHOP},
            "spec": {"clusterRef": reference()}});
        shop.apply(&key.to_string()).await?;
        let said = spec::said_of(shop, KEY, "Ready", "False NamespaceNotAllowed").await?;
        spec::said_of(shop, FILE, "Stored", "False NamespaceNotAllowed").await?;
        let secret = shop.kubectl(&["get", "secret", SHOP, "--ignore-not-found", "-o", "name"]).await?;
        ensure!(secret.is_empty(), "it was given credentials");
        Ok(((), said))
    }

    async fn is_allowed(&self) -> Result<((), String)> {
        let selector = json!({"from": "Selector", "selector": {"matchLabels": {"diptych": "yes"}}});
        self.label(LABEL).await?;
        declare(self.ground, &json!({"allowedNamespaces": selector})).await?;
        let shop = self.active().await?;
        spec::said_of(shop, FILE, "Stored", "True Stored").await?;
        spec::said_of(shop, KEY, "Ready", "True Entered").await?;
        self.reads("order", CONTENT.as_bytes()).await?;
        let bytes = random(64 << 10)?;
        self.s3_of(self.shops[0].site, &self.bucket).await?.put("by-s3", bytes.clone()).await?;
        self.reads("by-s3", &bytes).await?;
        for shop in self.shops {
            self.shows(shop, "by-s3").await?;
        }
        let others = self.s3_of(shop.site, BUCKET).await?.put("not-mine", random(1024)?).await;
        refusal(others, 404, "NoSuchBucket").map_err(anyhow::Error::msg)?;
        shop.apply(&file("not-mine", BUCKET).to_string()).await?;
        let said = spec::said_of(shop, "fileobject/not-mine", "Stored", "False Refused").await?;
        shop.kubectl(&["delete", "fileobject", "not-mine", "--timeout=60s"]).await?;
        Ok((
            (),
            format!(
                "bucket {}: stored, put and read in both sites; of bucket {BUCKET} it is told {said}",
                self.bucket
            ),
        ))
    }

    async fn loses_its_keys(&self) -> Result<((), String)> {
        self.label("diptych-").await?;
        let shop = self.active().await?;
        let said = spec::said_of(shop, KEY, "Ready", "False NamespaceNotAllowed").await?;
        for shop in self.shops {
            let s3 = self.s3_of(shop.site, &self.bucket).await?;
            until(&format!("{} refuses the key", shop.site), LIMIT, || async {
                Ok(refusal(s3.get("by-s3").await, 403, "InvalidAccessKeyId").map(drop))
            })
            .await?;
        }
        self.label(LABEL).await?;
        spec::said_of(shop, KEY, "Ready", "True Entered").await?;
        self.reads("order", CONTENT.as_bytes()).await?;
        Ok(((), format!("{said}; 403 InvalidAccessKeyId in both; allowed again, its file is read as before")))
    }

    async fn label(&self, label: &str) -> Result<()> {
        for shop in self.shops {
            shop.kubectl(&["label", "namespace", SHOP, label, "--overwrite"]).await?;
        }
        Ok(())
    }

    /// A bucket at a site's own gateways, by the credentials of the namespace's AccessKey.
    async fn s3_of(&self, site: &str, bucket: &str) -> Result<Arc<S3Client>> {
        let shop = self.active().await?;
        let endpoint = S3Endpoint {
            endpoint: site_of(&self.ground.reach.endpoints()?, site)?.s3.clone(),
            access_key: shop.secret(SHOP, "accessKeyId").await?,
            secret_key: shop.secret(SHOP, "secretAccessKey").await?,
        };
        self.ground.bucket_by(&endpoint, bucket, PATIENCE)
    }

    /// Waits until the gateways of both sites give these bytes.
    async fn reads(&self, key: &str, bytes: &[u8]) -> Result<()> {
        for shop in self.shops {
            let s3 = self.s3_of(shop.site, &self.bucket).await?;
            until(&format!("{} reads {key} of {}", shop.site, self.bucket), LIMIT, || async {
                let found: Bytes = s3.get(key).await?.bytes().await?;
                Ok(if found == bytes { Ok(()) } else { Err("other bytes".to_owned()) })
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until a file that came in by S3 is a FileObject of the namespace.
    async fn shows(&self, shop: &Cluster, key: &str) -> Result<()> {
        let selector = format!("--field-selector=spec.bucket={}", self.bucket);
        until(&format!("{} shows {key} in namespace {SHOP}", shop.site), LIMIT, || async {
            let all = shop.get(&["fileobjects", &selector]).await?;
            let shown = all["items"].as_array().into_iter().flatten().any(|item| item["spec"]["key"] == key);
            Ok(if shown { Ok(()) } else { Err(all["items"].to_string()) })
        })
        .await
    }
}

fn reference() -> Value {
    json!({"name": STORAGE_CLUSTER, "namespace": NAMESPACE})
}

fn file(name: &str, bucket: &str) -> Value {
    json!({"apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject", "metadata": {"name": name},
        "spec": {"clusterRef": reference(), "bucket": bucket, "key": name, "content": {"text": CONTENT}}})
}
