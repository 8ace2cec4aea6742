//! The catalog's files, as FileObjects: a picture of it, taken again whenever it has moved.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_api::{FileObject, FileObjectStatus};
use diptych_core::ids::SiteName;
use futures::{FutureExt, StreamExt, TryFutureExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use kube::runtime::reflector::Store;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{FINALIZER, FileSeen, PROJECTED, projected_name, see};
use crate::apply::Child;
use crate::cluster::own_cluster;
use crate::error::{Asked, OperatorError};
use crate::finalizer;
use crate::names::Names;
use crate::options::OperatorOptions;
use crate::tenancy;

/// Writer of what the catalog says.
const MANAGER: &str = "diptych-operator-projection";
/// Between two looks whether the catalog has moved.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Calls of a look last no longer than this, or than twice what it took to look, where that is longer: so what it costs to look
/// never eats the calls' share. The next look goes on, with a newer picture.
const CALLS_FOR: Duration = Duration::from_secs(2);
/// A new file that is exposed is shown after this time: by then most are protected, and are told of once.
const SETTLES_IN: Duration = Duration::from_secs(10);
/// A whole look is taken at least so often: health changes without a commit.
const WHOLE_EVERY: Duration = Duration::from_secs(20);
/// Calls to the API server at once.
const AT_ONCE: usize = 4;

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// FileObjects that stand for files of the catalog.
    pub shown: u64,
    /// Files of the catalog by state: how many, and their bytes.
    pub by_state: BTreeMap<String, (u64, u64)>,
    /// Of these so many are shown.
    pub limit: u64,
}

/// Projects again and again. `store`: the FileObjects that there are.
pub async fn project(
    options: &OperatorOptions,
    store: &Store<FileObject>,
    shown: &watch::Sender<Option<Projection>>,
) {
    if store.wait_until_ready().await.is_err() {
        return;
    }
    let (mut position, mut whole) = (None, None::<Instant>);
    loop {
        let begun = Instant::now();
        let catalog = options.site.catalog.borrow().clone();
        if let Some(catalog) = catalog {
            let at = catalog.position().await.ok();
            if at != position || whole.is_none_or(|whole| whole.elapsed() >= WHOLE_EVERY) {
                whole = Some(Instant::now());
                match look(options, catalog.as_ref(), &store.state()).await {
                    Ok(Some((projection, all_told))) => {
                        position = at.filter(|_| all_told);
                        shown.send_if_modified(|known| {
                            let news = known.as_ref() != Some(&projection);
                            *known = Some(projection);
                            news
                        });
                    }
                    Ok(None) => {}
                    Err(error) => tracing::warn!(
                        category = error.category(),
                        error = error.chain(),
                        "files can't be projected"
                    ),
                }
            }
        }
        // At most half of the time: files that come by the thousand leave the API server to others too.
        tokio::time::sleep(begun.elapsed().max(LOOK_EVERY)).await;
    }
}

/// What is to be done so that the FileObjects show the catalog.
#[derive(Debug, Default)]
struct Steps {
    /// By the name of the FileObject, what is worst first.
    show: Vec<(String, FileSeen, Step)>,
    retract: Vec<Arc<FileObject>>,
    /// Files of which there is a FileObject.
    shown: u64,
    /// Some are waited for.
    unsettled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    MakeAndTell,
    Tell,
}

/// What is shown now, and whether nothing is left to be told.
async fn look(
    options: &OperatorOptions,
    catalog: &dyn diptych_catalog::Catalog,
    there: &[Arc<FileObject>],
) -> Result<Option<(Projection, bool)>, OperatorError> {
    let begun = Instant::now();
    let Some((cluster, names)) = own_cluster(options).await? else { return Ok(None) };
    if cluster.spec.site != catalog.site().as_str() || cluster.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let peer: Option<SiteName> = cluster.spec.peer.as_ref().and_then(|peer| peer.site.parse().ok());
    let limit = usize::try_from(cluster.spec.catalog.projection_limit).unwrap_or(0);
    let ours: Vec<Arc<FileObject>> =
        there.iter().filter(|file| tenancy::is_ours(options, &***file)).cloned().collect();
    let shown_in: HashSet<String> = tenancy::shown(options, &cluster).await?.into_iter().collect();
    let declared: HashSet<(&str, &str)> = ours
        .iter()
        .filter(|file| !is_projected(file))
        .map(|file| (file.spec.bucket.as_str(), file.spec.key.as_str()))
        .collect();
    let view = catalog.view().await?;
    let seen = see(view.as_ref(), catalog.site(), peer.as_ref(), limit, |bucket, key| {
        declared.contains(&(bucket, key))
    })?;
    drop(view);
    let by_state = seen.by_state;
    let files = if options.watch_all_namespaces {
        seen.files.into_iter().filter(|file| shown_in.contains(&file.namespace)).collect()
    } else {
        let here = |file: FileSeen| FileSeen { namespace: options.namespace.clone(), ..file };
        seen.files.into_iter().map(here).collect()
    };
    let steps = steps(files, &ours, Timestamp::now());
    let (known, unsettled) = (steps.shown, steps.unsettled);
    let calls_for = CALLS_FOR.max(begun.elapsed() * 2);
    let (made, all) = carry_out(options, &names, steps, calls_for).await?;
    let projection = Projection { shown: known + made, by_state, limit: limit as u64 };
    Ok(Some((projection, all && !unsettled)))
}

