//! What can come of a call. The kinds differ in what the caller may conclude about the zone.

use std::fmt;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use thiserror::Error;

/// What a token must be allowed to do, in the words of Cloudflare's dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Any valid token.
    None,
    /// Find a zone by its name.
    ZoneRead,
    /// List records.
    DnsRead,
    /// Change records.
    DnsEdit,
    /// See health checks.
    HealthChecksRead,
    /// Create and delete health checks.
    HealthChecksEdit,
    /// See load balancers.
    LoadBalancersRead,
    /// Create, change and delete load balancers.
    LoadBalancersEdit,
    /// See pools and monitors.
    PoolsRead,
    /// Create, change and delete pools and monitors.
    PoolsEdit,
    /// See tunnels.
    TunnelsRead,
    /// Create, change and delete tunnels.
    TunnelsEdit,
}

impl Permission {
    /// What the token must be limited to, if it is limited.
    const fn place(self) -> &'static str {
        match self {
            Self::PoolsRead | Self::PoolsEdit | Self::TunnelsRead | Self::TunnelsEdit => {
                "the account of this zone"
            }
            Self::None
            | Self::ZoneRead
            | Self::DnsRead
            | Self::DnsEdit
            | Self::HealthChecksRead
            | Self::HealthChecksEdit
            | Self::LoadBalancersRead
            | Self::LoadBalancersEdit => "this zone",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "a valid token",
            Self::ZoneRead => "Zone › Zone › Read",
            Self::DnsRead => "Zone › DNS › Read",
            Self::DnsEdit => "Zone › DNS › Edit",
            Self::HealthChecksRead => "Zone › Health Checks › Read",
            Self::HealthChecksEdit => "Zone › Health Checks › Edit",
            Self::LoadBalancersRead => "Zone › Load Balancers › Read",
            Self::LoadBalancersEdit => "Zone › Load Balancers › Edit",
            Self::PoolsRead => "Account › Load Balancing: Monitors And Pools › Read",
            Self::PoolsEdit => "Account › Load Balancing: Monitors And Pools › Edit",
            Self::TunnelsRead => "Account › Cloudflare Tunnel › Read",
            Self::TunnelsEdit => "Account › Cloudflare Tunnel › Edit",
        })
    }
}

/// The client could not be made.
#[derive(Debug, Error)]
pub enum SetupError {
    /// Not a URL that the client can use.
    #[error("{url:?} can't be the base URL of the Cloudflare API: {reason}")]
    BaseUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS has no root certificates, or is set up wrongly.
    #[error("no TLS for the Cloudflare API; are root certificates installed (Debian: ca-certificates)?")]
    Tls(#[from] rustls::Error),
    /// Anything else.
    #[error("the HTTP client can't be made")]
    Client(#[source] reqwest::Error),
}

/// One entry of `errors` in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ApiMessage {
    /// Cloudflare's number, 1000 or greater.
    #[serde(default)]
    pub code: u32,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// Finer reasons, for some codes.
    #[serde(default)]
    pub error_chain: Vec<ApiMessage>,
}

/// How a call failed.
#[derive(Debug, Error)]
pub enum Error {
    /// Cloudflare said no, and changed nothing.
    #[error("Cloudflare refused {call}: {} ({status}, code {})", first(.errors).1, first(.errors).0)]
    Refused {
        /// The call.
        call: &'static str,
        /// HTTP status.
        status: u16,
        /// At least what the answer named; the first counts.
        errors: Vec<ApiMessage>,
    },
    /// Too many calls: Cloudflare refuses every call of this user for a while, and changed nothing.
    #[error("Cloudflare's rate limit is reached ({call}); all calls are refused for {} s", .retry_after.as_secs())]
    RateLimited {
        /// The call.
        call: &'static str,
        /// When to call again; five minutes where the answer named no time.
        retry_after: Duration,
    },
    /// The token is unknown, revoked or expired. Nothing was changed.
    #[error(
        "Cloudflare does not accept the token ({call}): {message}; make a new one and put it into the Secret"
    )]
    Unauthorized {
        /// The call.
        call: &'static str,
        /// Cloudflare's words.
        message: String,
    },
    /// The token is valid but may not do this. Nothing was changed.
    #[error(
        "the Cloudflare token may not {call}: {message}; it needs the permission {permission} for {}", .permission.place()
    )]
    Forbidden {
        /// The call.
        call: &'static str,
        /// What to grant.
        permission: Permission,
        /// Cloudflare's words.
        message: String,
    },
    /// Nobody knows whether it was applied: time ran out, the connection broke after sending, or a server failed.
    #[error("it is not known whether Cloudflare applied {call}: {reason}; read before trying again")]
    Unclear {
        /// The call.
        call: &'static str,
        /// What happened.
        reason: String,
    },
    /// It was never sent. Nothing was changed.
    #[error("Cloudflare can't be reached for {call}: {reason}")]
    Unreachable {
        /// The call.
        call: &'static str,
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// Does the answer carry this code, at the top or in a chain?
    pub fn has_code(&self, codes: &[u32]) -> bool {
        fn any(messages: &[ApiMessage], codes: &[u32]) -> bool {
            messages.iter().any(|entry| codes.contains(&entry.code) || any(&entry.error_chain, codes))
        }
        matches!(self, Self::Refused { errors, .. } if any(errors, codes))
    }

    /// The record that was named by its id is gone (81044).
    pub fn is_missing(&self) -> bool {
        self.has_code(&[81044])
    }

    /// Another record is in the way (81053, 81054, 81057, 81058).
    pub fn is_conflict(&self) -> bool {
        self.has_code(&[81053, 81054, 81057, 81058])
    }

    /// May the zone have changed through this call?
    pub fn may_be_applied(&self) -> bool {
        matches!(self, Self::Unclear { .. })
    }

    /// A short word for metrics and Events.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "Refused",
            Self::RateLimited { .. } => "RateLimited",
            Self::Unauthorized { .. } => "Unauthorized",
            Self::Forbidden { .. } => "Forbidden",
            Self::Unclear { .. } => "Unclear",
            Self::Unreachable { .. } => "Unreachable",
        }
    }
}

