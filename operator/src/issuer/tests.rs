//! Against a stand-in: an API server that keeps CertificateRequests and answers them as cert-manager's documentation says.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use diptych_wire::authority::Issued;
use http_body_util::Full;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::secrets::{Foundation, certificates};

const DAY: i64 = 24 * 3600;

/// An authority that is none of ours.
struct Company {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Company {
    fn new(name: &str, above: Option<&Self>) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let made = match above {
            Some(above) => params.signed_by(&key, &above.issuer),
            None => params.self_signed(&key),
        };
        Self { pem: made.expect("a certificate").pem(), issuer: Issuer::new(params, key) }
    }
}

/// What an issuer keeps of a request.
type Policy = fn(&mut CertificateParams);

/// The whole of it, and for servers and clients.
fn everything(params: &mut CertificateParams) {
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
}

/// Status of a request that is signed for as many days.
fn signed(company: &Company, request: &Value, days: i64, policy: Policy) -> Value {
    let csr = STANDARD.decode(request["spec"]["request"].as_str().expect("a request")).expect("base64");
    let mut csr = CertificateSigningRequestParams::from_pem(std::str::from_utf8(&csr).expect("text"))
        .expect("it is signed by its key");
    csr.params.not_before = OffsetDateTime::now_utc();
    csr.params.not_after = csr.params.not_before + time::Duration::days(days);
    policy(&mut csr.params);
    let certificate = csr.signed_by(&company.issuer).expect("it signs").pem();
    json!({"certificate": STANDARD.encode(certificate), "ca": STANDARD.encode(&company.pem),
        "conditions": [condition("Approved", "True", "cert-manager.io", ""), condition("Ready", "True", "Issued", "")]})
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

/// A site that declares an issuer, and its gateway's certificate.
struct Site {
    names: Names,
    foundation: Foundation,
    certificate: Certificate,
    issuer: IssuerRef,
}

impl Site {
    fn new() -> Self {
        diptych_wire::tls::install_provider();
        let (names, foundation) = (Names::for_tests(), Foundation::create().expect("it is made"));
        let site = "east".parse().expect("a name");
        let all = certificates(&names, foundation.cluster, &site, Some("files.example.com"));
        let mut all = all.into_iter().filter(Certificate::may_be_issued);
        let certificate = all.find(|certificate| !certificate.dns_names.is_empty()).expect("the gateway's");
        let issuer = IssuerRef {
            name: "company".to_owned(),
            kind: "Issuer".to_owned(),
            group: "cert-manager.io".to_owned(),
        };
        Self { names, foundation, certificate, issuer }
    }

    fn at(&self, secret: Option<&Secret>, requests: &Result<Requests, Unavailable>, now: Timestamp) -> Step {
        let (of, by) = ((&self.certificate, secret), (&self.issuer, requests));
        step(&self.names, of, by, &self.foundation.authority, now).expect("it can be built")
    }

    fn step(&self, secret: &Secret, requests: &Result<Requests, Unavailable>) -> Step {
        self.at(Some(secret), requests, Timestamp::now())
    }

    /// The Secret that the cluster's own authority fills, and the request that follows.
    fn begun(&self) -> (Secret, Value) {
        let Step::Own(own) = self.at(None, &NONE, Timestamp::now()) else { panic!("there is none yet") };
        let own = as_secret(&own);
        let Step::Ask(request) = self.step(&own, &NONE) else { panic!("it is not asked for yet") };
        (own, request.body)
    }

    /// What is done about an answer with this status.
    fn answered(&self, status: Value) -> Step {
        let (own, request) = self.begun();
        self.step(&own, &Ok(with_status(request, status)))
    }

    /// Why what an issuer signed is not taken.
    fn refused(&self, company: &Company, days: i64, policy: Policy) -> Waits {
        let (own, request) = self.begun();
        let status = signed(company, &request, days, policy);
        match self.step(&own, &Ok(with_status(request, status))) {
            Step::Wait(waits) => waits,
            other => panic!("it was taken: {other:?}"),
        }
    }

    /// Whether somebody who trusts the cluster's authority and no other takes the chain of a Secret.
    fn everybody_takes(&self, secret: &Secret) -> bool {
        let chain = chain_of(secret);
        let mut roots = RootCertStore::empty();
        roots.add(self.foundation.authority.certificate().clone()).expect("an anchor");
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
        verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::now()).is_ok()
    }
}

