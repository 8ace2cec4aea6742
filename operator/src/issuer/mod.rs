//! Certificates that an issuer of cert-manager signs (`certificates.issuerRef`): those of the operators and the gateways.
//!
//! ```text
//!  none that can be used ──► signed by the cluster's authority ──► asked of the issuer ──► the issuer's, in use
//!                                  ▲                                  │          ▲                │
//!                                  └─── a sixth of the life is left ──┘          └─ a third is ───┘
//! ```
//! The key stays in its Secret; the request carries its public half. Nobody has to learn whom to trust: the cluster's authority
//! vouches for the issuer's (`chain`), so whoever trusts the first takes the chain: the other site, agents, nodes outside
//! (docs/adr/0022). What the issuer does not sign in time the cluster's authority signs again: nothing waits for cert-manager.

mod chain;
mod request;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use diptych_api::IssuerRef;
use kube::api::DeleteParams;

use crate::apply::Child;
use crate::conditions::Says;
use crate::names::Names;
use crate::secrets::Certificate;

pub use request::{Requests, Unavailable, requests};
pub use step::{Step, Waits, step};

/// Annotation of a certificate's Secret: the issuer whose certificate it holds.
pub const ISSUED_BY: &str = "diptych.dev/issued-by";
/// The condition.
const CONDITION: &str = "CertificatesIssued";

/// What a look decided about all certificates of an issuer.
#[derive(Debug)]
pub struct Planned {
    issuer: IssuerRef,
    /// How many there are.
    certificates: usize,
    /// By Secret, those that are not the issuer's yet.
    waits: BTreeMap<String, Waits>,
    /// Requests that are to be made.
    asks: Vec<(String, Child)>,
    /// Requests that are still waited for.
    open: BTreeSet<String>,
}

impl Planned {
    /// Nothing yet.
    pub fn of(issuer: &IssuerRef) -> Self {
        Self {
            issuer: issuer.clone(),
            certificates: 0,
            waits: BTreeMap::new(),
            asks: Vec::new(),
            open: BTreeSet::new(),
        }
    }

    /// Takes note of a step; the Secret that follows from it.
    pub fn note(&mut self, certificate: &Certificate, step: Step) -> Option<Child> {
        self.certificates += 1;
        let mut wait = |waits: Waits| self.waits.insert(certificate.secret.clone(), waits);
        match step {
            Step::Keep => None,
            Step::Take(secret) => Some(secret),
            Step::Own(secret) => {
                wait(Waits::new("Asked", "the cluster's own authority signs until the issuer has"));
                Some(secret)
            }
            Step::Ask(request) => {
                wait(Waits::new("Asked", format!("{} is made", request.title())));
                self.asks.push((certificate.secret.clone(), request));
                None
            }
            Step::Wait(waits) => {
                self.open.extend(waits.request.clone());
                wait(waits);
                None
            }
        }
    }

    /// Asks for what is to be asked for, and deletes requests that nobody waits for any more. What can't be done stands in the
    /// condition and nowhere else: no certificate hangs on it.
    pub async fn carry_out(
        &mut self,
        client: &kube::Client,
        names: &Names,
        requests: Option<&Result<Requests, Unavailable>>,
    ) {
        for (secret, request) in std::mem::take(&mut self.asks) {
            if let Err(error) = request.apply(client).await {
                let message = format!("{} is refused: {}", request.title(), error.chain());
                self.waits.insert(secret, Waits::new("RequestRefused", message));
            }
        }
        let Some(Ok(requests)) = requests else { return };
        let api = request::api(client, names);
        for name in requests.keys().filter(|name| !self.open.contains(*name)) {
            if let Err(error) = api.delete(name, &DeleteParams::default()).await {
                tracing::info!(name, %error, "a CertificateRequest that is over stays");
            }
        }
    }

    /// For the condition: what keeps a certificate from being the issuer's, trouble first.
    pub fn says(&self) -> Says {
        let (issuer, all) = (&self.issuer, self.certificates);
        let first = self.waits.iter().min_by_key(|(_, waits)| !waits.is_trouble());
        let Some((secret, waits)) = first else {
            let message = format!("{issuer} signs the {all} certificates of the operators and the gateways");
            return Says::yes(CONDITION, "Issued", message);
        };
        let message = format!(
            "{} of {all} certificates are not signed by {issuer} yet; those in use stay, and the cluster's own authority renews them \
             until they are. Secret {secret}: {}",
            self.waits.len(),
            waits.message
        );
        Says::no(CONDITION, waits.reason, message)
    }
}
