//! FailoverDrill: when it is due, the keeper of this site is asked for it, if the site is the passive one; what the keeper says
//! of it becomes status. The drill itself is the keeper's: it goes on with the API server away.

mod due;
mod hold;
mod report;
mod wish;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diptych_api::{FailoverDrill, StorageCluster};
use diptych_core::drill::{DrillSpec, Report};
use diptych_core::lease::Millis;
use futures::Stream;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::Recorder;
use kube::runtime::watcher;

use self::due::{Due, Run, due};
use self::report::{Told, report};
use self::wish::wish;
use crate::access_key::last_status;
use crate::error::{Asked, OperatorError};
use crate::file::{Answer, Gateway};
use crate::options::OperatorOptions;

/// Ends a drill, as `spec.abort` does.
const ABORT: &str = "diptych.dev/abort";
/// Between two looks at one that is under way.
const FOLLOW: Duration = Duration::from_secs(1);
/// Between two looks at one that waits for something of the site.
const AGAIN: Duration = Duration::from_secs(5);
/// A drill of which nothing was heard for so long after its FailoverDrill was deleted is let go: what it cut off is back by itself.
const LET_GO_AFTER: Duration = Duration::from_mins(15);
/// Nothing that is due is begun later than so.
const LOOK_AT_LEAST: Duration = Duration::from_mins(1);

struct Context {
    options: OperatorOptions,
    events: Recorder,
    /// By StorageCluster.
    gateways: Mutex<HashMap<String, Gateway>>,
}

/// `4.47s`
pub(crate) fn length(length: Millis) -> String {
    format!("{}s", length.0 as f64 / 1_000.0)
}

/// Watches FailoverDrills.
pub fn controller(options: &OperatorOptions, events: Recorder) -> impl Stream + use<> {
    let api: Api<FailoverDrill> = Api::namespaced(options.client.clone(), &options.namespace);
    let context = Context { options: options.clone(), events, gateways: Mutex::default() };
    Controller::new(api, watcher::Config::default())
        .with_config(Config::default().debounce(Duration::from_millis(300)).concurrency(2))
        .run(reconcile, |_, error: &OperatorError, _| after_failure(error), Arc::new(context))
}

fn after_failure(error: &OperatorError) -> Action {
    tracing::warn!(category = error.category(), error = error.chain(), "a FailoverDrill is not reconciled");
    Action::requeue(AGAIN)
}

async fn reconcile(drill: Arc<FailoverDrill>, context: Arc<Context>) -> Result<Action, OperatorError> {
    let deleted = drill.metadata.deletion_timestamp.is_some();
    let told = match under_way(&drill) {
        // Whatever became of its spec since: what was begun is followed to its end first.
        Some(run) => follow(&context, &drill, &run, aborts(&drill) || deleted).await?,
        None if deleted => Told::over(),
        None => begin(&context, &drill).await?,
    };
    let (next, over) = (told.look_again, told.is_over());
    report(&context.options, &context.events, &drill, told).await?;
    if over || deleted && given_up(&drill, Timestamp::now()) {
        hold::release(&context.options, &drill).await?;
    }
    Ok(next.map_or_else(Action::await_change, Action::requeue))
}

/// The run that was begun and is not known to be over.
fn under_way(drill: &FailoverDrill) -> Option<String> {
    let status = drill.status.as_ref().filter(|status| status.verdict.is_none())?;
    status.run.clone()
}

/// Whether a person ends what runs.
fn aborts(drill: &FailoverDrill) -> bool {
    drill.spec.abort || drill.annotations().contains_key(ABORT)
}

fn given_up(drill: &FailoverDrill, now: Timestamp) -> bool {
    let deleted = drill.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    deleted.is_some_and(|at| now.as_second() - at.as_second() > LET_GO_AFTER.as_secs() as i64)
}

/// Begins what is due.
async fn begin(context: &Context, drill: &FailoverDrill) -> Result<Told, OperatorError> {
    let spec = match wish(&drill.spec) {
        Ok(spec) => spec,
        Err(reason) => return Ok(Told::invalid(reason)),
    };
    let now = Timestamp::now();
    let run = match due(drill, now) {
        Ok(Due::Now(run)) => run,
        Ok(Due::At(at)) => return Ok(Told::rests(at, now)),
        Ok(Due::Never) => return Ok(Told::over()),
        Err(reason) => return Ok(Told::invalid(reason)),
    };
    if drill.spec.suspend || aborts(drill) {
        let message =
            "spec.suspend, spec.abort or annotation diptych.dev/abort stands: take it away to begin";
        return Ok(Told::waits("Suspended", message.to_owned(), LOOK_AT_LEAST));
    }
    let catalog = context.options.site.catalog.borrow().clone();
    let status = match catalog {
        Some(catalog) => last_status(catalog.as_ref()).await?,
        None => None,
    };
    let last = status.as_ref().and_then(|status| status.last_drill.as_ref());
    if last.is_some_and(|last| last.id == run.id) {
        // It was begun, and that could not be noted here.
        let id = run.id.clone();
        return Ok(follow(context, drill, &id, false).await?.for_run(run));
    }
    if let Some(ran) = last.filter(|last| run.is_that_of(last)) {
        return Ok(match ran.verdict {
            Some(_) => Told::elsewhere(run, ran.clone()),
            None => Told::waits("OtherSiteRuns", format!("the other site runs it: {}", ran.reason), AGAIN),
        });
    }
    match status.as_ref().map(|status| status.role.as_str()) {
        Some("passive") => ask(context, drill, &spec, run).await,
        Some("active") => {
            let message = "this site is active: the same FailoverDrill in the other cluster runs it";
            Ok(Told::waits("SiteActive", message.to_owned(), AGAIN))
        }
        Some(_) | None => {
            let message = "this site knows too little of who is active".to_owned();
            Ok(Told::waits("SiteFenced", message, AGAIN))
        }
    }
}

