//! Secrets: the cluster's own authority, the certificates that it gives, and what gateways share.
//!
//! The authority's key lies in a Secret of each site; the second site gets it as it joins (`join::site`).

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use diptych_api::IssuerRef;
use diptych_core::ids::{ClusterId, SiteName};
use diptych_core::keyring::{ClusterKey, ClusterKeys};
use diptych_wire::authority::{Authority, Issued, Request};
use diptych_wire::identity::{Identity, Role};
use diptych_wire::renewal::Life;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use rand::RngCore;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::apply::Child;
use crate::error::OperatorError;
use crate::issuer::ISSUED_BY;
use crate::join::site::Joined;
use crate::names::Names;

/// Entry of a join Secret: the token's name.
pub const TOKEN: &str = "token";
/// Entry of the Secret with the cluster key: the one before, while it is exchanged.
pub const PREVIOUS_KEY: &str = "previous-key";
/// A join token is worth nothing after this.
const JOIN_VALIDITY: Duration = Duration::from_hours(7 * 24);
/// Life of a certificate, in a Secret or of a node-agent.
pub(crate) const VALIDITY: Duration = Duration::from_hours(90 * 24);
/// It is made anew when it has less left.
const RENEW_BEFORE: Duration = Duration::from_hours(30 * 24);

/// A Secret's entries as text.
pub fn texts(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned())).collect()
}

/// An entry of a Secret.
///
/// # Errors
/// It is not there; says how to make it.
pub fn text(secret: &Secret, key: &str) -> Result<String, OperatorError> {
    let value = texts(secret).remove(key).filter(|value| !value.trim().is_empty());
    value.ok_or_else(|| OperatorError::Secret {
        name: secret.name_any(),
        reason: format!("it has no entry {key:?}"),
    })
}

/// The cluster key under `key`, and the one before where there is one.
///
/// # Errors
/// Says which entry holds no key.
pub fn cluster_keys(secret: &Secret) -> Result<ClusterKeys, String> {
    let named = |entry: &str| {
        let text = Zeroizing::new(text(secret, entry).map_err(|error| error.to_string())?);
        ClusterKey::parse(&text).map_err(|error| format!("entry {entry:?}: {error}"))
    };
    let before = secret.data.iter().flatten().any(|(entry, _)| entry == PREVIOUS_KEY);
    Ok(ClusterKeys::new(named("key")?, before.then(|| named(PREVIOUS_KEY)).transpose()?))
}

fn data(entries: &[(&str, &str)]) -> Value {
    let encode = |value: &str| base64::engine::general_purpose::STANDARD.encode(value);
    entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), Value::from(encode(value))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Random text of letters and digits: `bytes` of it.
pub fn random_text(bytes: usize) -> String {
    let mut raw = vec![0; bytes];
    rand::rng().fill_bytes(&mut raw);
    hex::encode(raw)
}

