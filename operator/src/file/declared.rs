//! FileObjects that a person applied, and the deletion of any: `kubectl delete` deletes the file.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use diptych_api::{FileObject, StorageCluster};
use futures::Stream;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::gateway::{Answer, Declared, Gateway};
use super::{FINALIZER, PROJECTED};
use crate::access_key::active_epoch;
use crate::apply::Child;
use crate::conditions::{Says, conditions, turned};
use crate::error::{Asked, OperatorError};
use crate::events;
use crate::finalizer;
use crate::options::OperatorOptions;
use crate::tenancy::{self, Standing};

/// Writer of the conditions; what is so comes from the catalog and has another.
const MANAGER: &str = "diptych-operator-files";
const AGAIN: Duration = Duration::from_secs(2);
/// While the site is not active.
const LATER: Duration = Duration::from_secs(5);
/// While its namespace may not refer to the StorageCluster.
const ALLOWED_AGAIN: Duration = Duration::from_secs(30);
/// While a file is retained, whatever it says until when.
const LOOK_AT_LEAST: Duration = Duration::from_hours(1);
/// Reason of conditions that wait for the end of a retention.
const RETAINED: &str = "Retained";

struct Context {
    options: OperatorOptions,
    events: Recorder,
}

/// Watches FileObjects; and all of them, as they were seen.
pub fn controller(options: &OperatorOptions, events: Recorder) -> (impl Stream + use<>, Store<FileObject>) {
    let api: Api<FileObject> = tenancy::api(options);
    let context = Context { options: options.clone(), events };
    let controller =
        Controller::new(api, watcher::Config::default()).with_config(Config::default().concurrency(8));
    let store = controller.store();
    let stream =
        controller.run(reconcile, |_, error: &OperatorError, _| after_failure(error), Arc::new(context));
    (stream, store)
}

fn after_failure(error: &OperatorError) -> Action {
    tracing::warn!(category = error.category(), error = error.chain(), "a FileObject is not reconciled");
    Action::requeue(AGAIN)
}

async fn reconcile(file: Arc<FileObject>, context: Arc<Context>) -> Result<Action, OperatorError> {
    let options = &context.options;
    if !tenancy::is_ours(options, &*file) {
        return Ok(Action::await_change());
    }
    if file.metadata.deletion_timestamp.is_some() {
        if !finalizer::is_held(&*file, FINALIZER) {
            return Ok(Action::await_change());
        }
        return delete(&file, &context).await;
    }
    let now = Timestamp::now();
    let wanted = match wanted(&file, now) {
        Ok(Some(wanted)) if !is_settled(&file, wanted.condition()) => wanted,
        Ok(_) => return Ok(Action::await_change()),
        Err(text) => {
            let says = Says::no("Stored", "NotBase64", text);
            return report(&context, &file, says).await.map(|()| Action::await_change());
        }
    };
    if let Some(says) = tenancy::standing(options, &*file).await?.refusal(wanted.condition()) {
        return report(&context, &file, says).await.map(|()| Action::requeue(ALLOWED_AGAIN));
    }
    finalizer::hold(options, &*file, FINALIZER).await?;
    let Some(gateway) = gateway(options, &file).await? else {
        let says = Says::no(
            wanted.condition(),
            "NoCluster",
            format!("StorageCluster {} is not there or not set up yet", file.spec.cluster_ref.name),
        );
        return report(&context, &file, says).await.map(|()| Action::requeue(LATER));
    };
    if !is_active(options).await? {
        let says = Says::no(
            wanted.condition(),
            "NotActive",
            "this site is not active: what is declared is done when it is, or by applying it in the other",
        );
        return report(&context, &file, says).await.map(|()| Action::requeue(LATER));
    }
    let answer = carry_out(&gateway, &file, &wanted).await?;
    let (says, next) = said(&wanted, answer, now);
    report(&context, &file, says).await.map(|()| next)
}

/// What a FileObject declares.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// A file.
    Stored(Declared),
    /// That the one that is there is retained.
    Retained(Timestamp),
}

impl Wanted {
    const fn condition(&self) -> &'static str {
        match self {
            Self::Stored(_) => "Stored",
            Self::Retained(_) => "Retained",
        }
    }
}

/// None: nothing is declared, or a retention alone that is over. The error is a sentence.
fn wanted(file: &FileObject, now: Timestamp) -> Result<Option<Wanted>, String> {
    let retention = file.spec.retention.as_ref().map(|retention| retention.until.0);
    // The gateway takes none that is over; that it was so is all that is left of it.
    let retain_until = retention.filter(|until| *until > now);
    let is_projected = file.labels().contains_key(PROJECTED);
    let Some(content) = file.spec.content.as_ref().filter(|_| !is_projected) else {
        return Ok(retain_until.map(Wanted::Retained));
    };
    let (bytes, plain) = match (&content.text, &content.base64) {
        (Some(text), _) => (text.clone().into_bytes(), "text/plain; charset=utf-8"),
        (None, Some(text)) => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text);
            let bytes = decoded.map_err(|error| format!("spec.content.base64: {error}"))?;
            (bytes, "application/octet-stream")
        }
        (None, None) => return Ok(None),
    };
    let kind = file.spec.content_type.clone().unwrap_or_else(|| plain.to_owned());
    Ok(Some(Wanted::Stored(Declared { kind, bytes: bytes.into(), retain_until })))
}

