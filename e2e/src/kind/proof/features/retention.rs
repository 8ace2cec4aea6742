//! What is retained stays until its time, whoever would delete or replace it.

use std::time::Duration;

use anyhow::{Error, Result, ensure};
use base64::Engine as _;
use jiff::Timestamp;
use serde_json::json;

use crate::demo::table::Table;
use crate::kind::install::STORAGE_CLUSTER;
use crate::kind::proof::files;
use crate::kind::proof::ground::{BUCKET, Ground, random, refusal, then_put_back};
use crate::kind::spec;

/// Seconds: long enough for all that is looked at before.
const RETAINED_FOR: i64 = 75;
/// A gateway may just be rolling.
const PATIENCE: Duration = Duration::from_secs(10);

/// A FileObject with content and `retention.until`.
pub(super) async fn lasts_until_its_time(table: &mut Table, ground: &Ground<'_>) -> Result<()> {
    let (active, _) = ground.sites().await?;
    let (name, bytes) = (format!("retained-{}", ground.run), random(64 << 10)?);
    let object = format!("fileobject/{name}");
    // Whole seconds: gateways write the time as it was declared.
    let until = Timestamp::from_second(Timestamp::now().as_second() + RETAINED_FOR)?;
    let look = async {
        table
            .step("a FileObject with a retention is stored, and S3 neither deletes nor replaces it in either site", async {
                let content = base64::engine::general_purpose::STANDARD.encode(&bytes);
                let manifest = json!({"apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject",
                    "metadata": {"name": name},
                    "spec": {"clusterRef": {"name": STORAGE_CLUSTER}, "bucket": BUCKET, "key": name,
                        "content": {"base64": content}, "retention": {"until": until.to_string()}}});
                active.apply(&manifest.to_string()).await?;
                let stored = spec::said_of(active, &object, "Stored", "True Stored").await?;
                ground.read_in_both(&name, &bytes).await?;
                let mut said = String::new();
                for cluster in ground.clusters {
                    let s3 = ground.s3_of(cluster.site, PATIENCE)?;
                    let (put, deleted) = (s3.put(&name, random(1024)?).await, s3.delete(&name).await);
                    refusal(put, 403, &until.to_string()).map_err(Error::msg)?;
                    said = refusal(deleted, 403, &until.to_string()).map_err(Error::msg)?;
                }
                Ok(((), format!("{stored}; PUT and DELETE at both: 403 {said}; {}", ground.read_in_both(&name, &bytes).await?)))
            })
            .await?;
        table
            .step("kubectl delete of it waits with reason Retained, and once its time is over it is gone in both sites", async {
                active.kubectl(&["delete", &object, "--wait=false"]).await?;
                let said = spec::said_of(active, &object, "Deleted", "False Retained").await?;
                let still = ground.read_in_both(&name, &bytes).await?;
                files::gone(active, &name).await?;
                ensure!(Timestamp::now() >= until, "it went before {until}");
                ground.gone_in_both(&name).await?;
                Ok(((), format!("{said}; {still}; after {until} both answer 404 NoSuchKey")))
            })
            .await
    };
    // It goes by itself when its time is over.
    let delete = ["delete", &object, "--ignore-not-found", "--wait=false"];
    then_put_back(look, async { active.kubectl(&delete).await.map(drop) }).await
}
