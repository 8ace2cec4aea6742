//! The catalog's files, as FileObjects: a picture of it, taken again whenever it has moved.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_api::{FileObject, FileObjectStatus, StorageCluster};
use diptych_core::ids::SiteName;
use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use kube::runtime::reflector::Store;
use serde_json::json;
use tokio::sync::watch;

use super::declared::release;
use super::{FINALIZER, FileSeen, PROJECTED, projected_name, see};
use crate::apply::Child;
use crate::error::{Asked, OperatorError};
use crate::names::Names;
use crate::options::OperatorOptions;

/// Writer of what the catalog says.
const MANAGER: &str = "diptych-operator-projection";
/// Between two looks whether the catalog has moved.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A whole look is taken at least so often: health changes without a commit.
const WHOLE_EVERY: Duration = Duration::from_secs(20);
/// Calls to the API server at once.
const AT_ONCE: usize = 8;

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
                    Ok(Some(projection)) => {
                        position = at;
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
        tokio::time::sleep(pause_after(begun.elapsed())).await;
    }
}

/// A picture that takes long to draw is drawn less often: files that come and go by the thousand leave most of the API server's
/// time, and of the machine's, to others.
fn pause_after(look: Duration) -> Duration {
    (look * 4).clamp(LOOK_EVERY, LONGEST_PAUSE)
}

/// What is to be done so that the FileObjects show the catalog.
#[derive(Debug, Default)]
struct Steps {
    make: Vec<(String, FileSeen)>,
    tell: Vec<(String, FileObjectStatus)>,
    retract: Vec<Arc<FileObject>>,
    shown: u64,
}

async fn look(
    options: &OperatorOptions,
    catalog: &dyn diptych_catalog::Catalog,
    there: &[Arc<FileObject>],
) -> Result<Option<Projection>, OperatorError> {
    let clusters: Api<StorageCluster> = Api::namespaced(options.client.clone(), &options.namespace);
    let found = clusters.list(&ListParams::default()).await.asked(|| "list StorageClusters".to_owned())?;
    let Some(cluster) = found.items.into_iter().find(|cluster| cluster.spec.site == catalog.site().as_str())
    else {
        return Ok(None);
    };
    if cluster.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let Some(names) = Names::new(&cluster, &options.release) else { return Ok(None) };
    let peer: Option<SiteName> = cluster.spec.peer.as_ref().and_then(|peer| peer.site.parse().ok());
    let limit = usize::try_from(cluster.spec.catalog.projection_limit).unwrap_or(0);
    let declared: HashSet<(&str, &str)> = there
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
    let steps = steps(seen.files, there);
    let shown = steps.shown;
    carry_out(options, &names, steps).await?;
    Ok(Some(Projection { shown, by_state, limit: limit as u64 }))
}

fn is_projected(file: &FileObject) -> bool {
    file.labels().contains_key(PROJECTED)
}

fn steps(files: Vec<FileSeen>, there: &[Arc<FileObject>]) -> Steps {
    let mut steps = Steps::default();
    let by_name: BTreeMap<String, &Arc<FileObject>> =
        there.iter().map(|file| (file.name_any(), file)).collect();
    let declared: HashMap<(&str, &str), &Arc<FileObject>> = there
        .iter()
        .filter(|file| !is_projected(file))
        .map(|file| ((file.spec.bucket.as_str(), file.spec.key.as_str()), file))
        .collect();
    let mut wanted: HashSet<String> = HashSet::new();
    for file in files {
        let own = declared.get(&(file.bucket.as_str(), file.key.as_str()));
        let name = own.map_or_else(|| projected_name(&file.bucket, &file.key), |own| own.name_any());
        steps.shown += 1;
        let known = by_name.get(&name);
        if known.is_none_or(|known| !says_the_same(known.status.as_ref(), &file.status)) {
            steps.tell.push((name.clone(), file.status.clone()));
        }
        if known.is_none() {
            steps.make.push((name.clone(), file));
        }
        wanted.insert(name);
    }
    let gone = |file: &&Arc<FileObject>| {
        is_projected(file) && !wanted.contains(&file.name_any()) && file.metadata.deletion_timestamp.is_none()
    };
    steps.retract = there.iter().filter(gone).cloned().collect();
    steps
}

/// But for conditions and generation, which have another writer.
fn says_the_same(known: Option<&FileObjectStatus>, now: &FileObjectStatus) -> bool {
    let Some(known) = known else { return false };
    let plain = FileObjectStatus { conditions: Vec::new(), observed_generation: None, ..known.clone() };
    plain == *now
}