/// Nothing was asked yet.
const NONE: Result<Requests, Unavailable> = Ok(Requests::new());

fn as_secret(child: &Child) -> Secret {
    serde_json::from_value(child.body.clone()).expect("a Secret")
}

fn entry(secret: &Secret, key: &str) -> String {
    crate::secrets::texts(secret).remove(key).expect("it is there")
}

fn chain_of(secret: &Secret) -> Vec<CertificateDer<'static>> {
    Issued::from_pem(&entry(secret, "tls.crt"), &entry(secret, "tls.key")).expect("it reads").chain
}

fn with_status(mut request: Value, status: Value) -> Requests {
    let name = request["metadata"]["name"].as_str().expect("a name").to_owned();
    request["status"] = status;
    [(name, serde_json::from_value(request).expect("an object"))].into()
}

#[test]
fn the_issuers_certificate_is_for_the_same_key_and_whoever_trusts_the_cluster_takes_it() {
    let (site, company) = (Site::new(), Company::new("Example Issuing CA", None));
    let (own, request) = site.begun();
    assert_eq!(
        request["spec"]["issuerRef"],
        json!({"name": "company", "kind": "Issuer", "group": "cert-manager.io"})
    );
    let requests = Ok(with_status(request.clone(), signed(&company, &request, 90, everything)));
    let Step::Take(taken) = site.step(&own, &requests) else { panic!("it was signed") };
    let taken = as_secret(&taken);
    assert_eq!(entry(&taken, "tls.key"), entry(&own, "tls.key"));
    assert_eq!((chain_of(&own).len(), chain_of(&taken).len()), (2, 3));
    assert!(site.everybody_takes(&taken));
    assert!(matches!(site.step(&taken, &NONE), Step::Keep));
    let authority = &site.foundation.authority;
    assert!(
        !site.certificate.is_good(&taken, authority, Timestamp::now().as_second()),
        "without an issuer it is the cluster's own again"
    );
}

#[test]
fn an_issuer_below_a_companys_root_is_vouched_for_and_its_root_is_not() {
    let (site, root) = (Site::new(), Company::new("Example Root", None));
    let below = Company::new("Example Issuing CA", Some(&root));
    let (own, request) = site.begun();
    let mut status = signed(&below, &request, 90, everything);
    let certificate = STANDARD.decode(status["certificate"].as_str().expect("text")).expect("base64");
    let chain = String::from_utf8(certificate).expect("text") + &below.pem;
    status["certificate"] = STANDARD.encode(chain).into();
    status["ca"] = STANDARD.encode(&root.pem).into();
    let Step::Take(taken) = site.step(&own, &Ok(with_status(request, status))) else {
        panic!("it was signed")
    };
    assert!(site.everybody_takes(&as_secret(&taken)));
    assert_eq!(chain_of(&as_secret(&taken)).len(), 3);
}

#[test]
fn it_is_asked_again_when_a_third_is_left_and_the_cluster_signs_itself_when_a_sixth_is() {
    let (site, company) = (Site::new(), Company::new("Example Issuing CA", None));
    let (own, request) = site.begun();
    let first = request["metadata"]["name"].clone();
    let requests = Ok(with_status(request.clone(), signed(&company, &request, 90, everything)));
    let Step::Take(taken) = site.step(&own, &requests) else { panic!("it was signed") };
    let taken = as_secret(&taken);
    let after =
        |days: i64| Timestamp::from_second(Timestamp::now().as_second() + days * DAY).expect("a time");
    assert!(matches!(site.at(Some(&taken), &NONE, after(59)), Step::Keep));
    let Step::Ask(next) = site.at(Some(&taken), &NONE, after(61)) else { panic!("a third is left") };
    assert_ne!(next.body["metadata"]["name"], first);
    let gone = Err(Unavailable::NotInstalled);
    assert!(matches!(site.at(Some(&taken), &gone, after(61)), Step::Wait(_)), "it has time");
    assert!(matches!(site.at(Some(&taken), &gone, after(76)), Step::Own(_)), "it has none");
}

