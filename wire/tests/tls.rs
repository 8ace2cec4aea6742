//! mTLS between two processes of a cluster: who is let in, what the others are told, and renewal while it runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diptych_core::ids::ClusterId;
use diptych_wire::authority::{Authority, Issued, Request, signing_request};
use diptych_wire::identity::{Expected, Identity, Role};
use diptych_wire::tls::{Credentials, TlsError, identity_of, no_name, peer_identity};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, UnixTime};

const CLUSTER: ClusterId = ClusterId([3; 16]);
const HOUR: Duration = Duration::from_hours(1);

fn identity(role: Role, name: &str) -> Identity {
    Identity { cluster: CLUSTER, site: "east".parse().expect("a name"), role, name: name.to_owned() }
}

fn issue(authority: &Authority, role: Role, name: &str) -> Issued {
    authority.issue(&Request::new(identity(role, name), HOUR)).expect("a certificate")
}

fn credentials(authority: &Authority, role: Role, name: &str) -> Credentials {
    Credentials::new(&issue(authority, role, name)).expect("credentials")
}

/// A handshake in memory: who the server saw, or the first error of either side.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Identity, rustls::Error> {
    let server = connected(client, server)?;
    Ok(peer_identity(&server).expect("the client's identity"))
}

/// The certificate that the client shows.
fn shown(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> CertificateDer<'static> {
    let server = connected(client, server).expect("a connection");
    server.peer_certificates().and_then(<[_]>::first).expect("the client's certificate").clone().into_owned()
}

