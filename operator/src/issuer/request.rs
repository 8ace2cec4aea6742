//! `CertificateRequest` of cert-manager: what is asked, and what was answered.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use diptych_api::IssuerRef;
use diptych_wire::authority::signing_request_as;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::{Value, json};

use super::step::{Held, Waits};
use crate::apply::Child;
use crate::error::OperatorError;
use crate::names::{Names, short_hash};
use crate::secrets::{Certificate, VALIDITY};

/// The issuer has not answered yet.
pub(super) const PENDING: &str = "IssuerPending";
/// There is no such issuer; cert-manager looks for it again.
pub(super) const NOT_FOUND: &str = "IssuerNotFound";
/// Label of what is asked for.
const COMPONENT: &str = "certificate-request";

/// By name.
pub type Requests = BTreeMap<String, DynamicObject>;

/// Why nothing can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// The API server knows no CertificateRequest.
    NotInstalled,
    /// The operator may not ask.
    Forbidden,
    /// The API server does not say.
    Failed(String),
}

impl Unavailable {
    pub(super) fn waits(&self) -> Waits {
        match self {
            Self::NotInstalled => Waits::new(
                "CertManagerMissing",
                "the API server knows no certificaterequests.cert-manager.io: install cert-manager, or take certificates.issuerRef away",
            ),
            Self::Forbidden => Waits::new(
                "Forbidden",
                "the operator may not make CertificateRequests: set certManager.enabled in the chart's values",
            ),
            Self::Failed(reason) => {
                Waits::new("ApiServer", format!("CertificateRequests can't be read: {reason}"))
            }
        }
    }
}

/// What an issuer signed.
pub(super) struct Answer {
    /// Certificate first, PEM.
    pub(super) chain: String,
    /// The authority's, PEM, where the issuer says it.
    pub(super) authority: String,
}

pub(super) fn api(client: &kube::Client, names: &Names) -> Api<DynamicObject> {
    let resource = GroupVersionKind::gvk("cert-manager.io", "v1", "CertificateRequest");
    Api::namespaced_with(client.clone(), &names.namespace, &ApiResource::from_gvk(&resource))
}

/// The requests of a StorageCluster.
pub async fn requests(client: &kube::Client, names: &Names) -> Result<Requests, Unavailable> {
    let api = api(client, names);
    let labels: Vec<String> =
        names.selector(COMPONENT).iter().map(|(key, value)| format!("{key}={value}")).collect();
    match api.list(&ListParams::default().labels(&labels.join(","))).await {
        Ok(found) => Ok(found.items.into_iter().map(|request| (request.name_any(), request)).collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(Unavailable::NotInstalled),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(Unavailable::Forbidden),
        Err(error) => Err(Unavailable::Failed(diptych_wire::http::chain(&error))),
    }
}

/// Another one for each certificate that is to be replaced, and for each issuer: a request can't be changed.
pub(super) fn name(certificate: &Certificate, held: &Held, issuer: &IssuerRef) -> String {
    let mut of = held.issued.chain.first().map(|own| own.to_vec()).unwrap_or_default();
    of.extend_from_slice(issuer.to_string().as_bytes());
    format!("{}-{}", certificate.secret, short_hash(&of))
}

pub(super) fn build(
    names: &Names,
    name: &str,
    certificate: &Certificate,
    held: &Held,
    issuer: &IssuerRef,
) -> Result<Child, OperatorError> {
    let csr = signing_request_as(&held.key, &certificate.request())?;
    Child::new(json!({
        "apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest",
        "metadata": names.meta(name, COMPONENT),
        "spec": {
            "request": STANDARD.encode(csr),
            "issuerRef": {"name": issuer.name, "kind": issuer.kind, "group": issuer.group},
            "duration": format!("{}h", VALIDITY.as_secs() / 3600),
            "usages": ["digital signature", "server auth", "client auth"],
            "isCA": false,
        },
    }))
}

/// What was signed.
///
/// # Errors
/// Why nothing was, or not yet.
pub(super) fn answer(request: &DynamicObject, issuer: &IssuerRef) -> Result<Answer, Waits> {
    let name = request.name_any();
    let condition = |kind: &str| {
        let all = request.data.pointer("/status/conditions").and_then(Value::as_array);
        all.into_iter().flatten().find(|condition| condition["type"] == kind)
    };
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let again = format!(
        "asked again each hour, or as soon as CertificateRequest {name} is deleted: put right what it says"
    );
    for (kind, reason, what) in
        [("Denied", "RequestDenied", "was denied"), ("InvalidRequest", "RequestInvalid", "is not valid")]
    {
        if let Some(says) = condition(kind).filter(|says| says["status"] == "True") {
            let why = text(says, "message");
            return Err(Waits::new(reason, format!("CertificateRequest {name} {what}: {why}; {again}")));
        }
    }
    let Some(ready) = condition("Ready") else {
        let approved = condition("Approved").is_some();
        let what = if approved { "the issuer has not answered yet" } else { "nobody has approved it yet" };
        return Err(Waits::new(PENDING, format!("CertificateRequest {name}: {what}")));
    };
    let (state, message) = (text(ready, "reason"), text(ready, "message"));
    match (ready["status"].as_str(), state.as_str()) {
        (Some("True"), _) => {}
        (_, "Failed" | "Denied") => {
            let says = format!("{issuer} refuses CertificateRequest {name}: {message}; {again}");
            return Err(Waits::new("IssuerFailed", says));
        }
        _ if message.contains("not found") => {
            let says =
                format!("{issuer} is not there: make it, or name another one. cert-manager says: {message}");
            return Err(Waits::new(NOT_FOUND, says));
        }
        _ => return Err(Waits::new(PENDING, format!("CertificateRequest {name}: {message}"))),
    }
    let decoded = |field: &str| {
        let encoded = request.data.pointer(&format!("/status/{field}")).and_then(Value::as_str);
        let bytes = STANDARD.decode(encoded.unwrap_or_default()).ok();
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    };
    Ok(Answer { chain: decoded("certificate"), authority: decoded("ca") })
}