fn first(errors: &[ApiMessage]) -> (u32, &str) {
    errors.first().map_or((0, "no reason given"), |entry| (entry.code, &entry.message))
}

/// A failure below HTTP. Only one in connecting proves that nothing was sent.
pub(super) fn from_transport(call: &'static str, error: reqwest::Error) -> Error {
    let unsent = error.is_connect() || error.is_builder();
    let reason = chain(&error.without_url());
    if unsent { Error::Unreachable { call, reason } } else { Error::Unclear { call, reason } }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// An answer other than success.
pub(super) fn from_answer(
    call: &'static str,
    permission: Permission,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Error {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<ApiMessage>,
    }
    let errors = serde_json::from_slice::<Errors>(body).map(|body| body.errors).unwrap_or_default();
    let (code, message) = first(&errors);
    let message = message.to_owned();
    match status {
        StatusCode::TOO_MANY_REQUESTS => Error::RateLimited { call, retry_after: retry_after(headers) },
        StatusCode::UNAUTHORIZED => Error::Unauthorized { call, message },
        StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN if is_about_token(code, &message) => {
            Error::Unauthorized { call, message }
        }
        StatusCode::FORBIDDEN => Error::Forbidden { call, permission, message },
        // 408 and 409 come from the edge as well as from the API: not proof that nothing was changed.
        StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT => {
            Error::Unclear { call, reason: format!("answered {status}") }
        }
        _ if (status.is_client_error() || status.is_success()) && !errors.is_empty() => {
            Error::Refused { call, status: status.as_u16(), errors }
        }
        _ => Error::Unclear { call, reason: format!("answered {status} without an error of the API") },
    }
}

/// Is the token itself wrong (missing, malformed, unknown), rather than what it may do? 9109 means both.
fn is_about_token(code: u32, message: &str) -> bool {
    matches!(code, 1000 | 6003 | 6111 | 9106) || (code == 9109 && message.contains("Invalid access token"))
}

fn retry_after(headers: &HeaderMap) -> Duration {
    const LOCK_OUT: Duration = Duration::from_mins(5);
    let seconds =
        headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    seconds.map_or(LOCK_OUT, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Error {
        let status = StatusCode::from_u16(status).expect("a status");
        from_answer("change records", Permission::DnsEdit, status, &HeaderMap::new(), body.as_bytes())
    }

    fn coded(code: u32) -> String {
        format!(
            r#"{{"success":false,"errors":[{{"code":{code},"message":"x","extra":1}}],"messages":[],"result":null}}"#
        )
    }

    #[test]
    fn a_server_error_is_unclear_even_with_a_well_formed_body() {
        for status in [500, 502, 503, 520, 524] {
            let error = answer(status, &coded(1000));
            assert!(error.may_be_applied() && matches!(error, Error::Unclear { .. }), "{status}");
        }
    }

    #[test]
    fn a_client_error_that_is_no_answer_of_the_api_is_unclear() {
        assert!(matches!(answer(400, "<html>"), Error::Unclear { .. }));
    }

    #[test]
    fn codes_in_a_chain_count() {
        let body = r#"{"errors":[{"code":1004,"message":"x","error_chain":[{"code":81044,"message":"y"}]}]}"#;
        assert!(answer(400, body).is_missing());
        assert!(answer(400, &coded(81053)).is_conflict());
        assert!(!answer(400, &coded(81053)).is_missing());
    }

    #[test]
    fn a_missing_permission_is_named() {
        let text = answer(403, &coded(10000)).to_string();
        assert!(text.contains("Zone › DNS › Edit"), "{text}");
        assert!(matches!(answer(403, &coded(9109)), Error::Forbidden { .. }));
        let unknown = coded(9109).replace("\"x\"", "\"Invalid access token\"");
        assert!(matches!(answer(403, &unknown), Error::Unauthorized { .. }));
    }

    #[test]
    fn a_rate_limit_without_a_time_lasts_five_minutes() {
        assert!(
            matches!(answer(429, ""), Error::RateLimited { retry_after, .. } if retry_after.as_secs() == 300)
        );
    }
}
