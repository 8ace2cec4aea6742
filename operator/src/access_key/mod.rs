//! AccessKey: credentials in a Secret, and their sealed record in the catalog of the active site.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diptych_api::{AccessKey, AccessKeyStatus, StorageCluster};
use diptych_catalog::{Batch, Catalog, Change, Write};
use diptych_core::access::seal_secret;
use diptych_core::ids::Epoch;
use diptych_core::keyring::{ClusterKey, Keyring};
use diptych_core::keys;
use diptych_core::records::{self, Record};
use diptych_site::status::SiteStatus;
use futures::Stream;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::Recorder;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::apply::Child;
use crate::conditions::{Says, conditions, turned};
use crate::error::{Asked, OperatorError};
use crate::events;
use crate::options::OperatorOptions;
use crate::secrets::{random_text, text};

/// How often it is looked whether the catalog still has them.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// Until the site can take them.
const AGAIN: Duration = Duration::from_secs(2);

struct Context {
    options: OperatorOptions,
    events: Recorder,
}

/// Watches AccessKeys.
pub fn controller(options: &OperatorOptions, events: Recorder) -> impl Stream + use<> {
    let api: Api<AccessKey> = Api::namespaced(options.client.clone(), &options.namespace);
    let secrets: Api<Secret> = Api::namespaced(options.client.clone(), &options.namespace);
    let context = Context { options: options.clone(), events };
    Controller::new(api, watcher::Config::default())
        .with_config(Config::default().concurrency(4))
        .owns(secrets, watcher::Config::default())
        .run(reconcile, |_, error: &OperatorError, _| after_failure(error), Arc::new(context))
}

fn after_failure(error: &OperatorError) -> Action {
    tracing::warn!(category = error.category(), error = error.chain(), "an AccessKey is not reconciled");
    Action::requeue(AGAIN)
}

async fn reconcile(key: Arc<AccessKey>, context: Arc<Context>) -> Result<Action, OperatorError> {
    if key.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let options = &context.options;
    let name = key.spec.secret_name.clone().unwrap_or_else(|| key.name_any());
    let secrets: Api<Secret> = Api::namespaced(options.client.clone(), &options.namespace);
    let found = secrets.get_opt(&name).await.asked(|| format!("read Secret {name}"))?;
    let pair = match &found {
        Some(secret) => (text(secret, "accessKeyId")?, text(secret, "secretAccessKey")?),
        None => (format!("DIPTYCH{}", random_text(7).to_uppercase()), random_text(20)),
    };
    if found.is_none() {
        credentials(&key, &name, &pair)?.apply(&options.client).await?;
    }
    let (says, next) = match enter(options, &key, &pair).await {
        Ok(Entered::Done) => {
            (Says::yes("Ready", "Entered", "both sites accept it once the feed has carried it"), LOOK_EVERY)
        }
        Ok(Entered::Waits(reason, message)) => (Says::no("Ready", reason, message), AGAIN),
        Err(error) => (Says::no("Ready", error.category(), error.chain()), AGAIN),
    };
    report(&context, &key, &name, &pair.0, says).await?;
    Ok(Action::requeue(next))
}

fn credentials(key: &AccessKey, name: &str, pair: &(String, String)) -> Result<Child, OperatorError> {
    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    Child::new(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": name, "namespace": key.namespace(), "ownerReferences": key.controller_owner_ref(&()).map(|owner| [owner])},
        "data": {"accessKeyId": encode(&pair.0), "secretAccessKey": encode(&pair.1)},
    }))
}

