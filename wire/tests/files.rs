//! Certificates in files that change while a process runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use diptych_core::ids::ClusterId;
use diptych_wire::authority::{Authority, Issued, Request};
use diptych_wire::files::{Followed, IdentityFiles, credentials, public_server_config};
use diptych_wire::identity::{Expected, Identity, Role};
use diptych_wire::tls::{Credentials, no_name};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;

const CLUSTER: ClusterId = ClusterId([3; 16]);
const LOOK: Duration = Duration::from_millis(2);
const DEADLINE: Duration = Duration::from_secs(20);

/// A Secret as the kubelet mounts it: entries are links through `..data`, which is swapped whole.
struct Mounted {
    folder: tempfile::TempDir,
    authority: Authority,
    swaps: u32,
}

impl Mounted {
    fn new() -> (Self, Issued) {
        let authority = Authority::create(CLUSTER).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(Path::new("..data").join(name), folder.path().join(name))
                .expect("a link");
        }
        let mut mounted = Self { folder, authority, swaps: 0 };
        let first = mounted.issue();
        mounted.swap(&first.chain_pem(), &first.key_pem());
        (mounted, first)
    }

    fn issue(&self) -> Issued {
        let identity = Identity {
            cluster: CLUSTER,
            site: "east".parse().expect("a name"),
            role: Role::Gateway,
            name: "gateway".to_owned(),
        };
        self.authority.issue(&Request::new(identity, Duration::from_hours(1))).expect("a certificate")
    }

    fn swap(&mut self, certificate: &str, key: &str) {
        self.swaps += 1;
        let version = format!("..{}", self.swaps);
        let folder = self.path(&version);
        std::fs::create_dir(&folder).expect("a folder");
        let entries = [
            ("ca.crt", self.authority.certificate_pem()),
            ("tls.crt", certificate.into()),
            ("tls.key", key.into()),
        ];
        for (name, text) in entries {
            std::fs::write(folder.join(name), text).expect("an entry");
        }
        let link = self.path("..data_tmp");
        std::os::unix::fs::symlink(version, &link).expect("a link");
        std::fs::rename(link, self.path("..data")).expect("swapped");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn files(&self) -> IdentityFiles {
        IdentityFiles {
            authority: self.path("ca.crt"),
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
        }
    }

    fn followed(&self) -> Followed {
        Followed::open(&self.files()).expect("they are read").each(LOOK)
    }

    /// Waits until whoever follows the files has had time for some looks at what they hold now.
    async fn looked_at(&self) {
        let looks = Arc::new(AtomicU32::new(0));
        let count = |looks: Arc<AtomicU32>, _| {
            looks.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Err::<(), _>("it only counts"))
        };
        let files = IdentityFiles { authority: self.path("counted"), ..self.files() };
        std::fs::write(&files.authority, "").expect("written");
        Followed::open(&files).expect("they are read").each(LOOK).give(&looks, count);
        std::fs::write(&files.authority, "another").expect("written");
        until(|| looks.load(Ordering::Relaxed) > 5).await;
    }
}

/// The certificate that a listener shows to a new connection.
fn shown(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> CertificateDer<'static> {
    let mut client = ClientConnection::new(client.clone(), no_name()).expect("a client");
    let mut server = ServerConnection::new(server.clone()).expect("a server");
    while client.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("into memory");
        server.read_tls(&mut &bytes[..]).expect("from memory");
        server.process_new_packets().expect("fine with the client");
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).expect("into memory");
        client.read_tls(&mut &bytes[..]).expect("from memory");
        client.process_new_packets().expect("fine with the server");
    }
    client.peer_certificates().and_then(<[_]>::first).expect("a certificate").clone().into_owned()
}

async fn until(wanted: impl Fn() -> bool) {
    let begun = Instant::now();
    while !wanted() {
        assert!(begun.elapsed() < DEADLINE, "it never came");
        tokio::task::yield_now().await;
    }
}

fn client_of(own: &Credentials) -> Arc<ClientConfig> {
    own.client_config(Expected::any_of(CLUSTER), &[]).expect("a configuration")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_secret_is_used_by_new_connections_of_open_listeners() {
    let (mut mounted, first) = Mounted::new();
    let own = credentials(mounted.followed()).expect("an identity");
    let internal = own.server_config(Expected::any_of(CLUSTER), &[]).expect("a configuration");
    let joins = own.open_server_config().expect("a configuration");
    let public = public_server_config(mounted.followed()).expect("a configuration");
    // The listeners hold what they need.
    drop(own);
    let client = client_of(&Credentials::new(&mounted.issue()).expect("credentials"));
    for listener in [&internal, &joins, &public] {
        assert_eq!(shown(listener, &client), first.chain[0]);
    }
    let second = mounted.issue();
    mounted.swap(&second.chain_pem(), &second.key_pem());
    for listener in [&internal, &joins, &public] {
        until(|| shown(listener, &client) == second.chain[0]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_does_not_fit_leaves_the_old_one_in_use_until_a_whole_one_comes() {
    let (mut mounted, first) = Mounted::new();
    let own = credentials(mounted.followed()).expect("an identity");
    let listener = own.server_config(Expected::any_of(CLUSTER), &[]).expect("a configuration");
    let public = public_server_config(mounted.followed()).expect("a configuration");
    let client = client_of(&Credentials::new(&mounted.issue()).expect("credentials"));
    let second = mounted.issue();
    let (chain, key) = (second.chain_pem(), second.key_pem());
    for (certificate, key) in
        [(&chain[..], &first.key_pem()[..]), (&chain[..chain.len() / 3], &key), ("", ""), (&chain, "")]
    {
        mounted.swap(certificate, key);
        mounted.looked_at().await;
        assert_eq!(shown(&listener, &client), first.chain[0]);
        assert_eq!(shown(&public, &client), first.chain[0]);
    }
    std::fs::remove_file(mounted.path("..data")).expect("removed");
    mounted.swap(&chain, &key);
    until(|| shown(&listener, &client) == second.chain[0]).await;
    until(|| shown(&public, &client) == second.chain[0]).await;
}