fn is_projected(file: &FileObject) -> bool {
    file.labels().contains_key(PROJECTED)
}

/// Namespace and name of a FileObject.
fn place(file: &FileObject) -> (String, String) {
    (file.namespace().unwrap_or_default(), file.name_any())
}

/// `files`: each with the namespace that it is shown in, that of its bucket.
fn steps(files: Vec<FileSeen>, there: &[Arc<FileObject>], now: Timestamp) -> Steps {
    let mut steps = Steps::default();
    let by_place: BTreeMap<(String, String), &Arc<FileObject>> =
        there.iter().map(|file| (place(file), file)).collect();
    // One that declares a file of another namespace's bucket shows nothing of it.
    let declared: HashMap<(String, &str, &str), &Arc<FileObject>> = there
        .iter()
        .filter(|file| !is_projected(file))
        .map(|file| ((place(file).0, file.spec.bucket.as_str(), file.spec.key.as_str()), file))
        .collect();
    let mut wanted: HashSet<(String, String)> = HashSet::new();
    for file in files {
        let own = declared.get(&(file.namespace.clone(), file.bucket.as_str(), file.key.as_str()));
        let name = own.map_or_else(|| projected_name(&file.bucket, &file.key), |own| own.name_any());
        let step = match by_place.get(&(file.namespace.clone(), name.clone())) {
            None if settles(&file.status, now) => {
                steps.unsettled = true;
                None
            }
            None => Some(Step::MakeAndTell),
            Some(known) => {
                steps.shown += 1;
                (!says_the_same(known.status.as_ref(), &file.status)).then_some(Step::Tell)
            }
        };
        wanted.insert((file.namespace.clone(), name.clone()));
        steps.show.extend(step.map(|step| (name, file, step)));
    }
    // What is worst is told first.
    steps.show.sort_by_key(|(_, file, _)| !file.is_unhealthy());
    let gone = |file: &&Arc<FileObject>| {
        is_projected(file) && !wanted.contains(&place(file)) && file.metadata.deletion_timestamp.is_none()
    };
    steps.retract = there.iter().filter(gone).cloned().collect();
    steps
}

/// Whether it will soon be protected, or is looked at again when it is not.
fn settles(status: &FileObjectStatus, now: Timestamp) -> bool {
    let modified = status.modified_at.as_ref().map_or(0, |time| time.0.as_second());
    let age = now.as_second().saturating_sub(modified);
    status.state.as_deref() == Some("exposed") && age < SETTLES_IN.as_secs() as i64
}

/// But for conditions and generation, which have another writer.
fn says_the_same(known: Option<&FileObjectStatus>, now: &FileObjectStatus) -> bool {
    let Some(known) = known else { return false };
    let plain = FileObjectStatus { conditions: Vec::new(), observed_generation: None, ..known.clone() };
    plain == *now
}

/// How many were made, and whether all was done in the time.
async fn carry_out(
    options: &OperatorOptions,
    names: &Names,
    steps: Steps,
    calls_for: Duration,
) -> Result<(u64, bool), OperatorError> {
    let Steps { show: shows, retract, .. } = steps;
    let all = shows.len() + retract.len();
    let shown = shows.iter().map(|(name, file, step)| {
        async move {
            if *step == Step::MakeAndTell {
                show(options, names, name, file).await?;
            }
            tell_status(options, name, file).await?;
            Ok(*step == Step::MakeAndTell)
        }
        .boxed()
    });
    let retracted = retract.iter().map(|file| take_back(options, file).map_ok(|()| false).boxed());
    let done: Vec<Result<bool, OperatorError>> = stream::iter(shown.chain(retracted))
        .take_until(tokio::time::sleep(calls_for))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let done = done.into_iter().collect::<Result<Vec<bool>, _>>()?;
    Ok((done.iter().filter(|made| **made).count() as u64, done.len() == all))
}

async fn show(
    options: &OperatorOptions,
    names: &Names,
    name: &str,
    file: &FileSeen,
) -> Result<(), OperatorError> {
    let child = Child::new(json!({
        "apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject",
        "metadata": {
            "name": name, "namespace": file.namespace, "finalizers": [FINALIZER],
            "labels": {PROJECTED: "true", "app.kubernetes.io/instance": names.cluster, "app.kubernetes.io/managed-by": "diptych-operator"},
        },
        "spec": {"clusterRef": cluster_ref(names, &file.namespace), "bucket": file.bucket, "key": file.key},
    }))?;
    child.create(&options.client, MANAGER).await
}

/// How a namespace refers to the StorageCluster.
fn cluster_ref(names: &Names, from: &str) -> Value {
    if from == names.namespace {
        return json!({"name": names.cluster});
    }
    json!({"name": names.cluster, "namespace": names.namespace})
}