async fn carry_out(gateway: &Gateway, file: &FileObject, wanted: &Wanted) -> Result<Answer, OperatorError> {
    let (bucket, key) = (&file.spec.bucket, &file.spec.key);
    match wanted {
        Wanted::Retained(until) => gateway.retain(bucket, key, *until).await,
        Wanted::Stored(declared) => match declared.retain_until {
            // What is retained can't be stored again, and need not be where another time is all that is new.
            Some(until) if gateway.has(bucket, key, declared).await? => {
                gateway.retain(bucket, key, until).await
            }
            Some(_) | None => gateway.put(bucket, key, declared).await,
        },
    }
}

/// The condition for an answer of the gateway, and when to look again.
fn said(wanted: &Wanted, answer: Answer, now: Timestamp) -> (Says, Action) {
    let kind = wanted.condition();
    match answer {
        Answer::Done => {
            let retain_until = match wanted {
                Wanted::Stored(declared) => declared.retain_until,
                Wanted::Retained(until) => Some(*until),
            };
            let until = retain_until.map_or_else(String::new, |until| format!("; retained until {until}"));
            let text = format!("the gateway acknowledged it{until}");
            (Says::yes(kind, kind, text), Action::await_change())
        }
        Answer::NotNow(text) => (Says::no(kind, "GatewayUnavailable", text), Action::requeue(AGAIN)),
        Answer::Refused(text) if matches!(wanted, Wanted::Retained(_)) && text.starts_with("404") => {
            let text = format!("there is no such file yet; give spec.content to store it ({text})");
            (Says::no(kind, "NoFile", text), Action::requeue(LATER))
        }
        Answer::Refused(text) => (Says::no(kind, "Refused", text), Action::await_change()),
        Answer::Retained { until, reason } => {
            (Says::no(kind, RETAINED, reason), Action::requeue(until_then(until, now)))
        }
    }
}

/// How long to wait for the end of a retention: others may lengthen it, and clocks differ.
fn until_then(until: Timestamp, now: Timestamp) -> Duration {
    let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
    left.clamp(LATER, LOOK_AT_LEAST)
}

/// Each generation is carried out once: a later write through a gateway is not undone.
fn is_settled(file: &FileObject, kind: &str) -> bool {
    let conditions = file.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| {
        condition.type_ == kind
            && condition.observed_generation == file.metadata.generation
            && (condition.status == "True"
                || condition.reason == "Refused"
                || condition.reason == "NotBase64")
    })
}

async fn is_active(options: &OperatorOptions) -> Result<bool, OperatorError> {
    let catalog = options.site.catalog.borrow().clone();
    match catalog {
        Some(catalog) => Ok(active_epoch(catalog.as_ref()).await?.is_some()),
        None => Ok(false),
    }
}

async fn gateway(options: &OperatorOptions, file: &FileObject) -> Result<Option<Gateway>, OperatorError> {
    let clusters: Api<StorageCluster> = Api::namespaced(options.client.clone(), &options.namespace);
    let name = &file.spec.cluster_ref.name;
    let Some(cluster) = clusters.get_opt(name).await.asked(|| format!("read StorageCluster {name}"))? else {
        return Ok(None);
    };
    let gateway = Gateway::of(options, &cluster).await?;
    let namespace = file.namespace().unwrap_or_default();
    Ok(gateway.map(|gateway| gateway.acting_in(namespace)))
}

/// The file goes with its FileObject, unless what holds it is being taken away: that never deletes bytes. Nor does a namespace that the
/// StorageCluster does not allow, or no longer.
async fn delete(file: &FileObject, context: &Context) -> Result<Action, OperatorError> {
    let options = &context.options;
    let namespace = file.namespace().unwrap_or_default();
    let is_allowed = tenancy::standing(options, file).await? == Standing::Allowed;
    if is_allowed && !finalizer::is_taken_away(options, file, &namespace).await? {
        if !is_active(options).await? {
            let says = Says::no(
                "Deleted",
                "NotActive",
                "this site is not active: the file is deleted when it is, or through the other",
            );
            return report(context, file, says).await.map(|()| Action::requeue(LATER));
        }
        let Some(gateway) = gateway(options, file).await? else { return Ok(Action::requeue(LATER)) };
        match gateway.delete(&file.spec.bucket, &file.spec.key).await? {
            Answer::Done => {}
            Answer::Retained { until, reason } => {
                let says = Says::no("Deleted", RETAINED, reason);
                let again = until_then(until, Timestamp::now());
                return report(context, file, says).await.map(|()| Action::requeue(again));
            }
            Answer::NotNow(text) | Answer::Refused(text) => {
                let says = Says::no("Deleted", "GatewayUnavailable", text);
                return report(context, file, says).await.map(|()| Action::requeue(AGAIN));
            }
        }
    }
    finalizer::release(options, file, FINALIZER).await.map(|()| Action::await_change())
}

