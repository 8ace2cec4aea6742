//! Transitions, told to a webhook: signed, in order, tried again with growing pauses.
//!
//! The body is JSON with `text`, as Slack and its likes take it, and the same as fields for programs. The header
//! `x-diptych-signature` is `t=<seconds since 1970>,v1=<HMAC-SHA256 of "<t>.<body>" by the shared secret, in hexadecimal>`.

use std::time::Duration;

use bytes::Bytes;
use diptych_core::edge::EdgeVerdict;
use diptych_core::ids::SiteName;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::sync::mpsc;

use crate::context::now_ms;
use crate::status::SiteStatus;

/// Header of the signature.
pub const SIGNATURE: &str = "x-diptych-signature";
/// An answer that takes longer is none.
const LIMIT: Duration = Duration::from_secs(10);
/// After a failure; twice as long after the next.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(1);
/// What could not be told for so long after it happened is given up: newer transitions are worth more.
const GIVE_UP: Duration = Duration::from_hours(1);
/// Transitions that wait; more than that are not told.
const WAITING: usize = 256;

/// Where transitions are told.
#[derive(Clone, Serialize, Deserialize)]
pub struct WebhookConfig {
    /// Address.
    pub url: String,
    /// Shared with the receiver; it never prints.
    pub secret: String,
}

impl std::fmt::Debug for WebhookConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("WebhookConfig").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Something that turned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// For people.
    pub text: String,
    /// One word: `RoleChanged`, `PeerSilent`, `PeerAnswers`, `WitnessSilent`, `WitnessAnswers`, `Waiting`, `NameTrouble`,
    /// `NameKept`, `EdgeUnreached`, `EdgeReached`, `DrillBegan`, `DrillEnded`.
    pub transition: String,
    /// The site that says so.
    pub site: SiteName,
    /// Its role now.
    pub role: String,
    /// Newest epoch that it knows.
    pub epoch: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// What turned between two looks at a site.
pub fn transitions(before: &SiteStatus, now: &SiteStatus) -> Vec<Transition> {
    let mut all = Vec::new();
    let mut tell = |transition: &str, text: String| {
        all.push(Transition {
            text: format!("Diptych, site {}: {text}", now.site),
            transition: transition.to_owned(),
            site: now.site.clone(),
            role: now.role.clone(),
            epoch: now.epoch.0,
            at_ms: now.seen_ms,
        });
    };
    if (&before.role, before.epoch) != (&now.role, now.epoch) {
        tell("RoleChanged", format!("it was {}, it is {} under epoch {}", before.role, now.role, now.epoch));
    }
    match (before.lease.peer_connected, now.lease.peer_connected) {
        (true, false) => tell("PeerSilent", "the other site does not answer".to_owned()),
        (false, true) => tell("PeerAnswers", "the other site answers".to_owned()),
        _ => {}
    }
    match (before.lease.witness_reachable, now.lease.witness_reachable) {
        (true, false) => tell("WitnessSilent", "the witness does not answer".to_owned()),
        (false, true) => tell("WitnessAnswers", "the witness answers".to_owned()),
        _ => {}
    }
    // Only what a person has to do something about: the rest passes by itself.
    let asks = |status: &SiteStatus| {
        let reason = status.lease.waiting.clone();
        reason.filter(|reason| ["Exposure", "Approval", "NoVoteRecord", "NoVoter"].contains(&reason.as_str()))
    };
    if asks(before) != asks(now)
        && let (Some(_), Some(sentence)) = (asks(now), &now.lease.waiting_for)
    {
        tell("Waiting", sentence.clone());
    }
    match (&before.name_trouble, &now.name_trouble) {
        (None, Some(trouble)) => tell("NameTrouble", format!("the public name can't be kept: {trouble}")),
        (Some(_), None) => tell("NameKept", "the public name can be kept again".to_owned()),
        _ => {}
    }
    let unreached = |status: &SiteStatus| {
        status.edge.as_ref().is_some_and(|edge| edge.here.verdict == EdgeVerdict::Unreached)
    };
    match (unreached(before), unreached(now)) {
        (false, true) => tell("EdgeUnreached", "Cloudflare does not reach it".to_owned()),
        (true, false) => {
            tell("EdgeReached", "Cloudflare does not say any more that it can't be reached".to_owned());
        }
        _ => {}
    }
    let drill =
        |status: &SiteStatus| status.last_drill.as_ref().map(|drill| (drill.id.clone(), drill.verdict));
    if drill(before) != drill(now)
        && let Some(last) = &now.last_drill
    {
        match last.verdict {
            None => tell("DrillBegan", format!("drill {} ({}) began", last.id, last.mode)),
            Some(verdict) => {
                tell(
                    "DrillEnded",
                    format!("drill {} ({}): {verdict:?}, {}", last.id, last.mode, last.reason),
                );
            }
        }
    }
    all
}

/// The signature of a body at a moment.
pub fn signature(secret: &str, seconds: u64, body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        // HMAC takes keys of any length.
        return String::new();
    };
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    format!("t={seconds},v1={}", hex::encode(mac.finalize().into_bytes()))
}

/// Takes transitions for a webhook. Cheap to clone; without one it forgets them.
#[derive(Debug, Clone, Default)]
pub struct Notifier(Option<mpsc::Sender<Transition>>);