/// The server's end.
fn connected(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<ServerConnection, rustls::Error> {
    let mut client = ClientConnection::new(client, no_name()).expect("a client");
    let mut server = ServerConnection::new(server).expect("a server");
    for _ in 0..10 {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("into memory");
        server.read_tls(&mut &bytes[..]).expect("from memory");
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        server.write_tls(&mut bytes).expect("into memory");
        client.read_tls(&mut &bytes[..]).expect("from memory");
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking(), "the handshake stands still");
    Ok(server)
}

fn pair(client: &Credentials, expected: Expected, server: &Credentials) -> Result<Identity, rustls::Error> {
    let client = client.client_config(expected, &[]).expect("a configuration");
    let server = server.server_config(Expected::any_of(CLUSTER), &[]).expect("a configuration");
    handshake(client, server)
}

#[test]
fn both_sides_learn_who_the_other_one_is() {
    let authority = Authority::create(CLUSTER).expect("an authority");
    let gateway = credentials(&authority, Role::Gateway, "gw-0");
    let agent = credentials(&authority, Role::Agent, "n1");
    let expected = Expected::agent(CLUSTER, "east".parse().expect("a name"), "n1");
    assert_eq!(pair(&gateway, expected, &agent), Ok(identity(Role::Gateway, "gw-0")));
}

#[test]
fn an_agent_of_another_node_is_refused_by_name() {
    let authority = Authority::create(CLUSTER).expect("an authority");
    let gateway = credentials(&authority, Role::Gateway, "gw-0");
    let agent = credentials(&authority, Role::Agent, "n2");
    let expected = Expected::agent(CLUSTER, "east".parse().expect("a name"), "n1");
    let error = pair(&gateway, expected, &agent).expect_err("it is n2").to_string();
    assert!(error.contains("/east/agent/n2, expected was name n1"), "{error}");
}

#[test]
fn another_authority_is_named_with_both_fingerprints() {
    let (ours, theirs) =
        (Authority::create(CLUSTER).expect("one"), Authority::create(CLUSTER).expect("another"));
    let gateway = credentials(&ours, Role::Gateway, "gw-0");
    let agent = credentials(&theirs, Role::Agent, "n1");
    let error = pair(&gateway, Expected::any_of(CLUSTER), &agent).expect_err("another authority").to_string();
    assert!(error.contains("from another authority"), "{error}");
    assert!(error.contains(&ours.fingerprint()) && error.contains(&theirs.fingerprint()), "{error}");
}

#[test]
fn a_certificate_of_another_cluster_under_the_same_authority_is_refused() {
    let authority = Authority::create(CLUSTER).expect("an authority");
    let foreign = Identity { cluster: ClusterId([4; 16]), ..identity(Role::Gateway, "gw-0") };
    let issued = authority.issue(&Request::new(foreign, HOUR)).expect("a certificate");
    let foreign = Credentials::new(&issued).expect("credentials");
    let agent = credentials(&authority, Role::Agent, "n1");
    assert!(pair(&foreign, Expected::any_of(CLUSTER), &agent).is_err());
}

#[test]
fn a_renewed_certificate_serves_without_a_new_configuration() {
    let authority = Authority::create(CLUSTER).expect("an authority");
    let gateway = credentials(&authority, Role::Gateway, "gw-0");
    let agent = credentials(&authority, Role::Agent, "n1");
    let client = gateway.client_config(Expected::any_of(CLUSTER), &[]).expect("a configuration");
    let server = agent.server_config(Expected::any_of(CLUSTER), &[]).expect("a configuration");
    let renewed = issue(&authority, Role::Gateway, "gw-0");
    assert_ne!(shown(client.clone(), server.clone()), renewed.chain[0]);
    gateway.replace(&renewed).expect("it is taken");
    assert_eq!(shown(client, server), renewed.chain[0]);
}

#[test]
fn what_is_no_renewal_is_refused() {
    let (own, other) = (Authority::create(CLUSTER).expect("own"), Authority::create(CLUSTER).expect("other"));
    let gateway = credentials(&own, Role::Gateway, "gw-0");
    let of_another = gateway.replace(&issue(&own, Role::Gateway, "gw-1")).expect_err("it is another's");
    assert!(of_another.to_string().contains("gw-1"), "{of_another}");
    let foreign = gateway.replace(&issue(&other, Role::Gateway, "gw-0"));
    assert!(matches!(foreign, Err(TlsError::OtherAuthority { .. })), "{foreign:?}");
    let over = own.issue(&Request::new(identity(Role::Gateway, "gw-0"), Duration::ZERO)).expect("issued");
    // Its last second is the one that it was made in.
    let over = loop {
        match gateway.replace(&over) {
            Ok(()) => std::thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert!(over.to_string().contains("xpired"), "{over}");
    let mut pretends = issue(&other, Role::Gateway, "gw-0");
    pretends.chain[1] = own.certificate().clone();
    gateway.replace(&pretends).expect_err("the authority has not signed it");
    let mixed = Issued { chain: issue(&own, Role::Gateway, "gw-0").chain, key: pretends.key };
    gateway.replace(&mixed).expect_err("the key is of another certificate");
}

#[test]
fn authority_and_certificates_survive_their_pem() {
    let authority = Authority::create(CLUSTER).expect("an authority");
    let again =
        Authority::from_pem(&authority.certificate_pem(), &authority.key_pem()).expect("it reads back");
    assert_eq!(again.fingerprint(), authority.fingerprint());
    let issued = issue(&again, Role::Gateway, "gw-0");
    let issued = Issued::from_pem(&issued.chain_pem(), &issued.key_pem()).expect("it reads back");
    let gateway = Credentials::new(&issued).expect("credentials");
    let agent = credentials(&authority, Role::Agent, "n1");
    pair(&gateway, Expected::any_of(CLUSTER), &agent).expect("both are of one authority");
}

#[test]
fn a_signing_request_gets_the_identity_that_the_signer_gives_it() {
    let authority = Authority::create(CLUSTER).expect("an authority");
    let (key, csr) = signing_request().expect("a request");
    let chain =
        authority.sign(&csr, &Request::new(identity(Role::Agent, "n7"), HOUR)).expect("a certificate");
    assert_eq!(identity_of(&chain[0]).expect("it has one"), identity(Role::Agent, "n7"));
    let pem = Issued { chain, key: issue(&authority, Role::Agent, "x").key }.chain_pem();
    let issued = Issued::from_pem(&pem, &key).expect("they fit");
    let agent = Credentials::new(&issued).expect("credentials");
    pair(&credentials(&authority, Role::Gateway, "gw-0"), Expected::any_of(CLUSTER), &agent)
        .expect("it is trusted");
}

#[test]
fn a_certificate_without_our_uri_has_no_identity() {
    let authority = Authority::create(CLUSTER).expect("an authority");
    assert!(matches!(identity_of(authority.certificate()), Err(TlsError::NoIdentity(_))));
}

/// A clock that is two hours ahead.
#[derive(Debug)]
struct Later;

impl TimeProvider for Later {
    fn current_time(&self) -> Option<UnixTime> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(now + 2 * HOUR))
    }
}

#[test]
fn a_certificate_that_has_run_out_is_refused() {
    let authority = Authority::create(CLUSTER).expect("an authority");
    let (gateway, agent) =
        (credentials(&authority, Role::Gateway, "gw-0"), credentials(&authority, Role::Agent, "n1"));
    let client = gateway.client_config(Expected::any_of(CLUSTER), &[]).expect("a configuration");
    let server = agent.server_config(Expected::any_of(CLUSTER), &[]).expect("a configuration");
    let mut later = ClientConfig::clone(&client);
    later.time_provider = Arc::new(Later);
    let error = handshake(Arc::new(later), server.clone()).expect_err("it ran out an hour ago");
    assert!(error.to_string().contains("expired"), "{error}");
    handshake(client, server).expect("today it is good");
}