async fn tell_status(options: &OperatorOptions, name: &str, file: &FileSeen) -> Result<(), OperatorError> {
    let child = Child::new(json!({
        "apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject",
        "metadata": {"name": name, "namespace": file.namespace}, "status": file.status,
    }))?;
    child.apply_status_as(&options.client, MANAGER).await
}

/// The picture goes, the file has gone already: so its finalizer is taken off first.
async fn take_back(options: &OperatorOptions, file: &FileObject) -> Result<(), OperatorError> {
    finalizer::release(options, file, FINALIZER).await?;
    let api: Api<FileObject> = Api::namespaced(options.client.clone(), &file.namespace().unwrap_or_default());
    match api.delete(&file.name_any(), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()).asked(|| format!("take FileObject {} back", file.name_any())),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn seen(key: &str, state: &str) -> FileSeen {
        let status = FileObjectStatus { state: Some(state.to_owned()), ..FileObjectStatus::default() };
        FileSeen { bucket: "docs".to_owned(), namespace: "diptych".to_owned(), key: key.to_owned(), status }
    }

    fn object(name: &str, key: &str, projected: bool, state: &str) -> Arc<FileObject> {
        let labels = if projected { json!({PROJECTED: "true"}) } else { json!({}) };
        let object = json!({
            "apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject",
            "metadata": {"name": name, "namespace": "diptych", "labels": labels},
            "spec": {"clusterRef": {"name": "main"}, "bucket": "docs", "key": key}, "status": {"state": state},
        });
        Arc::new(serde_json::from_value(object).expect("a FileObject"))
    }

    fn steps_of(files: Vec<FileSeen>, there: &[Arc<FileObject>]) -> Steps {
        steps(files, there, Timestamp::from_second(1_000).expect("a time"))
    }

    #[test]
    fn a_new_file_is_shown_a_known_one_is_told_of_and_a_gone_one_taken_back() {
        let (old, gone) = (projected_name("docs", "old"), projected_name("docs", "gone"));
        let there = [object(&old, "old", true, "exposed"), object(&gone, "gone", true, "protected")];
        let steps = steps_of(vec![seen("new", "exposed"), seen("old", "degraded")], &there);
        let keys: Vec<_> = steps.show.iter().map(|(_, file, step)| (file.key.as_str(), *step)).collect();
        assert_eq!(keys, [("old", Step::Tell), ("new", Step::MakeAndTell)], "what is worst comes first");
        assert_eq!(steps.retract.iter().map(|file| file.name_any()).collect::<Vec<_>>(), [gone]);
        assert_eq!((steps.shown, steps.unsettled), (1, false));
    }

    #[test]
    fn a_file_that_is_new_and_exposed_is_shown_when_it_has_settled() {
        let mut new = seen("new", "exposed");
        new.status.modified_at = Timestamp::from_second(995).ok().map(Time::from);
        let steps = steps_of(vec![new.clone()], &[]);
        assert!(steps.show.is_empty() && steps.unsettled);
        new.status.state = Some("protected".to_owned());
        assert_eq!(steps_of(vec![new], &[]).show.len(), 1);
    }

    #[test]
    fn a_declared_file_is_not_projected_again_and_is_never_taken_back() {
        let there = [object("mine", "readme", false, ""), object("waits", "not-stored-yet", false, "")];
        let steps = steps_of(vec![seen("readme", "protected")], &there);
        assert!(steps.retract.is_empty());
        let shown: Vec<_> = steps.show.iter().map(|(name, _, step)| (name.as_str(), *step)).collect();
        assert_eq!(shown, [("mine", Step::Tell)], "nothing is made");
    }

    #[test]
    fn a_file_is_shown_in_the_namespace_of_its_bucket_whatever_another_declares() {
        let theirs = FileSeen { namespace: "shop".to_owned(), ..seen("readme", "protected") };
        let there = [object("mine", "readme", false, "")];
        let steps = steps_of(vec![theirs], &there);
        let shown: Vec<_> =
            steps.show.iter().map(|(name, file, step)| (&**name, &*file.namespace, *step)).collect();
        assert_eq!(shown, [(&*projected_name("docs", "readme"), "shop", Step::MakeAndTell)]);
        let names = Names::for_tests();
        assert_eq!(cluster_ref(&names, "shop"), json!({"name": "main", "namespace": "diptych"}));
        assert_eq!(cluster_ref(&names, "diptych"), json!({"name": "main"}));
    }

    #[test]
    fn a_projection_in_a_namespace_that_shows_no_more_is_taken_back() {
        let (name, other) = (projected_name("docs", "a"), projected_name("docs", "b"));
        let there = [object(&name, "a", true, "protected"), object(&other, "b", true, "protected")];
        let steps = steps_of(vec![seen("a", "protected")], &there);
        assert_eq!(steps.retract.iter().map(|file| file.name_any()).collect::<Vec<_>>(), [other]);
    }

    #[test]
    fn nothing_is_done_where_all_is_shown_as_it_is() {
        let there = [object(&projected_name("docs", "same"), "same", true, "protected")];
        let steps = steps_of(vec![seen("same", "protected")], &there);
        assert!(steps.show.is_empty() && steps.retract.is_empty());
    }
}
