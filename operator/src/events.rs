//! Events: what a person reads of a transition. One that can't be written holds nothing up.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};

use crate::conditions::Says;

/// Longest note that is sent.
const LONGEST: usize = 1_000;

/// Writes one about an object.
pub async fn tell(
    events: &Recorder,
    about: &ObjectReference,
    type_: EventType,
    reason: &str,
    note: &str,
    action: &str,
) {
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note.chars().take(LONGEST).collect()),
        action: action.to_owned(),
        secondary: None,
    };
    if let Err(error) = events.publish(&event, about).await {
        tracing::debug!(%error, "an Event could not be written");
    }
}

/// Writes one for each condition that turned; only one that holds is no warning.
pub async fn turns(events: &Recorder, turned: &[&Says], about: &ObjectReference) {
    for says in turned {
        let type_ = if says.holds == Some(true) { EventType::Normal } else { EventType::Warning };
        tell(events, about, type_, &says.reason, &says.message, "Reconcile").await;
    }
}