/// The authority of a site's catalog, in its Secret.
pub fn authority_secret(authority: &Authority, names: &Names, name: &str) -> Result<Child, OperatorError> {
    let entries = data(&[("ca.crt", &authority.certificate_pem()), ("ca.key", &authority.key_pem())]);
    Child::new(json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": names.lasting_meta(name, "authority"), "data": entries}))
}

/// Reads what `authority_secret` wrote.
pub fn read_authority(secret: &Secret) -> Result<Authority, OperatorError> {
    Ok(Authority::from_pem(&text(secret, "ca.crt")?, &text(secret, "ca.key")?)?)
}

/// What a site was given or made once: it can't be made again.
pub struct Foundation {
    /// The installation.
    pub cluster: ClusterId,
    /// Signs every certificate.
    pub authority: Authority,
    /// Bearer token of the operators and, until there are Kubernetes tokens, of people: the same in both sites.
    pub rest_token: String,
}

impl Foundation {
    /// A new installation.
    pub fn create() -> Result<Self, OperatorError> {
        let mut id = [0; 16];
        rand::rng().fill_bytes(&mut id);
        let cluster = ClusterId(id);
        Ok(Self { cluster, authority: Authority::create(cluster)?, rest_token: random_text(32) })
    }

    /// Reads what `secret` wrote, here or in the other site.
    pub fn read(secret: &Secret) -> Result<Self, OperatorError> {
        let malformed = |reason: String| OperatorError::Secret { name: secret.name_any(), reason };
        let cluster = text(secret, "cluster-id")?;
        let cluster = cluster.trim().parse().map_err(|error| malformed(format!("cluster-id: {error}")))?;
        let authority = Authority::from_pem(&text(secret, "ca.crt")?, &text(secret, "ca.key")?)?;
        Ok(Self { cluster, authority, rest_token: text(secret, "rest-token")?.trim().to_owned() })
    }

    /// What the other site gave.
    pub fn joined(joined: &Joined) -> Result<Self, OperatorError> {
        let authority = Authority::from_pem(&joined.authority, &joined.secret.authority_key)?;
        Ok(Self { cluster: joined.cluster, authority, rest_token: joined.secret.rest_token.clone() })
    }

    /// The Secret that keeps it. It outlives the StorageCluster: bytes on the devices are of this cluster.
    pub fn secret(&self, names: &Names) -> Result<Child, OperatorError> {
        let name = names.child("authority");
        let entries = data(&[
            ("cluster-id", &self.cluster.to_string()),
            ("ca.crt", &self.authority.certificate_pem()),
            ("ca.key", &self.authority.key_pem()),
            ("fingerprint", &self.authority.fingerprint()),
            ("rest-token", &self.rest_token),
        ]);
        Child::new(json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": names.lasting_meta(&name, "authority"), "data": entries}))
    }

    /// The Secret with which `peer` joins, once: a certificate that lets it ask for that and nothing else.
    pub fn join_token(&self, names: &Names, peer: &SiteName) -> Result<Child, OperatorError> {
        let token = random_text(8);
        let identity =
            Identity { cluster: self.cluster, site: peer.clone(), role: Role::Join, name: token.clone() };
        let issued = self.authority.issue(&Request::new(identity, JOIN_VALIDITY))?;
        let (fingerprint, chain, key) = (self.authority.fingerprint(), issued.chain_pem(), issued.key_pem());
        let entries = [
            (TOKEN, token.as_str()),
            ("fingerprint", fingerprint.as_str()),
            ("tls.crt", chain.as_str()),
            ("tls.key", key.as_str()),
        ];
        owned(names, &names.child("join"), "join", &entries)
    }

    /// What everybody may know of it.
    pub fn config_map(&self, names: &Names) -> Result<Child, OperatorError> {
        Child::new(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": names.meta(&names.child("authority"), "authority"),
            "data": {"ca.crt": self.authority.certificate_pem(), "cluster-id": self.cluster.to_string()}}),
        )
    }
}

/// Who signs a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedBy {
    /// The authority of the cluster, in both sites.
    Cluster,
    /// The authority of this site's catalog. etcd can't tell roles apart, so that only those get a certificate of it that
    /// may use the catalog: a node-agent's is worth nothing there.
    Catalog,
}

/// A certificate in a Secret.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Name of the Secret.
    pub secret: String,
    /// Who signs it.
    pub signed_by: SignedBy,
    /// Whom it is for.
    pub identity: Identity,
    /// For programs that check names of hosts. etcd refuses clients whose certificate has any that is not theirs.
    pub dns_names: Vec<String>,
}

/// Whom [`certificates`] are for: each lies in Secret `<StorageCluster>-<part>-identity`.
pub const IDENTITIES: [&str; 5] = ["catalog", "catalog-client", "gateway", "operator", "witness"];

/// Name of the Secret that holds a part's certificate, behind the StorageCluster's.
pub fn identity_of(part: &str) -> String {
    format!("{part}-identity")
}