async fn report(context: &Context, file: &FileObject, says: Says) -> Result<(), OperatorError> {
    let before = file.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    let all = [says];
    let conditions = conditions(&before, &all, file.metadata.generation, Timestamp::now());
    if conditions.iter().all(|condition| before.contains(condition)) {
        return Ok(());
    }
    let child = Child::new(json!({
        "apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject",
        "metadata": {"name": file.name_any(), "namespace": file.namespace()},
        "status": {"observedGeneration": file.metadata.generation, "conditions": conditions},
    }))?;
    child.apply_status_as(&context.options.client, MANAGER).await?;
    events::turns(&context.events, &turned(&before, &all), &file.object_ref(&())).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    const NOW: &str = "2026-01-01T00:00:00Z";
    const LATER_ON: &str = "2027-01-01T00:00:00Z";

    fn object(labels: &serde_json::Value, spec: &serde_json::Value) -> FileObject {
        let mut object = json!({
            "apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject",
            "metadata": {"name": "one", "generation": 2, "labels": labels},
            "spec": {"clusterRef": {"name": "main"}, "bucket": "docs", "key": "one"},
        });
        for (name, value) in spec.as_object().expect("an object") {
            object["spec"][name] = value.clone();
        }
        serde_json::from_value(object).expect("a FileObject")
    }

    #[test]
    fn content_is_stored_with_its_retention_and_without_content_the_retention_is_for_what_is_there() {
        let (now, until) = (time(NOW), time(LATER_ON));
        let of = |labels, spec| wanted(&object(&labels, &spec), now).expect("it is fine");
        let retention = json!({"until": LATER_ON});
        let both = json!({"content": {"text": "x"}, "retention": retention});
        let Some(Wanted::Stored(declared)) = of(json!({}), both.clone()) else { panic!("it is stored") };
        assert_eq!((&declared.bytes[..], declared.retain_until), (&b"x"[..], Some(until)));
        assert_eq!(of(json!({}), json!({"retention": retention})), Some(Wanted::Retained(until)));
        let projected = json!({PROJECTED: "true"});
        assert_eq!(of(projected, both), Some(Wanted::Retained(until)), "content is not for projections");
        assert_eq!(of(json!({}), json!({})), None);
        let over = json!({"retention": {"until": "2025-01-01T00:00:00Z"}});
        assert_eq!(of(json!({}), over), None, "it is over, and was carried out while it ran");
        assert!(wanted(&object(&json!({}), &json!({"content": {"base64": "="}})), now).is_err());
    }

    #[test]
    fn what_a_retention_refuses_waits_for_its_end_and_is_not_given_up() {
        let now = time(NOW);
        let wanted = Wanted::Stored(Declared { kind: String::new(), bytes: "x".into(), retain_until: None });
        let answer = |until| Answer::Retained { until: time(until), reason: "403: until then".to_owned() };
        let (says, next) = said(&wanted, answer(LATER_ON), now);
        assert_eq!((says.kind, says.holds, says.reason.as_str()), ("Stored", Some(false), "Retained"));
        assert_eq!(next, Action::requeue(LOOK_AT_LEAST), "it may be lengthened");
        let (_, next) = said(&wanted, answer("2026-01-01T00:10:00Z"), now);
        assert_eq!(next, Action::requeue(Duration::from_mins(10)));
        let (_, next) = said(&wanted, answer("2025-12-31T00:00:00Z"), now);
        assert_eq!(next, Action::requeue(LATER), "another clock says that it runs");
        let mut file = object(&json!({}), &json!({"content": {"text": "x"}}));
        let settled = |file: &mut FileObject, says: Says| {
            let status = diptych_api::FileObjectStatus {
                conditions: conditions(&[], &[says], Some(2), now),
                ..Default::default()
            };
            file.status = Some(status);
            is_settled(file, "Stored")
        };
        assert!(!settled(&mut file, says));
        assert!(settled(&mut file, said(&wanted, Answer::Done, now).0));
    }

    #[test]
    fn a_retention_of_a_file_that_is_not_there_says_what_to_do() {
        let refused = Answer::Refused("404 Not Found: there is no object".to_owned());
        let (says, next) = said(&Wanted::Retained(time(LATER_ON)), refused, time(NOW));
        assert_eq!((says.kind, says.reason.as_str()), ("Retained", "NoFile"));
        assert!(says.message.contains("spec.content"), "{}", says.message);
        assert_eq!(next, Action::requeue(LATER));
    }
}
