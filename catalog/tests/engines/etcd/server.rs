//! A real etcd on free ports of this machine, killed with its guard.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use diptych_catalog::{Catalog, CatalogError, EtcdCatalog, EtcdOptions, EtcdTls};

use crate::east;

const DEADLINE: Duration = Duration::from_secs(30);

/// The program: `DIPTYCH_ETCD`, or where the node image's build puts it.
fn program() -> PathBuf {
    let built =
        || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/diptych/kind/bin/etcd");
    let program = std::env::var_os("DIPTYCH_ETCD").map_or_else(built, PathBuf::from);
    let hint = "run `kind-config/node-image/build tools`, or set DIPTYCH_ETCD to an etcd 3.6";
    assert!(program.is_file(), "there is no etcd at {}: {hint}", program.display());
    program
}

/// Files of certificates that etcd serves with.
pub(crate) struct ServerTls {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// One member.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    tls: Option<ServerTls>,
    client_port: u16,
    peer_port: u16,
    process: Child,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), None)
    }

    pub(crate) fn start_with(folder: tempfile::TempDir, tls: Option<ServerTls>) -> Self {
        let [client_port, peer_port] = free_ports();
        let process = run_alone(folder.path(), tls.as_ref(), client_port, peer_port).spawn().unwrap();
        Self { folder, tls, client_port, peer_port, process }
    }

    /// One that takes so many bytes.
    pub(crate) fn start_small(quota: u64) -> Self {
        let (folder, [client_port, peer_port]) = (tempfile::tempdir().unwrap(), free_ports());
        let mut command = run_alone(folder.path(), None, client_port, peer_port);
        let process = command.arg(format!("--quota-backend-bytes={quota}")).spawn().unwrap();
        Self { folder, tls: None, client_port, peer_port, process }
    }

    /// Three members of one cluster.
    pub(crate) fn cluster() -> [Self; 3] {
        let ports = [(); 3].map(|()| free_ports());
        let peers = ports.map(|[_, peer]| (format!("m{peer}"), peer));
        let initial: Vec<String> =
            peers.iter().map(|(name, port)| format!("{name}=http://127.0.0.1:{port}")).collect();
        let initial = initial.join(",");
        ports.map(|[client_port, peer_port]| {
            let folder = tempfile::tempdir().unwrap();
            let name = format!("m{peer_port}");
            let process = run(folder.path(), None, client_port, peer_port, &name, &initial).spawn().unwrap();
            Self { folder, tls: None, client_port, peer_port, process }
        })
    }

    /// Freezes it: its connections stay open, and nothing answers.
    pub(crate) fn freeze(&self) {
        let frozen = Command::new("kill").args(["-STOP", &self.process.id().to_string()]).status();
        assert!(frozen.unwrap().success());
    }

    /// Stops it by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on the same ports, with what it had.
    pub(crate) fn restart(&mut self) {
        let mut command = run_alone(self.folder.path(), self.tls.as_ref(), self.client_port, self.peer_port);
        self.process = command.spawn().unwrap();
    }

    /// Removes all that it has.
    pub(crate) fn wipe(&self) {
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
    }

    pub(crate) fn mirror(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("mirror-{name}"))
    }

    pub(crate) fn options(&self, mirror: &str) -> EtcdOptions {
        EtcdOptions::new(vec![self.url()], self.mirror(mirror))
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
    }

    /// A process of its own, as far as the catalog can tell.
    pub(crate) async fn connect(&mut self, mirror: &str) -> EtcdCatalog {
        self.connect_with(self.options(mirror)).await
    }

    pub(crate) async fn connect_tls(&mut self, mirror: &str, tls: EtcdTls) -> EtcdCatalog {
        self.connect_with(EtcdOptions { tls: Some(tls), ..self.options(mirror) }).await
    }

    /// Until etcd has started, and the mirror's last user has let go of it.
    pub(crate) async fn connect_with(&mut self, options: EtcdOptions) -> EtcdCatalog {
        let begun = Instant::now();
        loop {
            let error = match EtcdCatalog::connect(east(), options.clone()).await {
                Ok(catalog) => return catalog,
                Err(error) => error,
            };
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("etcd ended with {status}: {}", self.log());
            }
            assert!(begun.elapsed() < DEADLINE, "{error}; etcd says: {}", self.log());
            tokio::task::yield_now().await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed by its test.
        let _: Result<(), _> = self.process.kill();
        let _: Result<_, _> = self.process.wait();
    }
}

/// Waits until etcd answers again.
pub(crate) async fn answering(catalog: &dyn Catalog) {
    let begun = Instant::now();
    while let Err(error) = catalog.view().await.map(drop) {
        assert!(matches!(error, CatalogError::Unavailable { .. }), "{error}");
        assert!(begun.elapsed() < DEADLINE, "{error}");
        tokio::task::yield_now().await;
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn run_alone(folder: &Path, tls: Option<&ServerTls>, client_port: u16, peer_port: u16) -> Command {
    let initial = format!("default=http://127.0.0.1:{peer_port}");
    run(folder, tls, client_port, peer_port, "default", &initial)
}

fn run(
    folder: &Path,
    tls: Option<&ServerTls>,
    client_port: u16,
    peer_port: u16,
    name: &str,
    cluster: &str,
) -> Command {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let client = format!("{scheme}://127.0.0.1:{client_port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(program());
    command.arg("--data-dir").arg(folder.join("data"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--name", name, "--initial-cluster", cluster, "--log-level", "error"]);
    if let Some(tls) = tls {
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.authority);
        command.arg("--cert-file").arg(&tls.certificate).arg("--key-file").arg(&tls.key);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}