/// Every certificate that a site's Secrets hold.
pub fn certificates(
    names: &Names,
    cluster: ClusterId,
    site: &SiteName,
    hostname: Option<&str>,
) -> Vec<Certificate> {
    let one = |part: &str, signed_by, role: Role, dns_names: Vec<String>| Certificate {
        secret: names.child(&identity_of(part)),
        signed_by,
        identity: Identity { cluster, site: site.clone(), role, name: part.to_owned() },
        dns_names,
    };
    let own = |service: &str| vec![names.host(service), format!("{}.cluster.local", names.host(service))];
    let mut of_catalog = own(&names.child("catalog"));
    of_catalog.extend(of_catalog.clone().iter().map(|name| format!("*.{name}")));
    of_catalog.push("localhost".to_owned());
    let mut of_gateway = own(&names.child("gateway"));
    of_gateway.extend(hostname.map(str::to_owned));
    vec![
        one("catalog", SignedBy::Catalog, Role::Catalog, of_catalog),
        one("catalog-client", SignedBy::Catalog, Role::Catalog, Vec::new()),
        one("gateway", SignedBy::Cluster, Role::Gateway, of_gateway),
        one("operator", SignedBy::Cluster, Role::Operator, own(&names.account("operator"))),
        Certificate {
            identity: Identity {
                cluster,
                site: SiteName::outside(),
                role: Role::Witness,
                name: "witness".to_owned(),
            },
            ..one("witness", SignedBy::Cluster, Role::Witness, Vec::new())
        },
    ]
}

impl Certificate {
    /// Whether a Secret holds one that the authority signed itself and that is still good for a while.
    pub fn is_good(&self, secret: &Secret, authority: &Authority, now_s: i64) -> bool {
        let Some(issued) = self.held(secret, authority) else { return false };
        let [own, _] = &issued.chain[..] else { return false };
        Life::of(own).is_ok_and(|life| life.ends_s - now_s > RENEW_BEFORE.as_secs() as i64)
    }

    /// What a Secret holds of it: for this identity and these names, and of this authority. Whether it is still valid is not
    /// looked at.
    pub(crate) fn held(&self, secret: &Secret, authority: &Authority) -> Option<Issued> {
        let texts = texts(secret);
        let issued = Issued::from_pem(texts.get("tls.crt")?, texts.get("tls.key")?).ok()?;
        let [own, .., root] = &issued.chain[..] else { return None };
        let is_it = root == authority.certificate()
            && diptych_wire::tls::identity_of(own).ok().as_ref() == Some(&self.identity)
            && self.lacks(own).is_empty();
        is_it.then_some(issued)
    }

    /// Its names of hosts that a certificate does not have.
    pub(crate) fn lacks(&self, own: &CertificateDer<'_>) -> Vec<&str> {
        let parsed = X509Certificate::from_der(own).ok();
        let names = parsed.as_ref().and_then(|(_, parsed)| parsed.subject_alternative_name().ok().flatten());
        let found: Vec<String> =
            names.iter().flat_map(|names| &names.value.general_names).map(ToString::to_string).collect();
        let lacks = |name: &&str| !found.iter().any(|found| found.contains(name));
        self.dns_names.iter().map(String::as_str).filter(lacks).collect()
    }

    /// Whether an issuer of cert-manager may sign it. The catalog's tell roles apart by who signed, and the witness's is for a
    /// node that knows no issuer.
    pub(crate) fn may_be_issued(&self) -> bool {
        self.signed_by == SignedBy::Cluster && self.identity.role != Role::Witness
    }

    /// What is asked of whoever signs.
    pub(crate) fn request(&self) -> Request {
        let mut request = Request::new(self.identity.clone(), VALIDITY);
        request.dns_names.clone_from(&self.dns_names);
        if !self.dns_names.is_empty() {
            request.addresses = vec![std::net::Ipv4Addr::LOCALHOST.into()];
        }
        request
    }

    /// A fresh one, with a fresh key.
    pub fn issue(&self, authority: &Authority, names: &Names) -> Result<Child, OperatorError> {
        let issued = authority.issue(&self.request())?;
        self.secret(names, authority, &issued.chain_pem(), &issued.key_pem(), None)
    }

