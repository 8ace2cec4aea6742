//! A StorageCluster that is deleted: what its site alone has at Cloudflare is taken away before it goes.
//!
//! First the site's loops make nothing more there (`SiteConfig::retired`), then it is removed; else they would make it anew. The
//! records of the public name stay: they may lead to the other site. It is tried for a while and never blocks the deletion for
//! longer: what may be left is then told by an Event.

use std::time::Duration;

use diptych_api::StorageCluster;
use diptych_api::storage_cluster::{StorageClusterSpec, Via};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use super::{AGAIN, Context, observe};
use crate::error::OperatorError;
use crate::options::OperatorOptions;
use crate::{events, finalizer};

const FINALIZER: &str = "diptych.dev/cloudflare";
/// So long the loops have to say that they have retired: one whose catalog is gone says nothing.
const LOOPS_HAVE: Duration = Duration::from_mins(1);
/// So long the deletion waits for Cloudflare.
const PATIENCE: Duration = Duration::from_mins(3);

/// Whether a site of this spec has something at Cloudflare for itself alone.
fn has_own(spec: &StorageClusterSpec) -> bool {
    let dns = spec.failover.as_ref().and_then(|failover| failover.dns.as_ref());
    dns.is_some_and(|dns| dns.cloudflare.health_checks || dns.cloudflare.via != Via::Record)
}

/// Puts the finalizer on, before anything is made that it stands for.
pub(super) async fn hold(options: &OperatorOptions, cluster: &StorageCluster) -> Result<(), OperatorError> {
    if has_own(&cluster.spec) { finalizer::hold(options, cluster, FINALIZER).await } else { Ok(()) }
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The loops may still make something.
    Wait,
    /// Nothing makes anything: it is taken away.
    Remove,
}

fn next(retired: bool, deleted_for: Duration) -> Next {
    if retired || deleted_for >= LOOPS_HAVE { Next::Remove } else { Next::Wait }
}

/// One step of letting it go.
pub(super) async fn let_go(context: &Context, cluster: &StorageCluster) -> Result<Action, OperatorError> {
    let options = &context.options;
    if !finalizer::is_held(cluster, FINALIZER) {
        return Ok(Action::await_change());
    }
    let since = cluster.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let deleted_for = since.map_or(PATIENCE, |since| age(since, Timestamp::now()));
    if next(is_retired(options, cluster).await, deleted_for) == Next::Wait {
        return Ok(Action::requeue(AGAIN));
    }
    match remove(options).await {
        Ok(()) => {}
        Err(left) if deleted_for < PATIENCE => {
            tracing::warn!(left, "what the site has at Cloudflare could not be taken away yet");
            return Ok(Action::requeue(AGAIN));
        }
        Err(left) => {
            let note = format!("the deletion goes on, and at Cloudflare something may be left: {left}");
            let about = cluster.object_ref(&());
            events::tell(&context.events, &about, EventType::Warning, "LeftAtCloudflare", &note, "Delete")
                .await;
        }
    }
    finalizer::release(options, cluster, FINALIZER).await.map(|()| Action::await_change())
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(now.as_second() - since.as_second()).unwrap_or(0))
}

/// Whether the site's loops run with a configuration of after the deletion.
async fn is_retired(options: &OperatorOptions, cluster: &StorageCluster) -> bool {
    let wanted = cluster.metadata.generation.unwrap_or_default();
    match observe::site(options, cluster).await {
        Ok(seen) => seen.and_then(|seen| seen.status).is_some_and(|status| status.generation >= wanted),
        Err(error) => {
            tracing::debug!(error = error.chain(), "the loops' status can't be read");
            false
        }
    }
}

/// With the configuration that this process's loops had; without one nothing was made.
async fn remove(options: &OperatorOptions) -> Result<(), String> {
    let config = options.site.config.borrow().as_ref().map(|config| config.site.clone());
    match config {
        Some(site) => options.at_edge.remove(&site).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(cloudflare: &Value) -> StorageClusterSpec {
        let mut dns =
            json!({"zone": "example.com", "hostname": "files.example.com", "tokenSecretRef": {"name": "cf"}});
        dns.as_object_mut().expect("an object").extend(cloudflare.as_object().cloned().expect("an object"));
        let spec = json!({"site": "east", "nodeAgents": {"devices": [{"path": "/d"}]},
            "encryption": {"keySecretRef": {"name": "k"}}, "failover": {"dns": {"cloudflare": dns}}});
        serde_json::from_value(spec).expect("a spec")
    }

    #[test]
    fn only_a_site_with_something_of_its_own_at_cloudflare_is_held() {
        assert!(!has_own(&spec(&json!({}))), "records stay");
        assert!(has_own(&spec(&json!({"healthChecks": true}))));
        assert!(has_own(&spec(&json!({"via": "LoadBalancer"}))));
    }

    #[test]
    fn nothing_is_removed_while_the_loops_may_make_it_anew_and_they_are_not_waited_for_long() {
        let second = Duration::from_secs(1);
        assert_eq!(next(false, second), Next::Wait);
        assert_eq!(next(true, second), Next::Remove);
        assert_eq!(next(false, LOOPS_HAVE), Next::Remove, "loops that are gone say nothing");
    }
}
