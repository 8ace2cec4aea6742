//! What is done about one certificate. Nothing is asked here, nothing is done.

use std::time::{Duration, SystemTime};

use diptych_api::IssuerRef;
use diptych_wire::authority::{Authority, Issued};
use diptych_wire::renewal::Life;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::request::{self, Requests, Unavailable};
use super::{ISSUED_BY, chain};
use crate::apply::Child;
use crate::error::OperatorError;
use crate::names::Names;
use crate::secrets::{Certificate, texts};

/// A request that was refused is made again after this time.
const AGAIN: Duration = Duration::from_hours(1);

/// What is done about one certificate.
#[derive(Debug)]
pub enum Step {
    /// It is the issuer's, and good for a while.
    Keep,
    /// The cluster's own authority signs: there is none that can be used, or the issuer is too late. The Secret.
    Own(Child),
    /// The issuer is asked. The request.
    Ask(Child),
    /// What the issuer signed is used from now on. The Secret.
    Take(Child),
    /// The one in use stays.
    Wait(Waits),
}

/// Why a certificate is not the issuer's yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// For the condition.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
    /// The request that may still be answered; any other one is deleted, and made again where it is needed.
    pub request: Option<String>,
}

impl Waits {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), request: None }
    }

    /// Whether it takes a person.
    pub(super) fn is_trouble(&self) -> bool {
        !["Asked", request::PENDING].contains(&self.reason)
    }
}

/// What a site has for a certificate.
pub(super) struct Held {
    pub(super) issued: Issued,
    pub(super) key: String,
    life: Life,
    /// The issuer; None: the cluster's own authority.
    by: Option<String>,
}

impl Held {
    /// None: nothing that can be used for long enough.
    fn of(certificate: &Certificate, secret: &Secret, authority: &Authority, now: Timestamp) -> Option<Self> {
        let key = texts(secret).remove("tls.key")?;
        let issued = certificate.held(secret, authority)?;
        let life = Life::of(issued.chain.first()?).ok()?;
        // The issuer had from the last third to here.
        let is_late = life.ends_s - now.as_second() < (life.ends_s - life.begins_s) / 6;
        let by = secret.annotations().get(ISSUED_BY).cloned();
        (!is_late).then_some(Self { issued, key, life, by })
    }
}

/// Decides about one certificate.
///
/// # Errors
/// A Secret or request that can't be built: a fault of this program.
pub fn step(
    names: &Names,
    (certificate, secret): (&Certificate, Option<&Secret>),
    (issuer, requests): (&IssuerRef, &Result<Requests, Unavailable>),
    authority: &Authority,
    now: Timestamp,
) -> Result<Step, OperatorError> {
    let Some(held) = secret.and_then(|secret| Held::of(certificate, secret, authority, now)) else {
        return Ok(Step::Own(certificate.issue(authority, names)?));
    };
    let is_theirs = held.by.as_deref() == Some(issuer.to_string().as_str());
    if is_theirs && !held.life.is_due(SystemTime::from(now)) {
        return Ok(Step::Keep);
    }
    let requests = match requests {
        Ok(requests) => requests,
        Err(unavailable) => return Ok(Step::Wait(unavailable.waits())),
    };
    let name = request::name(certificate, &held, issuer);
    let Some(found) = requests.get(&name) else {
        return Ok(Step::Ask(request::build(names, &name, certificate, &held, issuer)?));
    };
    let answer = match request::answer(found, issuer) {
        Ok(answer) => answer,
        Err(waits) => return Ok(Step::Wait(until_asked_again(waits, found, now))),
    };
    match chain::accept(certificate, &held, &answer, authority, now) {
        Ok(chain) => Ok(Step::Take(certificate.secret(names, authority, &chain, &held.key, Some(issuer))?)),
        Err(refusal) => {
            let message =
                format!("{issuer} signed what can't be used (CertificateRequest {name}): {refusal}");
            let waits = Waits::new(refusal.reason(), message);
            Ok(Step::Wait(until_asked_again(waits, found, now)))
        }
    }
}

/// A request that was refused is given up after a while, for what was wrong may have been put right.
fn until_asked_again(waits: Waits, request: &DynamicObject, now: Timestamp) -> Waits {
    let age = request.creation_timestamp().map_or(0, |made| now.as_second() - made.0.as_second());
    let stays = !waits.is_trouble() || waits.reason == request::NOT_FOUND || age < AGAIN.as_secs() as i64;
    let name = request.name_any();
    if stays { Waits { request: Some(name), ..waits } } else { waits }
}
