//! AccessKey: credentials in a Secret, and their sealed record in the catalog of the active site. Neither outlives it.

mod record;

use std::sync::Arc;
use std::time::Duration;

use diptych_api::{AccessKey, AccessKeyStatus, StorageCluster};
use diptych_catalog::Catalog;
use diptych_core::ids::Epoch;
use diptych_core::keyring::Keyring;
use diptych_core::keys;
use diptych_site::status::SiteStatus;
use futures::Stream;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::Recorder;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde_json::json;

use self::record::{Outcome, Wanted};
use crate::apply::Child;
use crate::conditions::{Says, conditions, turned};
use crate::error::{Asked, OperatorError};
use crate::events;
use crate::finalizer;
use crate::options::OperatorOptions;
use crate::secrets::{cluster_keys, random_text, text};
use crate::tenancy;

/// Holds an AccessKey until the catalog no longer has its record.
const FINALIZER: &str = "diptych.dev/access-key";
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
    let api: Api<AccessKey> = tenancy::api(options);
    // Secrets elsewhere are looked at with their AccessKeys: to watch them all would be a right to read them all.
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
    let options = &context.options;
    if !tenancy::is_ours(options, &*key) {
        return Ok(Action::await_change());
    }
    if key.metadata.deletion_timestamp.is_some() {
        if !finalizer::is_held(&*key, FINALIZER) {
            return Ok(Action::await_change());
        }
        return delete(&key, &context).await;
    }
    if let Some(says) = tenancy::standing(options, &*key).await?.refusal("Ready") {
        return refuse(&key, &context, says).await;
    }
    finalizer::hold(options, &*key, FINALIZER).await?;
    let name = key.spec.secret_name.clone().unwrap_or_else(|| key.name_any());
    let secrets: Api<Secret> = Api::namespaced(options.client.clone(), &key.namespace().unwrap_or_default());
    let found = secrets.get_opt(&name).await.asked(|| format!("read Secret {name}"))?;
    let pair = match &found {
        Some(secret) => (text(secret, "accessKeyId")?, text(secret, "secretAccessKey")?),
        None => (format!("DIPTYCH{}", random_text(7).to_uppercase()), random_text(20)),
    };
    if found.is_none() {
        credentials(&key, &name, &pair)?.apply(&options.client).await?;
    }
    let known = key.status.as_ref().and_then(|status| status.access_key_id.as_deref());
    if known != Some(&*pair.0) {
        return change(&context, &key, &name, known, &pair.0).await;
    }
    let (says, next) = match enter(options, &key, &pair).await {
        Ok(Outcome::Done) => {
            (Says::yes("Ready", "Entered", "both sites accept it once the feed has carried it"), LOOK_EVERY)
        }
        Ok(Outcome::Waits(reason, message)) => (Says::no("Ready", reason, message), AGAIN),
        Err(error) => (Says::no("Ready", error.category(), error.chain()), AGAIN),
    };
    report(&context, &key, Some((&name, &pair.0)), says).await?;
    Ok(Action::requeue(next))
}

/// Goes over to another access key id.
///
/// ORDER: the old one is out before the status has the new one, and the new one goes in only once the status has it. So
/// what the status names is all that the catalog may have of this AccessKey, and it goes with it.
async fn change(
    context: &Context,
    key: &AccessKey,
    secret: &str,
    old: Option<&str>,
    new: &str,
) -> Result<Action, OperatorError> {
    if let Some(old) = old
        && let Outcome::Waits(reason, message) = revoke(&context.options, key, old).await?
    {
        report(context, key, Some((secret, old)), Says::no("Ready", reason, message)).await?;
        return Ok(Action::requeue(AGAIN));
    }
    report(context, key, Some((secret, new)), Says::no("Ready", "Entering", "the catalog gets it now"))
        .await?;
    Ok(Action::requeue(AGAIN))
}