async fn carry_out(options: &OperatorOptions, names: &Names, steps: Steps) -> Result<(), OperatorError> {
    let Steps { make, tell, retract, shown: _ } = steps;
    let made = make.iter().map(|(name, file)| show(options, names, name, file));
    let made: Vec<_> = stream::iter(made).buffer_unordered(AT_ONCE).collect().await;
    let told = tell.iter().map(|(name, status)| tell_status(options, names, name, status));
    let told: Vec<_> = stream::iter(told).buffer_unordered(AT_ONCE).collect().await;
    let retracted = retract.iter().map(|file| take_back(options, file));
    let retracted: Vec<_> = stream::iter(retracted).buffer_unordered(AT_ONCE).collect().await;
    let failed: Vec<OperatorError> =
        made.into_iter().chain(told).chain(retracted).filter_map(Result::err).collect();
    match failed.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(()),
    }
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
            "name": name, "namespace": names.namespace, "finalizers": [FINALIZER],
            "labels": {PROJECTED: "true", "app.kubernetes.io/instance": names.cluster, "app.kubernetes.io/managed-by": "diptych-operator"},
        },
        "spec": {"clusterRef": {"name": names.cluster}, "bucket": file.bucket, "key": file.key},
    }))?;
    child.create(&options.client, MANAGER).await
}

async fn tell_status(
    options: &OperatorOptions,
    names: &Names,
    name: &str,
    status: &FileObjectStatus,
) -> Result<(), OperatorError> {
    let child = Child::new(json!({
        "apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject",
        "metadata": {"name": name, "namespace": names.namespace}, "status": status,
    }))?;
    child.apply_status_as(&options.client, MANAGER).await
}

/// The picture goes, the file has gone already: so its finalizer is taken off first.
async fn take_back(options: &OperatorOptions, file: &FileObject) -> Result<(), OperatorError> {
    release(options, file).await?;
    let api: Api<FileObject> = Api::namespaced(options.client.clone(), &options.namespace);
    match api.delete(&file.name_any(), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()).asked(|| format!("take FileObject {} back", file.name_any())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(key: &str, state: &str) -> FileSeen {
        let status = FileObjectStatus { state: Some(state.to_owned()), ..FileObjectStatus::default() };
        FileSeen { bucket: "docs".to_owned(), namespace: "diptych".to_owned(), key: key.to_owned(), status }
    }

    fn object(name: &str, key: &str, projected: bool, state: &str) -> Arc<FileObject> {
        let labels = if projected { json!({PROJECTED: "true"}) } else { json!({}) };
        let object = json!({
            "apiVersion": "files.diptych.dev/v1alpha1", "kind": "FileObject", "metadata": {"name": name, "labels": labels},
            "spec": {"clusterRef": {"name": "main"}, "bucket": "docs", "key": key}, "status": {"state": state},
        });
        Arc::new(serde_json::from_value(object).expect("a FileObject"))
    }

    #[test]
    fn a_new_file_is_shown_a_known_one_is_told_of_and_a_gone_one_taken_back() {
        let (old, gone) = (projected_name("docs", "old"), projected_name("docs", "gone"));
        let there = [object(&old, "old", true, "exposed"), object(&gone, "gone", true, "protected")];
        let steps = steps(vec![seen("new", "exposed"), seen("old", "protected")], &there);
        assert_eq!(steps.make.iter().map(|(_, file)| file.key.as_str()).collect::<Vec<_>>(), ["new"]);
        assert_eq!(steps.tell.len(), 2);
        assert_eq!(steps.retract.iter().map(|file| file.name_any()).collect::<Vec<_>>(), [gone]);
        assert_eq!(steps.shown, 2);
    }

    #[test]
    fn a_declared_file_is_not_projected_again_and_is_never_taken_back() {
        let there = [object("mine", "readme", false, ""), object("waits", "not-stored-yet", false, "")];
        let steps = steps(vec![seen("readme", "protected")], &there);
        assert!(steps.make.is_empty() && steps.retract.is_empty());
        assert_eq!(steps.tell[0].0, "mine");
    }

    #[test]
    fn looks_take_a_fifth_of_the_time_at_most() {
        let ms = Duration::from_millis;
        assert_eq!([pause_after(ms(5)), pause_after(ms(3_000))], [LOOK_EVERY, ms(12_000)]);
        assert_eq!(pause_after(ms(60_000)), LONGEST_PAUSE);
    }

    #[test]
    fn nothing_is_done_where_all_is_shown_as_it_is() {
        let there = [object(&projected_name("docs", "same"), "same", true, "protected")];
        let steps = steps(vec![seen("same", "protected")], &there);
        assert!(steps.make.is_empty() && steps.tell.is_empty() && steps.retract.is_empty());
    }
}