enum Entered {
    Done,
    Waits(&'static str, String),
}

/// The record goes in under the active site's epoch; the feed carries it to the other.
async fn enter(
    options: &OperatorOptions,
    key: &AccessKey,
    pair: &(String, String),
) -> Result<Entered, OperatorError> {
    let Some(catalog) = options.site.catalog.borrow().clone() else {
        return Ok(Entered::Waits("WaitingForCatalog", "the site's catalog is not open yet".to_owned()));
    };
    let view = catalog.view().await?;
    let record_key = keys::access_key(&pair.0);
    if let Some(raw) = view.get(&record_key)? {
        let known = records::AccessKey::decode(&raw)?;
        if known.read_only == key.spec.read_only {
            return Ok(Entered::Done);
        }
    }
    let Some(epoch) = active_epoch(catalog.as_ref()).await? else {
        return Ok(Entered::Waits(
            "NotActive",
            "the site is not active: the active one makes the record".to_owned(),
        ));
    };
    let Some(sealed) = view.get(&keys::keyring())? else {
        return Ok(Entered::Waits("WaitingForKeyring", "the site has no keyring yet".to_owned()));
    };
    drop(view);
    let keyring = open_keyring(options, &key.spec.cluster_ref.name, &sealed).await?;
    let namespace = key.namespace().unwrap_or_default();
    let record = seal_secret(&keyring, &pair.0, &pair.1, &rand::random(), &namespace, key.spec.read_only)
        .map_err(|error| OperatorError::Internal(error.to_string()))?;
    let write = Write::Put(record_key, Bytes::from(record.encode()));
    catalog.commit(Batch::one(Some(epoch), Change::blind(vec![write]))).await?;
    Ok(Entered::Done)
}

/// The epoch under which role-owned keys may be written here now. The catalog's gate has the last word.
pub(crate) async fn active_epoch(catalog: &dyn Catalog) -> Result<Option<Epoch>, OperatorError> {
    let status = last_status(catalog).await?;
    Ok(status.filter(|status| status.role == "active").map(|status| status.epoch))
}

/// The site's status as its keeper wrote it last.
pub(crate) async fn last_status(catalog: &dyn Catalog) -> Result<Option<SiteStatus>, OperatorError> {
    let status = catalog.view().await?.get(&keys::site_status(catalog.site()))?;
    Ok(status.and_then(|raw| serde_json::from_slice(&raw).ok()))
}

async fn open_keyring(
    options: &OperatorOptions,
    cluster: &str,
    sealed: &[u8],
) -> Result<Keyring, OperatorError> {
    let clusters: Api<StorageCluster> = Api::namespaced(options.client.clone(), &options.namespace);
    let secrets: Api<Secret> = Api::namespaced(options.client.clone(), &options.namespace);
    let found = clusters.get(cluster).await.asked(|| format!("read StorageCluster {cluster}"))?;
    let name = found.spec.encryption.key_secret_ref.name;
    let secret = secrets.get(&name).await.asked(|| format!("read Secret {name}"))?;
    let wrong = |reason: String| OperatorError::Secret { name: name.clone(), reason };
    let key = ClusterKey::parse(&text(&secret, "key")?).map_err(|error| wrong(error.to_string()))?;
    Keyring::open(sealed, &key).map_err(|error| wrong(error.to_string()))
}

async fn report(
    context: &Context,
    key: &AccessKey,
    secret: &str,
    id: &str,
    says: Says,
) -> Result<(), OperatorError> {
    let before = key.status.clone().unwrap_or_default();
    let all = [says];
    let status = AccessKeyStatus {
        observed_generation: key.metadata.generation,
        access_key_id: Some(id.to_owned()),
        secret_name: Some(secret.to_owned()),
        conditions: conditions(&before.conditions, &all, key.metadata.generation, Timestamp::now()),
    };
    if status == before {
        return Ok(());
    }
    let child = Child::new(json!({
        "apiVersion": "diptych.dev/v1alpha1", "kind": "AccessKey",
        "metadata": {"name": key.name_any(), "namespace": key.namespace()}, "status": status,
    }))?;
    child.apply_status(&context.options.client).await?;
    events::turns(&context.events, &turned(&before.conditions, &all), &key.object_ref(&())).await;
    Ok(())
}
