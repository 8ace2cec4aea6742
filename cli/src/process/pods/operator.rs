//! `diptych operator`: the Kubernetes controllers, and beside them the loops of the site, which need no API server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use diptych_catalog::Catalog;
use diptych_operator::{Images, OperatorOptions, PodConfig, SiteLink};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::loops::{self, Process};
use super::open_catalog;
use crate::dev::supervise::told_to_end;
use crate::process::leftovers::CloudflareLeftovers;
use crate::process::log_as_json;

const AGAIN: Duration = Duration::from_secs(1);

/// What the chart gives an operator.
#[derive(Debug, clap::Args)]
pub struct OperatorCommand {
    /// Its own pod
    #[arg(long, env = "POD_NAME")]
    pod: String,
    /// The pod's address
    #[arg(long, env = "POD_IP")]
    address: std::net::IpAddr,
    /// Its namespace: the only one that it looks at
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// What the chart's names begin with
    #[arg(long, env = "DIPTYCH_RELEASE", default_value = "diptych")]
    release: String,
    /// Image of gateways and node-agents
    #[arg(long, env = "DIPTYCH_IMAGE")]
    image: String,
    /// Looks for FileObjects and AccessKeys in every namespace, not in its own one only
    #[arg(long, env = "DIPTYCH_WATCH_ALL_NAMESPACES")]
    watch_all_namespaces: bool,
    /// Image of etcd
    #[arg(long, env = "DIPTYCH_CATALOG_IMAGE")]
    catalog_image: String,
    /// When images are pulled
    #[arg(long, env = "DIPTYCH_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pull_policy: String,
    /// Secrets for pulling them
    #[arg(long, env = "DIPTYCH_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    pull_secrets: Vec<String>,
    /// Requests and limits of gateway, agent and catalog, as JSON
    #[arg(long, env = "DIPTYCH_RESOURCES", default_value = "{}")]
    resources: String,
    /// Folder for its own identity and configuration
    #[arg(long, default_value = "/run/diptych")]
    folder: PathBuf,
    /// The catalog's mirror
    #[arg(long, default_value = "/var/lib/diptych/mirror.redb")]
    mirror: PathBuf,
    /// Where node-agents join
    #[arg(long, default_value = "0.0.0.0:8444")]
    join: SocketAddr,
    /// Where gateways ask the keeper
    #[arg(long, default_value = "0.0.0.0:8445")]
    keeper: SocketAddr,
    /// Probes
    #[arg(long, default_value = "0.0.0.0:8081")]
    health: SocketAddr,
}

/// Runs it until it is told to end.
pub async fn run(command: OperatorCommand) -> Result<()> {
    log_as_json();
    diptych_wire::tls::install_provider();
    let listener = TcpListener::bind(command.keeper)
        .await
        .with_context(|| format!("can't listen on {}", command.keeper))?;
    let holder = SocketAddr::new(command.address, command.keeper.port()).to_string();
    let client = kube::Client::try_default().await.context("no way to the API server is configured")?;
    let (config, configured) = watch::channel(None);
    let (opened, catalog) = watch::channel(None);
    let options = OperatorOptions {
        client,
        namespace: command.namespace,
        watch_all_namespaces: command.watch_all_namespaces,
        pod: command.pod,
        release: command.release,
        images: Images {
            product: command.image,
            catalog: command.catalog_image,
            pull_policy: command.pull_policy,
            pull_secrets: command.pull_secrets.into_iter().filter(|name| !name.is_empty()).collect(),
            resources: serde_json::from_str(&command.resources).context("DIPTYCH_RESOURCES is no JSON")?,
        },
        join: command.join,
        health: command.health,
        folder: command.folder,
        mirror: command.mirror,
        site: SiteLink { config, catalog },
        at_edge: Arc::new(CloudflareLeftovers),
    };
    let shutdown = CancellationToken::new();
    let of_api_server = diptych_operator::join::site::router(options.clone())
        .merge(diptych_operator::review::router(options.clone()));
    let process = Process { listener, holder, of_api_server };
    tokio::select! {
        ended = diptych_operator::run(options, shutdown) => Ok(ended?),
        () = site(configured, &opened, &process) => Ok(()),
        () = told_to_end() => Ok(()),
    }
}

/// Runs the keeper and the loops with the newest configuration, for ever.
async fn site(
    configured: watch::Receiver<Option<PodConfig>>,
    opened: &watch::Sender<Option<Arc<dyn Catalog>>>,
    process: &Process,
) {
    loop {
        let mut changes = configured.clone();
        let Ok(Some(config)) = changes.wait_for(Option::is_some).await.map(|config| config.clone()) else {
            return;
        };
        let is_of_another_keeper =
            |new: &Option<PodConfig>| new.as_ref().is_some_and(|new| !new.keeps_keeper_of(&config));
        tokio::select! {
            biased;
            changed = changes.wait_for(is_of_another_keeper) => {
                if changed.is_err() {
                    return;
                }
                tracing::warn!("the lease's times, or the way to the other site or the catalog, are new: the keeper begins anew");
            }
            // A catalog whose endpoints changed is opened anew, so it is let go of first: the mirror's file has one user.
            () = with_catalog(&config, &configured, opened, process) => {}
        }
        opened.send_replace(None);
        tokio::time::sleep(AGAIN).await;
    }
}

async fn with_catalog(
    config: &PodConfig,
    configured: &watch::Receiver<Option<PodConfig>>,
    opened: &watch::Sender<Option<Arc<dyn Catalog>>>,
    process: &Process,
) {
    let catalog = match open_catalog(config).await {
        Ok(catalog) => catalog,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the catalog can't be opened");
            return;
        }
    };
    opened.send_replace(Some(Arc::clone(&catalog)));
    loop {
        match Box::pin(loops::run(process, configured.clone(), &catalog)).await {
            Ok(()) => tracing::warn!("a loop of the site ended: all begin anew"),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the site's loops ended and begin anew");
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