    /// The Secret with a chain and its key (PEM), and by which issuer of cert-manager it is.
    pub(crate) fn secret(
        &self,
        names: &Names,
        authority: &Authority,
        chain: &str,
        key: &str,
        issuer: Option<&IssuerRef>,
    ) -> Result<Child, OperatorError> {
        let entries = data(&[("ca.crt", &authority.certificate_pem()), ("tls.crt", chain), ("tls.key", key)]);
        let mut meta = names.meta(&self.secret, "identity");
        if let Some(issuer) = issuer {
            meta["annotations"] = json!({ISSUED_BY: issuer.to_string()});
        }
        Child::new(json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": meta, "data": entries}))
    }
}

/// A Secret with some entries, owned by the StorageCluster.
pub fn owned(
    names: &Names,
    name: &str,
    component: &str,
    entries: &[(&str, &str)],
) -> Result<Child, OperatorError> {
    Child::new(json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": names.meta(name, component), "data": data(entries)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_secret(child: &Child) -> Secret {
        serde_json::from_value(child.body.clone()).expect("a Secret")
    }

    fn now() -> i64 {
        k8s_openapi::jiff::Timestamp::now().as_second()
    }

    #[test]
    fn a_foundation_reads_back_from_its_secret() {
        let made = Foundation::create().expect("it is made");
        let secret = as_secret(&made.secret(&Names::for_tests()).expect("a Secret"));
        let read = Foundation::read(&secret).expect("it reads");
        assert_eq!((read.cluster, read.rest_token.as_str()), (made.cluster, made.rest_token.as_str()));
        assert_eq!(read.authority.fingerprint(), made.authority.fingerprint());
    }

    #[test]
    fn a_secret_without_the_authoritys_key_says_which_entry_is_missing() {
        let made = Foundation::create().expect("it is made");
        let mut secret = as_secret(&made.secret(&Names::for_tests()).expect("a Secret"));
        secret.data.get_or_insert_default().remove("ca.key");
        let error = Foundation::read(&secret).err().expect("it can't be read");
        assert_eq!(error.to_string(), "Secret main-authority: it has no entry \"ca.key\"");
    }

    #[test]
    fn a_certificate_is_made_anew_when_it_runs_out_or_is_another_authoritys() {
        let made = Foundation::create().expect("it is made");
        let site = "east".parse().expect("a name");
        for certificate in certificates(&Names::for_tests(), made.cluster, &site, Some("files.example.com")) {
            let secret =
                as_secret(&certificate.issue(&made.authority, &Names::for_tests()).expect("it is issued"));
            assert!(certificate.is_good(&secret, &made.authority, now()));
            assert!(!certificate.is_good(&secret, &made.authority, now() + 61 * 24 * 3600));
            let other = Foundation::create().expect("it is made");
            assert!(!certificate.is_good(&secret, &other.authority, now()));
            let mut more = certificate.clone();
            more.dns_names.push("new.example.com".to_owned());
            assert!(!more.is_good(&secret, &made.authority, now()));
        }
    }

    #[test]
    fn every_certificate_lies_in_a_secret_that_is_looked_at() {
        let site = "east".parse().expect("a name");
        let all = certificates(&Names::for_tests(), ClusterId([1; 16]), &site, None);
        let secrets: Vec<String> = all.into_iter().map(|certificate| certificate.secret).collect();
        assert_eq!(secrets, IDENTITIES.map(|part| Names::for_tests().child(&identity_of(part))));
    }

    #[test]
    fn clients_of_the_catalog_carry_no_name_of_a_host() {
        // etcd resolves each DNS name in a client's certificate and refuses it where none is the client's address.
        let site = "east".parse().expect("a name");
        let all = certificates(&Names::for_tests(), ClusterId([1; 16]), &site, Some("files.example.com"));
        let client = all.iter().find(|certificate| certificate.secret == "main-catalog-client-identity");
        assert!(client.expect("it is there").dns_names.is_empty());
    }
}