impl Notifier {
    /// Begins to tell a webhook; must be called inside a tokio runtime, and ends when all clones are gone.
    pub fn to(config: Option<WebhookConfig>) -> Self {
        Self(config.map(|config| {
            let (sender, waiting) = mpsc::channel(WAITING);
            tokio::spawn(deliver(config, waiting));
            sender
        }))
    }

    /// Nothing waits for it.
    pub fn tell(&self, transition: Transition) {
        tracing::info!(transition = transition.transition, text = transition.text, "transition");
        let Some(sender) = &self.0 else { return };
        if let Err(error) = sender.try_send(transition) {
            tracing::warn!(%error, "a transition is not told: the webhook takes none");
        }
    }
}

async fn deliver(config: WebhookConfig, mut waiting: mpsc::Receiver<Transition>) {
    diptych_wire::tls::install_provider();
    let client = match reqwest::Client::builder().timeout(LIMIT).build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "the webhook's client can't be made: nothing is told");
            return;
        }
    };
    while let Some(transition) = waiting.recv().await {
        let Ok(body) = serde_json::to_vec(&transition) else { continue };
        let body = Bytes::from(body);
        let mut pause = AGAIN;
        while let Err(reason) = send(&client, &config, &body).await {
            if u128::from(now_ms().saturating_sub(transition.at_ms)) > GIVE_UP.as_millis() {
                tracing::error!(
                    reason,
                    transition = transition.transition,
                    "the webhook did not take it within an hour: given up"
                );
                break;
            }
            tracing::warn!(reason, ?pause, "the webhook did not take it; tried again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }
}

async fn send(client: &reqwest::Client, config: &WebhookConfig, body: &Bytes) -> Result<(), String> {
    let signature = signature(&config.secret, now_ms() / 1_000, body);
    let request =
        client.post(&config.url).header("content-type", "application/json").header(SIGNATURE, signature);
    let answer = request.body(body.clone()).send().await;
    let status = answer.map_err(|error| diptych_wire::http::chain(&error))?.status();
    if status.is_success() { Ok(()) } else { Err(status.to_string()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::extract::State;
    use axum::routing::post;
    use http::{HeaderMap, StatusCode};

    use super::*;

    #[test]
    fn a_signature_is_that_of_openssl() {
        // HMAC-SHA256 of "1700000000.{}" by "key", as `openssl dgst -sha256 -hmac key` says.
        assert_eq!(
            signature("key", 1_700_000_000, b"{}"),
            "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
        );
    }

    type Taken = mpsc::UnboundedSender<(HeaderMap, Bytes)>;

    /// A receiver that refuses what comes first; what comes to it.
    async fn refusing(refusals: usize) -> (Notifier, mpsc::UnboundedReceiver<(HeaderMap, Bytes)>) {
        let (sender, taken) = mpsc::unbounded_channel();
        let receive = |State((taken, refusals)): State<(Taken, Arc<AtomicUsize>)>,
                       headers: HeaderMap,
                       body: Bytes| async move {
            let _ = taken.send((headers, body));
            let refuse =
                refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if refuse.is_ok() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
        };
        let refusals = Arc::new(AtomicUsize::new(refusals));
        let router = Router::new().route("/hook", post(receive)).with_state((sender, refusals));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (Notifier::to(Some(WebhookConfig { url, secret: "s3cret".to_owned() })), taken)
    }

    fn transition(word: &str, at_ms: u64) -> Transition {
        Transition {
            text: format!("it is {word}"),
            transition: word.to_owned(),
            site: "east".parse().expect("a name"),
            role: "active".to_owned(),
            epoch: 3,
            at_ms,
        }
    }

    /// The texts of the first so many that come, each with its signature.
    async fn texts(taken: &mut mpsc::UnboundedReceiver<(HeaderMap, Bytes)>, count: usize) -> Vec<String> {
        let mut seen = Vec::new();
        for _ in 0..count {
            let (headers, body) = taken.recv().await.expect("it comes");
            let said = headers[SIGNATURE].to_str().expect("text").to_owned();
            let seconds = said.strip_prefix("t=").and_then(|said| said.split(',').next()).expect("a time");
            assert_eq!(said, signature("s3cret", seconds.parse().expect("a number"), &body));
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            seen.push(body["text"].as_str().expect("Slack wants it").to_owned());
        }
        seen
    }

    #[tokio::test]
    async fn what_a_receiver_did_not_take_is_told_again_with_its_signature_and_in_order() {
        let (notifier, mut taken) = refusing(1).await;
        for word in ["RoleChanged", "PeerSilent"] {
            notifier.tell(transition(word, now_ms()));
        }
        let seen = texts(&mut taken, 3).await;
        assert_eq!(seen, ["it is RoleChanged", "it is RoleChanged", "it is PeerSilent"]);
    }

    #[tokio::test]
    async fn what_happened_over_an_hour_ago_is_told_once_and_holds_up_nothing_newer() {
        let (notifier, mut taken) = refusing(1).await;
        notifier.tell(transition("RoleChanged", now_ms() - GIVE_UP.as_millis() as u64 - 1_000));
        notifier.tell(transition("PeerSilent", now_ms()));
        assert_eq!(texts(&mut taken, 2).await, ["it is RoleChanged", "it is PeerSilent"]);
    }
}