/// The record goes with its AccessKey, unless the StorageCluster or all of its namespace is being taken away: then the catalog stays as it
/// is. Another namespace that is deleted takes its rights with it.
async fn delete(key: &AccessKey, context: &Context) -> Result<Action, OperatorError> {
    let options = &context.options;
    let id = key.status.as_ref().and_then(|status| status.access_key_id.as_deref());
    if let Some(id) = id
        && !finalizer::is_taken_away(options, key, &options.namespace).await?
        && let Outcome::Waits(reason, message) = revoke(options, key, id).await?
    {
        report(context, key, None, Says::no("Deleted", reason, message)).await?;
        return Ok(Action::requeue(AGAIN));
    }
    finalizer::release(options, key, FINALIZER).await?;
    Ok(Action::await_change())
}

/// The StorageCluster does not allow its namespace, or no longer: what it could reach ends with that.
async fn refuse(key: &AccessKey, context: &Context, says: Says) -> Result<Action, OperatorError> {
    let id = key.status.as_ref().and_then(|status| status.access_key_id.as_deref());
    if let Some(id) = id
        && let Outcome::Waits(reason, message) = revoke(&context.options, key, id).await?
    {
        let message = format!("{}; {message}", says.message);
        report(context, key, None, Says::no("Ready", reason, message)).await?;
        return Ok(Action::requeue(AGAIN));
    }
    report(context, key, None, says).await?;
    Ok(Action::requeue(LOOK_EVERY))
}

/// Takes an id out of the catalog, unless another AccessKey of its namespace has the same credentials, or it is another namespace's.
async fn revoke(options: &OperatorOptions, key: &AccessKey, id: &str) -> Result<Outcome, OperatorError> {
    let Some(catalog) = options.site.catalog.borrow().clone() else { return Ok(waits_for_catalog()) };
    let namespace = key.namespace().unwrap_or_default();
    let api: Api<AccessKey> = Api::namespaced(options.client.clone(), &namespace);
    let all = api.list(&ListParams::default()).await.asked(|| "list AccessKeys".to_owned())?;
    if all.iter().any(|other| other.uid() != key.uid() && has_in_force(other, id)) {
        return Ok(Outcome::Done);
    }
    // Two sites may have their StorageClusters in namespaces of different names: who runs them may take out what either entered.
    let owner = (namespace != options.namespace).then_some(namespace.as_str());
    record::take_out(catalog.as_ref(), active_epoch(catalog.as_ref()).await?, id, owner).await
}

fn has_in_force(key: &AccessKey, id: &str) -> bool {
    let known = key.status.as_ref().and_then(|status| status.access_key_id.as_deref());
    key.metadata.deletion_timestamp.is_none() && known == Some(id)
}

fn waits_for_catalog() -> Outcome {
    Outcome::Waits("WaitingForCatalog", "the site's catalog is not open yet".to_owned())
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

async fn enter(
    options: &OperatorOptions,
    key: &AccessKey,
    (id, secret): &(String, String),
) -> Result<Outcome, OperatorError> {
    let Some(catalog) = options.site.catalog.borrow().clone() else { return Ok(waits_for_catalog()) };
    let Some(sealed) = catalog.view().await?.get(&keys::keyring())? else {
        return Ok(Outcome::Waits("WaitingForKeyring", "the site has no keyring yet".to_owned()));
    };
    let keyring = open_keyring(options, &key.spec.cluster_ref.name, &sealed).await?;
    let namespace = key.namespace().unwrap_or_default();
    let takes_over = namespace == options.namespace;
    let wanted = Wanted { id, secret, namespace: &namespace, read_only: key.spec.read_only, takes_over };
    record::enter(catalog.as_ref(), active_epoch(catalog.as_ref()).await?, &keyring, &wanted).await
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
    let keys = cluster_keys(&secret).map_err(wrong)?;
    keys.open(sealed).map_err(|error| wrong(error.to_string()))
}

/// `of`: name of the Secret, and the id that is or was made from it; None: both as they were.
async fn report(
    context: &Context,
    key: &AccessKey,
    of: Option<(&str, &str)>,
    says: Says,
) -> Result<(), OperatorError> {
    let before = key.status.clone().unwrap_or_default();
    let (secret_name, access_key_id) = match of {
        Some((secret, id)) => (Some(secret.to_owned()), Some(id.to_owned())),
        None => (before.secret_name.clone(), before.access_key_id.clone()),
    };
    let all = [says];
    let status = AccessKeyStatus {
        observed_generation: key.metadata.generation,
        access_key_id,
        secret_name,
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
