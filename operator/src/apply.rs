//! Server-side apply: what was built goes to the API server, one result for each.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::core::gvk::ParseGroupVersionError;
use serde_json::Value;

use crate::error::{Asked, OperatorError};
use crate::names::MANAGER;

/// An object as it shall be.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    resource: ApiResource,
    name: String,
    namespace: Option<String>,
    /// All that the operator says of it.
    pub body: Value,
}

impl Child {
    /// From a whole object: `apiVersion`, `kind`, `metadata.name` must be there.
    ///
    /// # Errors
    /// They are not: a fault of this program.
    pub fn new(body: Value) -> Result<Self, OperatorError> {
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let missing = |what: &str| OperatorError::Internal(format!("an object without {what} was built"));
        let version = text("/apiVersion").ok_or_else(|| missing("apiVersion"))?;
        let kind = text("/kind").ok_or_else(|| missing("kind"))?;
        let version: kube::core::GroupVersion = version
            .parse()
            .map_err(|error: ParseGroupVersionError| OperatorError::Internal(error.to_string()))?;
        let resource =
            ApiResource::from_gvk(&GroupVersionKind { group: version.group, version: version.version, kind });
        let name = text("/metadata/name").ok_or_else(|| missing("metadata.name"))?;
        Ok(Self { resource, name, namespace: text("/metadata/namespace"), body })
    }

    /// `Deployment main-gateway`.
    pub fn title(&self) -> String {
        format!("{} {}", self.resource.kind, self.name)
    }

    fn api(&self, client: &kube::Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }

    /// Applies it. Forced: these objects are the operator's own.
    pub async fn apply(&self, client: &kube::Client) -> Result<DynamicObject, OperatorError> {
        let params = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&self.body);
        self.api(client).patch(&self.name, &params, &patch).await.asked(|| format!("apply {}", self.title()))
    }

    /// Makes it where it is not there; one that is stays as it is.
    pub async fn create(&self, client: &kube::Client, manager: &str) -> Result<(), OperatorError> {
        let malformed =
            |error: serde_json::Error| OperatorError::Internal(format!("{}: {error}", self.title()));
        let object: DynamicObject = serde_json::from_value(self.body.clone()).map_err(malformed)?;
        let params = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
        match self.api(client).create(&params, &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            made => made.map(drop).asked(|| format!("make {}", self.title())),
        }
    }

    /// Applies its `status`.
    pub async fn apply_status(&self, client: &kube::Client) -> Result<(), OperatorError> {
        self.apply_status_as(client, MANAGER).await
    }

    /// Applies a part of its `status` that has a writer of its own.
    pub async fn apply_status_as(&self, client: &kube::Client, manager: &str) -> Result<(), OperatorError> {
        let params = PatchParams::apply(manager).force();
        let patch = Patch::Apply(&self.body);
        let done = self.api(client).patch_status(&self.name, &params, &patch).await;
        done.map(|_| ()).asked(|| format!("apply the status of {}", self.title()))
    }
}

/// Whoever else changes an object is overruled after this time, if no event tells of it sooner.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// What was applied lately: the API server is not asked again for what it was given a moment ago.
#[derive(Debug, Default)]
pub struct Applied(Mutex<HashMap<String, (Instant, Value)>>);

impl Applied {
    /// Applies what has changed, or was applied long ago.
    ///
    /// # Errors
    /// The API server refuses it or can't be reached; it is tried again next time.
    pub async fn apply(&self, client: &kube::Client, child: &Child) -> Result<(), OperatorError> {
        if self.is_fresh(child, Instant::now()) {
            return Ok(());
        }
        child.apply(client).await?;
        self.remember(child, Instant::now());
        Ok(())
    }

    fn is_fresh(&self, child: &Child, now: Instant) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&child.title())
            .is_some_and(|(at, body)| *body == child.body && now.duration_since(*at) < AGAIN_AFTER)
    }

    fn remember(&self, child: &Child, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(child.title(), (now, child.body.clone()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_without_a_name_is_never_sent() {
        let error =
            Child::new(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}})).expect_err("no name");
        assert_eq!(error.to_string(), "an object without metadata.name was built");
    }

    #[test]
    fn what_was_applied_is_sent_again_when_it_changes_or_after_a_while() {
        let child = |value: &str| {
            let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"key": value}});
            Child::new(body).expect("a ConfigMap")
        };
        let (applied, now) = (Applied::default(), Instant::now());
        assert!(!applied.is_fresh(&child("one"), now));
        applied.remember(&child("one"), now);
        assert!(applied.is_fresh(&child("one"), now));
        assert!(!applied.is_fresh(&child("two"), now));
        assert!(!applied.is_fresh(&child("one"), now + AGAIN_AFTER));
    }
}