#[test]
fn another_issuer_is_asked_at_once_and_the_certificate_in_use_stays_until_it_answers() {
    let (mut site, company) = (Site::new(), Company::new("Example Issuing CA", None));
    let (own, request) = site.begun();
    let requests = Ok(with_status(request.clone(), signed(&company, &request, 90, everything)));
    let Step::Take(taken) = site.step(&own, &requests) else { panic!("it was signed") };
    "another".clone_into(&mut site.issuer.name);
    let Step::Ask(next) = site.step(&as_secret(&taken), &requests) else { panic!("it is another's") };
    assert_eq!(next.body["spec"]["issuerRef"]["name"], "another");
}

#[test]
fn what_an_issuer_drops_or_gets_wrong_is_named_and_never_taken() {
    let (site, company) = (Site::new(), Company::new("Example Issuing CA", None));
    let no_uri: Policy = |params| {
        everything(params);
        params.subject_alt_names.retain(|name| !matches!(name, SanType::URI(_)));
    };
    let no_dns: Policy = |params| {
        everything(params);
        params.subject_alt_names.retain(|name| !matches!(name, SanType::DnsName(_)));
    };
    let no_clients: Policy = |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for (policy, reason, says) in [
        (no_uri, "IdentityDropped", "have the issuer keep URI names"),
        (no_dns, "NamesDropped", "files.example.com"),
        (no_clients, "UsagesDropped", "server auth and client auth"),
    ] {
        let waits = site.refused(&company, 90, policy);
        assert_eq!(waits.reason, reason);
        assert!(waits.message.contains(says) && waits.request.is_some(), "{waits:?}");
    }
    assert_eq!(site.refused(&company, -1, everything).reason, "CertificateUnusable", "it is over");

    let (own, request) = site.begun();
    let (_, anothers) = Site::new().begun();
    let status = signed(&company, &anothers, 90, everything);
    let Step::Wait(waits) = site.step(&own, &Ok(with_status(request.clone(), status))) else {
        panic!("it is another's")
    };
    assert_eq!(waits.reason, "IdentityDropped");
    let mut status = signed(&company, &request, 90, everything);
    status["ca"] = Value::Null;
    let Step::Wait(waits) = site.step(&own, &Ok(with_status(request, status))) else { panic!("who signed?") };
    assert_eq!(waits.reason, "AuthorityUnknown");
}

#[test]
fn each_answer_of_cert_manager_is_a_reason_and_a_refusal_is_asked_again_after_an_hour() {
    let site = Site::new();
    let missing = "Referenced \"Issuer\" not found: issuer.cert-manager.io \"company\" not found";
    let cases = [
        (json!({}), "IssuerPending", true),
        (
            json!({"conditions": [condition("Approved", "True", "p", ""), condition("Ready", "False", "Pending", "waiting")]}),
            "IssuerPending",
            true,
        ),
        (json!({"conditions": [condition("Ready", "False", "Pending", missing)]}), "IssuerNotFound", true),
        (json!({"conditions": [condition("Denied", "True", "policy", "no URI")]}), "RequestDenied", false),
        (
            json!({"conditions": [condition("InvalidRequest", "True", "p", "too long")]}),
            "RequestInvalid",
            false,
        ),
        (json!({"conditions": [condition("Ready", "False", "Failed", "vault: 400")]}), "IssuerFailed", false),
    ];
    for (status, reason, stays) in cases {
        let Step::Wait(waits) = site.answered(status.clone()) else { panic!("{status}") };
        assert_eq!(waits.reason, reason);
        assert!(waits.request.is_some(), "it may be looked at: {waits:?}");
        let (own, mut request) = site.begun();
        let made = Timestamp::now().as_second() - 2 * 3600;
        request["metadata"]["creationTimestamp"] =
            Timestamp::from_second(made).expect("a time").to_string().into();
        let Step::Wait(waits) = site.step(&own, &Ok(with_status(request, status.clone()))) else {
            panic!("{status}")
        };
        assert_eq!(waits.request.is_some(), stays, "after two hours: {waits:?}");
    }
}

/// The stand-in: the objects of an API server by name, or what it answers instead.
#[derive(Clone)]
struct ApiServer {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    refuses: Option<u16>,
}

impl ApiServer {
    fn new(refuses: Option<u16>) -> Self {
        Self { objects: Arc::default(), refuses }
    }

