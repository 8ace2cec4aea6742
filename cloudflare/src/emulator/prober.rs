//! Probes what health checks and monitors name, for real, and keeps the verdicts.

mod tls;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::balancing;
use super::model::{Database, HealthCheck};

/// Bytes of the body that are searched for `expected_body`.
const BODY_LOOKED_AT: usize = 10 * 1024;

/// The verdict on one check.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    pub(super) status: &'static str,
    pub(super) reason: String,
    fails: u32,
    successes: u32,
}

impl Default for Verdict {
    fn default() -> Self {
        Self { status: "unknown", reason: String::new(), fails: 0, successes: 0 }
    }
}

impl Verdict {
    fn after(mut self, check: &HealthCheck, result: Result<(), String>) -> Self {
        match result {
            Ok(()) => {
                (self.fails, self.successes) = (0, self.successes.saturating_add(1));
                if self.successes >= check.consecutive_successes {
                    (self.status, self.reason) = ("healthy", "No failures".to_owned());
                }
            }
            Err(reason) => {
                (self.fails, self.successes) = (self.fails.saturating_add(1), 0);
                if self.fails >= check.consecutive_fails {
                    (self.status, self.reason) = ("unhealthy", reason);
                }
            }
        }
        self
    }
}

/// All verdicts, by the id of the check; not kept over a restart.
#[derive(Debug, Default)]
pub(super) struct Verdicts(Mutex<HashMap<String, Verdict>>);

impl Verdicts {
    pub(super) fn get(&self, id: &str) -> Verdict {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().unwrap_or_default()
    }

    fn note(&self, check: &HealthCheck, result: Result<(), String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.remove(&check.id).unwrap_or_default();
        all.insert(check.id.clone(), before.after(check, result));
    }
}