/// Asks the site's keeper for a run.
async fn ask(
    context: &Context,
    drill: &FailoverDrill,
    spec: &DrillSpec,
    run: Run,
) -> Result<Told, OperatorError> {
    let Some(gateway) = context.gateway(drill).await? else {
        let cluster = &drill.spec.cluster_ref.name;
        let message = format!("StorageCluster {cluster} is not there or not set up yet");
        return Ok(Told::waits("NotReady", message, AGAIN));
    };
    let mut body = serde_json::to_value(spec).map_err(|error| OperatorError::Internal(error.to_string()))?;
    body["id"] = run.id.clone().into();
    hold::hold(&context.options, drill).await?;
    let asked = gateway.ask("drill", &body).await;
    if !matches!(asked, Ok(Answer::Done)) {
        context.forget(drill);
    }
    match asked? {
        Answer::Done => {
            let id = run.id.clone();
            Ok(follow(context, drill, &id, false).await?.for_run(run))
        }
        Answer::NotNow(reason) => Ok(Told::waits("KeeperAway", reason, AGAIN)),
        Answer::Refused(reason) | Answer::Retained { reason, .. } => {
            Ok(Told::waits("Refused", reason, LOOK_AT_LEAST))
        }
    }
}

/// How a run fares that was begun.
async fn follow(
    context: &Context,
    drill: &FailoverDrill,
    run: &str,
    aborts: bool,
) -> Result<Told, OperatorError> {
    let Some(gateway) = context.gateway(drill).await? else {
        let reason = format!("StorageCluster {} is not set up now", drill.spec.cluster_ref.name);
        return Ok(Told::unheard(run, reason, AGAIN));
    };
    let report: Option<Report> = match gateway.document("drill").await {
        Ok(report) => report,
        // A site that is cut off or changes its keeper answers later.
        Err(OperatorError::Gateway(reason)) => {
            context.forget(drill);
            return Ok(Told::unheard(run, reason, FOLLOW));
        }
        Err(error) => return Err(error),
    };
    let report = match report {
        Some(report) if report.id == run => report,
        Some(_) => return Ok(Told::gone(run)),
        None => return Ok(Told::unheard(run, "its keeper has just begun".to_owned(), FOLLOW)),
    };
    if aborts && !report.is_over() {
        gateway.command("drill/abort").await?;
    }
    let next = if report.is_over() { LOOK_AT_LEAST } else { FOLLOW };
    Ok(Told::of(report, next))
}

impl Context {
    fn gateways(&self) -> MutexGuard<'_, HashMap<String, Gateway>> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gateways of the drill's site; None: it is not set up. One client is kept until it fails.
    async fn gateway(&self, drill: &FailoverDrill) -> Result<Option<Gateway>, OperatorError> {
        let name = &drill.spec.cluster_ref.name;
        if let Some(known) = self.gateways().get(name) {
            return Ok(Some(known.clone()));
        }
        let options = &self.options;
        let clusters: Api<StorageCluster> = Api::namespaced(options.client.clone(), &options.namespace);
        let found = clusters.get_opt(name).await.asked(|| format!("read StorageCluster {name}"))?;
        let Some(cluster) = found else { return Ok(None) };
        let Some(gateway) = Gateway::of(options, &cluster).await? else { return Ok(None) };
        self.gateways().insert(name.clone(), gateway.clone());
        Ok(Some(gateway))
    }

    /// Its token, certificate or address may have changed.
    fn forget(&self, drill: &FailoverDrill) {
        self.gateways().remove(&drill.spec.cluster_ref.name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::due::tests::drill;
    use super::*;

    #[test]
    fn a_run_that_is_not_over_is_followed_whatever_its_spec_says_now() {
        let mut changed = drill(&json!({"mode": "Outage", "outage": "1s"}));
        assert!(wish(&changed.spec).is_err(), "nothing is begun by it");
        assert_eq!(under_way(&changed), None);
        let mut status = diptych_api::FailoverDrillStatus { run: Some("r".to_owned()), ..Default::default() };
        changed.status = Some(status.clone());
        assert_eq!(under_way(&changed).as_deref(), Some("r"));
        status.verdict = Some("Aborted".to_owned());
        changed.status = Some(status);
        assert_eq!(under_way(&changed), None);
    }

    #[test]
    fn a_drill_that_is_deleted_waits_for_its_run_but_not_for_ever() {
        let at = |time: &str| time.parse::<Timestamp>().expect("a time");
        let mut deleted = drill(&json!({"mode": "Outage"}));
        assert!(!given_up(&deleted, at("2026-01-02T00:00:00Z")), "it is not deleted");
        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at("2026-01-01T00:00:00Z"));
        deleted.metadata.deletion_timestamp = Some(time);
        assert!(!given_up(&deleted, at("2026-01-01T00:15:00Z")));
        assert!(given_up(&deleted, at("2026-01-01T00:15:01Z")));
    }
}