    fn client(&self) -> kube::Client {
        let server = self.clone();
        let answer = move |request: http::Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        };
        kube::Client::new(tower::service_fn(answer), "diptych")
    }

    async fn answer(&self, request: http::Request<kube::client::Body>) -> http::Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.expect("a body");
        let reply = |status: u16, body: &Value| {
            let answer = http::Response::builder().status(status).header("content-type", "application/json");
            answer.body(Full::new(Bytes::from(body.to_string()))).expect("an answer")
        };
        if let Some(status) = self.refuses {
            return reply(
                status,
                &json!({"kind": "Status", "code": status, "status": "Failure", "reason": "R", "message": "no"}),
            );
        }
        let path = parts.uri.path();
        let all = "/apis/cert-manager.io/v1/namespaces/diptych/certificaterequests";
        let name = path.strip_prefix(all).expect("nothing else is asked").trim_start_matches('/').to_owned();
        let mut objects = self.objects.lock().expect("a lock");
        match parts.method {
            http::Method::GET => {
                let items: Vec<&Value> = objects.values().collect();
                reply(
                    200,
                    &json!({"apiVersion": "cert-manager.io/v1", "kind": "CertificateRequestList", "metadata": {}, "items": items}),
                )
            }
            http::Method::PATCH => {
                let object: Value = serde_json::from_slice(&body).expect("an object");
                objects.insert(name, object.clone());
                reply(201, &object)
            }
            http::Method::DELETE => {
                let object = objects.remove(&name).expect("it is there");
                reply(200, &object)
            }
            other => panic!("{other} is never asked"),
        }
    }

    /// The issuer answers all that is asked.
    fn answers(&self, answer: impl Fn(&Value) -> Value) {
        for object in self.objects.lock().expect("a lock").values_mut() {
            object["status"] = answer(object);
        }
    }
}

/// One look: the Secret as it is from now on, and the condition.
async fn look(site: &Site, server: &ApiServer, secret: Option<Secret>) -> (Secret, Says) {
    let client = server.client();
    let seen = requests(&client, &site.names).await;
    let mut planned = Planned::of(&site.issuer);
    let step = site.at(secret.as_ref(), &seen, Timestamp::now());
    let made = planned.note(&site.certificate, step).map(|child| as_secret(&child));
    planned.carry_out(&client, &site.names, Some(&seen)).await;
    (made.or(secret).expect("there is one from the first look on"), planned.says())
}

#[tokio::test]
async fn look_by_look_a_certificate_becomes_the_issuers_and_its_request_goes() {
    let (site, company, server) =
        (Site::new(), Company::new("Example Issuing CA", None), ApiServer::new(None));
    let (secret, says) = look(&site, &server, None).await;
    assert_eq!((says.kind, says.holds, says.reason.as_str()), ("CertificatesIssued", Some(false), "Asked"));
    let (secret, _) = look(&site, &server, Some(secret)).await;
    let (secret, says) = look(&site, &server, Some(secret)).await;
    assert_eq!((says.reason.as_str(), server.objects.lock().expect("a lock").len()), ("IssuerPending", 1));
    server.answers(|request| signed(&company, request, 90, everything));
    let (secret, says) = look(&site, &server, Some(secret)).await;
    assert_eq!((says.holds, says.reason.as_str()), (Some(true), "Issued"));
    assert!(site.everybody_takes(&secret));
    let (after, says) = look(&site, &server, Some(secret.clone())).await;
    assert_eq!((&after, says.holds), (&secret, Some(true)));
    assert!(server.objects.lock().expect("a lock").is_empty());
}

#[tokio::test]
async fn without_cert_manager_or_the_right_to_ask_the_clusters_own_certificate_is_used_and_the_condition_says_why()
 {
    for (status, reason, what) in
        [(404, "CertManagerMissing", "install cert-manager"), (403, "Forbidden", "certManager.enabled")]
    {
        let (site, server) = (Site::new(), ApiServer::new(Some(status)));
        let (own, _) = look(&site, &server, None).await;
        let (secret, says) = look(&site, &server, Some(own.clone())).await;
        assert_eq!((&secret, says.reason.as_str()), (&own, reason));
        assert!(
            says.message.contains(what) && says.message.contains("those in use stay"),
            "{}",
            says.message
        );
    }
}