/// A task for each check, started anew when the check changes. Never ends.
pub(super) async fn run(shared: Arc<Shared>, scale: f64) {
    let mut changes = shared.store.changes();
    let mut running: HashMap<String, (String, Probing)> = HashMap::new();
    loop {
        let database = shared.store.database();
        let checks = wanted(&database);
        running.retain(|id, (version, _)| checks.get(id).is_some_and(|check| check.modified_on == *version));
        for (id, check) in checks {
            running.entry(id).or_insert_with(|| {
                let version = check.modified_on.clone();
                let task = tokio::spawn(keep_probing(Arc::clone(&shared), check, scale));
                (version, Probing(task.abort_handle()))
            });
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// What is to be probed, by id.
fn wanted(database: &Database) -> HashMap<String, HealthCheck> {
    let checks = database.zones.iter().flat_map(|zone| &zone.health_checks).cloned();
    let wanted = checks.filter(|check| !check.suspended).chain(balancing::probes(database));
    wanted.map(|check| (check.id.clone(), check)).collect()
}

/// Ends the task when dropped.
struct Probing(AbortHandle);

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn keep_probing(shared: Arc<Shared>, check: HealthCheck, scale: f64) {
    let pause =
        Duration::from_secs(u64::from(check.interval)).mul_f64(scale.max(0.0)).max(Duration::from_millis(20));
    loop {
        let mut result = probe(&shared, &check).await;
        for _ in 0..check.retries {
            if result.is_ok() {
                break;
            }
            result = probe(&shared, &check).await;
        }
        shared.verdicts.note(&check, result);
        sleep(pause).await;
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HttpSettings {
    method: Option<String>,
    port: Option<u16>,
    path: Option<String>,
    expected_codes: Option<Vec<String>>,
    expected_body: Option<String>,
    header: Option<HashMap<String, Vec<String>>>,
    allow_insecure: bool,
}

impl HttpSettings {
    /// Name that the origin is asked for.
    fn host<'a>(&'a self, address: &'a str) -> &'a str {
        let headers = self.header.iter().flatten();
        let host = headers
            .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
            .find_map(|(_, values)| values.first());
        host.map_or(address, String::as_str)
    }
}

async fn probe(shared: &Shared, check: &HealthCheck) -> Result<(), String> {
    let limit = Duration::from_secs(u64::from(check.timeout.max(1)));
    let settings: HttpSettings =
        check.http_config.clone().and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
    match check.kind.as_str() {
        "TCP" => {
            let port = check.tcp_config.as_ref().and_then(|config| config["port"].as_u64()).unwrap_or(80);
            let port = u16::try_from(port).map_err(|_| "TCP port out of range".to_owned())?;
            timeout(limit, connect(shared, &check.address, port))
                .await
                .map_err(|_| "TCP Timeout occurred")?
                .map(drop)
        }
        "HTTP" => {
            let stream = timeout(limit, connect(shared, &check.address, settings.port.unwrap_or(80))).await;
            let stream = stream.map_err(|_| "TCP Timeout occurred")??;
            let asked = timeout(limit, ask(stream, &check.address, &settings)).await;
            asked.map_err(|_| "HTTP timeout occurred")?
        }
        "HTTPS" => {
            let stream = timeout(limit, connect(shared, &check.address, settings.port.unwrap_or(443))).await;
            let stream = stream.map_err(|_| "TCP Timeout occurred")??;
            let asked = timeout(limit, async {
                let secure =
                    tls::handshake(stream, settings.host(&check.address), settings.allow_insecure).await?;
                ask(secure, &check.address, &settings).await
            });
            asked.await.map_err(|_| "HTTP timeout occurred")?
        }
        other => Err(format!("{other} is not probed by this emulator")),
    }
}

async fn connect(shared: &Shared, address: &str, port: u16) -> Result<TcpStream, String> {
    let mut failure = format!("{address} has no address");
    for target in resolve(shared, address, port).await {
        if shared.faults.with(|faults| faults.unreached.contains(&target.ip())) {
            "TCP Timeout occurred".clone_into(&mut failure);
            continue;
        }
        match TcpStream::connect(target).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = format!("TCP connection failed: {error}"),
        }
    }
    Err(failure)
}

/// An address as it stands, a name of the zones by what has spread, any other by the system.
async fn resolve(shared: &Shared, address: &str, port: u16) -> Vec<SocketAddr> {
    if let Ok(ip) = address.parse::<IpAddr>() {
        return vec![SocketAddr::new(ip, port)];
    }
    let name = address.trim_end_matches('.').to_ascii_lowercase();
    let own = shared.propagation.view().addresses(&name, &shared.verdicts);
    if !own.is_empty() {
        return own.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    }
    lookup_host((address, port)).await.map(Iterator::collect).unwrap_or_default()
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: &str,
    settings: &HttpSettings,
) -> Result<(), String> {
    let failed = |error: &dyn std::error::Error| format!("HTTP request failed: {error}");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    let connection = Probing(tokio::spawn(connection).abort_handle());
    let mut request = Request::builder()
        .method(settings.method.as_deref().unwrap_or("GET"))
        .uri(settings.path.as_deref().unwrap_or("/"))
        .header(
            "user-agent",
            "Mozilla/5.0 (compatible;Cloudflare-Healthchecks/1.0;+https://www.cloudflare.com/)",
        );
    let headers = settings.header.clone().unwrap_or_default();
    if !headers.keys().any(|name| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", address);
    }
    for (name, value) in
        headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
    {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let codes = settings.expected_codes.clone().unwrap_or_else(|| vec!["200".to_owned()]);
    if !codes.iter().any(|code| is_expected(response.status().as_str(), code)) {
        return Err(format!("Response code mismatch error: {}", response.status().as_u16()));
    }
    if let Some(expected) = &settings.expected_body {
        let body = Limited::new(response.into_body(), BODY_LOOKED_AT).collect().await;
        let body = body.map_err(|error| format!("Response body mismatch error: {error}"))?.to_bytes();
        if !String::from_utf8_lossy(&body).contains(expected.as_str()) {
            return Err("Response body mismatch error".to_owned());
        }
    }
    drop(connection);
    Ok(())
}

/// `200`, or `2xx`.
fn is_expected(status: &str, code: &str) -> bool {
    code.len() == status.len()
        && code
            .chars()
            .zip(status.chars())
            .all(|(wanted, got)| wanted.eq_ignore_ascii_case(&'x') || wanted == got)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_of_codes_and_a_code_are_told_apart() {
        assert!(is_expected("204", "2xx") && is_expected("200", "200"));
        assert!(!is_expected("503", "2xx") && !is_expected("204", "200"));
    }
}
