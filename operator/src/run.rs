//! The operator's tasks, put together.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use diptych_api::{StorageCluster, StorageNode};
use diptych_site::keys::previous_of;
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::controller::{Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster;
use crate::config::{Paths, PodConfig};
use crate::error::{Asked, OperatorError};
use crate::file::Projection;
use crate::health::{self, Readiness};
use crate::join;
use crate::leader::Leader;
use crate::names::MANAGER;
use crate::options::OperatorOptions;
use crate::secrets::{PREVIOUS_KEY, text};
use crate::{access_key, drill, file, tunnel_token};

/// Between two looks for the configuration of this process's loops, until it has one.
const LOOK_SOON: Duration = Duration::from_secs(2);
/// And from then on, where nothing is heard of its Secret.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// Changes that come together.
const TOGETHER: usize = 64;
/// Its file, in the operator's folder.
const KEPT: &str = "site.json";

/// Runs until `shutdown`. One operator of a release leads, and reconciles; the others keep themselves ready.
///
/// # Errors
/// A listener that can't be opened.
pub async fn run(options: OperatorOptions, shutdown: CancellationToken) -> Result<(), OperatorError> {
    let readiness = Readiness::default();
    readiness.set();
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(options.pod.clone()) };
    let events = Recorder::new(options.client.clone(), reporter);
    let leader = Leader::new(options.client.clone(), &options.namespace, &options.release, &options.pod);
    // Losing the Kubernetes lease, or the API server, ends the controllers and nothing else: the site's loops go on.
    let leading = async {
        loop {
            leader.acquire().await;
            tracing::info!(pod = options.pod, "this operator leads");
            tokio::select! {
                () = leader.hold() => tracing::warn!("another operator leads now, or the API server is away"),
                () = controllers(&options, events.clone()) => {}
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = leading => Ok(()),
        ended = health::serve(options.health, readiness) => ended,
        ended = join::serve(options.clone()) => ended,
        () = keep_config(&options) => Ok(()),
        () = tunnel_token::keep(&options) => Ok(()),
    }
}

async fn controllers(options: &OperatorOptions, events: Recorder) {
    let (shown, projection) = watch::channel(None);
    let (files, store) = file::controller(options, events.clone());
    tokio::join!(
        log(clusters(options, events.clone(), projection)),
        log(access_key::controller(options, events.clone())),
        log(drill::controller(options, events)),
        log(files),
        file::project(options, &store, &shown),
    );
}

/// Failures are told by the controllers' own policies; here the streams are driven.
async fn log<T>(stream: impl Stream<Item = T>) {
    stream.for_each(|_| std::future::ready(())).await;
}

fn clusters(
    options: &OperatorOptions,
    events: Recorder,
    projection: watch::Receiver<Option<Projection>>,
) -> impl Stream + use<> {
    let namespace = &options.namespace;
    let client = || options.client.clone();
    let api: Api<StorageCluster> = Api::namespaced(client(), namespace);
    let nodes: Api<StorageNode> = Api::namespaced(client(), namespace);
    let pods: Api<Pod> = Api::namespaced(client(), namespace);
    let secrets: Api<Secret> = Api::namespaced(client(), namespace);
    let sets: Api<DaemonSet> = Api::namespaced(client(), namespace);
    let members: Api<StatefulSet> = Api::namespaced(client(), namespace);
    let deployments: Api<Deployment> = Api::namespaced(client(), namespace);
    let agents = watcher::Config::default().labels("app.kubernetes.io/component=agent");
    let of = |namespace: Option<String>, name: String| {
        namespace.map(|namespace| ObjectRef::new(&name).within(&namespace))
    };
    let context = cluster::Context {
        options: options.clone(),
        events,
        applied: crate::apply::Applied::default(),
        looks: cluster::Looks::default(),
        projection,
    };
    Controller::new(api, watcher::Config::default())
        .with_config(Config::default().debounce(Duration::from_millis(300)).concurrency(4))
        .owns(sets, watcher::Config::default())
        .owns(members, watcher::Config::default())
        .owns(deployments, watcher::Config::default())
        .owns(secrets, watcher::Config::default())
        .watches(nodes, watcher::Config::default(), move |node: StorageNode| {
            of(node.namespace(), node.spec.cluster_ref.name)
        })
        .watches(pods, agents, move |pod: Pod| {
            let cluster = pod.labels().get("app.kubernetes.io/instance").cloned();
            cluster.and_then(|cluster| of(pod.namespace(), cluster))
        })
        .run(
            cluster::reconcile,
            |cluster, error, _| cluster::after_failure(&cluster, error),
            Arc::new(context),
        )
}

/// Gives the loops of this process their configuration, whether or not it leads: from its folder, where an earlier run
/// of this pod left it, then from the Secrets that the leader makes.
async fn keep_config(options: &OperatorOptions) {
    if let Ok(text) = std::fs::read_to_string(options.folder.join(KEPT))
        && let Ok(config) = serde_json::from_str::<PodConfig>(&text)
    {
        tracing::info!("the site's loops begin with the configuration that this pod had before");
        options.site.config.send_replace(Some(config));
    }
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(options.client.clone(), &options.namespace);
    // The Secret that has the configuration is the gateways' too.
    let of_gateways = watcher::Config::default().labels("app.kubernetes.io/component=gateway");
    let changes = watcher(secrets, of_gateways).default_backoff().touched_objects();
    let mut changes = pin!(changes.ready_chunks(TOGETHER));
    let mut logged = String::new();
    loop {
        match fetch_config(options).await {
            Ok(()) => logged.clear(),
            Err(error) if error.chain() != logged => {
                logged = error.chain();
                tracing::warn!(error = logged, "the configuration of the site's loops can't be read");
            }
            Err(_) => {}
        }
        let configured = options.site.config.borrow().is_some();
        let again = if configured { LOOK_EVERY } else { LOOK_SOON };
        // What ends it is the time, or a change; a watch that fails is one too, and comes again after a pause of its own.
        let _ = tokio::time::timeout(again, changes.next()).await;
    }
}

async fn fetch_config(options: &OperatorOptions) -> Result<(), OperatorError> {
    let Some((cluster, names)) = cluster::own_cluster(options).await? else { return Ok(()) };
    let secrets: Api<Secret> = Api::namespaced(options.client.clone(), &options.namespace);
    let read = |name: String| {
        let secrets = secrets.clone();
        async move { secrets.get_opt(&name).await.asked(|| format!("read Secret {name}")) }
    };
    let (own, catalog, authority, site, key) = tokio::try_join!(
        read(names.child("operator-identity")),
        read(names.child("catalog-client-identity")),
        read(names.child("authority")),
        read(names.child("site")),
        read(cluster.spec.encryption.key_secret_ref.name.clone()),
    )?;
    let paths = Paths::of_operator(&options.folder, &options.mirror);
    for (folder, secret) in [(&paths.identity, &own), (&paths.catalog_identity, &catalog)] {
        let Some(secret) = secret else { continue };
        std::fs::create_dir_all(folder).map_err(|source| OperatorError::Local {
            what: format!("{} can't be made", folder.display()),
            source,
        })?;
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            keep(&folder.join(file), &text(secret, file)?)?;
        }
    }
    let (Some(_), Some(_), Some(authority), Some(site), Some(key)) = (own, catalog, authority, site, key)
    else {
        return Ok(());
    };
    keep_cluster_keys(&paths.cluster_key, &key)?;
    if let Some(path) = &paths.authority_key {
        keep(path, &text(&authority, "ca.key")?)?;
    }
    let malformed =
        |error: serde_json::Error| OperatorError::Internal(format!("the site's configuration: {error}"));
    let config: PodConfig = serde_json::from_str(&text(&site, "site.json")?).map_err(malformed)?;
    let mut config = config.at(&paths);
    if cluster.metadata.deletion_timestamp.is_some() {
        // The loops make nothing more at Cloudflare; that they know it shows in their status, by the generation.
        config.site.retired = true;
        config.site.generation = cluster.metadata.generation.unwrap_or_default();
    }
    let json = serde_json::to_string(&config).map_err(malformed)?;
    if keep(&options.folder.join(KEPT), &json)? || options.site.config.borrow().is_none() {
        options.site.config.send_replace(Some(config));
    }
    Ok(())
}

/// The key, and the one before while the Secret has it, too.
fn keep_cluster_keys(path: &std::path::Path, secret: &Secret) -> Result<(), OperatorError> {
    let (newest, before) = (text(secret, "key")?, previous_of(path));
    if let Ok(text) = text(secret, PREVIOUS_KEY) {
        // At no moment does the newest stand alone where both are given.
        keep(&before, &text)?;
        return keep(path, &newest).map(drop);
    }
    keep(path, &newest)?;
    match std::fs::remove_file(&before) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(OperatorError::Local { what: format!("{} can't be removed", before.display()), source })
        }
        _ => Ok(()),
    }
}

/// True: it was not there, or another.
fn keep(path: &std::path::Path, text: &str) -> Result<bool, OperatorError> {
    if std::fs::read_to_string(path).is_ok_and(|known| known == text) {
        return Ok(false);
    }
    join::client::write(path, text).map(|()| true)
}
