//! Tokens and what each may do.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};

use super::failure::Failure;
use super::options::InvalidOption;

/// One thing that a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// See zones.
    ZoneRead,
    /// See records.
    DnsRead,
    /// Change records.
    DnsEdit,
    /// See health checks.
    HealthChecksRead,
    /// Change health checks.
    HealthChecksEdit,
    /// See page rules.
    PageRulesRead,
    /// See load balancers.
    LoadBalancersRead,
    /// Change load balancers.
    LoadBalancersEdit,
    /// See the account's pools and monitors.
    PoolsRead,
    /// Change them.
    PoolsEdit,
    /// See the account's tunnels.
    TunnelsRead,
    /// Change them, and see their tokens.
    TunnelsEdit,
}

const RIGHTS: [(Right, &str); 12] = [
    (Right::ZoneRead, "zone_read"),
    (Right::DnsRead, "dns_read"),
    (Right::DnsEdit, "dns_edit"),
    (Right::HealthChecksRead, "health_checks_read"),
    (Right::HealthChecksEdit, "health_checks_edit"),
    (Right::PageRulesRead, "page_rules_read"),
    (Right::LoadBalancersRead, "load_balancers_read"),
    (Right::LoadBalancersEdit, "load_balancers_edit"),
    (Right::PoolsRead, "pools_read"),
    (Right::PoolsEdit, "pools_edit"),
    (Right::TunnelsRead, "tunnels_read"),
    (Right::TunnelsEdit, "tunnels_edit"),
];

/// A token, as given: `SECRET`, `SECRET:right,right`, either followed by `@zone,zone`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSpec {
    secret: String,
    rights: BTreeSet<Right>,
    /// None: all.
    zones: Option<BTreeSet<String>>,
}

impl FromStr for TokenSpec {
    type Err = InvalidOption;

    fn from_str(text: &str) -> Result<Self, InvalidOption> {
        let wrong = |reason: &str| InvalidOption { option: "--token", reason: reason.to_owned() };
        let (text, zones) = match text.trim().split_once('@') {
            Some((text, zones)) => (text, Some(zones.split(',').map(str::to_ascii_lowercase).collect())),
            None => (text.trim(), None),
        };
        let (secret, rights) = match text.split_once(':') {
            Some((secret, names)) => (secret, parse_rights(names)?),
            None => (text, RIGHTS.iter().map(|(right, _)| *right).collect()),
        };
        if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("the secret is empty or not printable"));
        }
        Ok(Self { secret: secret.to_owned(), rights, zones })
    }
}

fn parse_rights(names: &str) -> Result<BTreeSet<Right>, InvalidOption> {
    let mut rights = BTreeSet::new();
    for name in names.split(',') {
        let found = RIGHTS.iter().find(|(_, known)| *known == name);
        let known = RIGHTS.map(|(_, known)| known).join(", ");
        let (right, _) = found.ok_or_else(|| InvalidOption {
            option: "--token",
            reason: format!("{name:?} is no permission; there are {known}"),
        })?;
        rights.insert(*right);
        // As at Cloudflare, who may edit may read.
        let _ = match right {
            Right::DnsEdit => rights.insert(Right::DnsRead),
            Right::HealthChecksEdit => rights.insert(Right::HealthChecksRead),
            Right::LoadBalancersEdit => rights.insert(Right::LoadBalancersRead),
            Right::PoolsEdit => rights.insert(Right::PoolsRead),
            Right::TunnelsEdit => rights.insert(Right::TunnelsRead),
            Right::ZoneRead
            | Right::DnsRead
            | Right::HealthChecksRead
            | Right::PageRulesRead
            | Right::LoadBalancersRead
            | Right::PoolsRead
            | Right::TunnelsRead => false,
        };
    }
    Ok(rights)
}

impl fmt::Debug for TokenSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TokenSpec")
            .field("rights", &self.rights)
            .field("zones", &self.zones)
            .finish_non_exhaustive()
    }
}

/// A token that the emulator knows.
#[derive(Debug)]
pub(super) struct Token {
    /// Shown; not the secret.
    pub(super) id: String,
    spec: TokenSpec,
}

impl Token {
    pub(super) fn sees(&self, zone: &str) -> bool {
        self.spec.zones.as_ref().is_none_or(|zones| zones.contains(zone))
    }

    /// Whether it may do this in that zone.
    pub(super) fn check(&self, right: Right, zone: &str) -> Result<(), Failure> {
        if !self.sees(zone) {
            return Err(Failure::new(
                StatusCode::FORBIDDEN,
                9109,
                "Unauthorized to access requested resource",
            ));
        }
        self.check_account(right)
    }

    /// Whether it may do this in the account, whatever zones it is for.
    pub(super) fn check_account(&self, right: Right) -> Result<(), Failure> {
        if self.may(right) {
            Ok(())
        } else {
            Err(Failure::new(StatusCode::FORBIDDEN, 10000, "Authentication error"))
        }
    }

    pub(super) fn may(&self, right: Right) -> bool {
        self.spec.rights.contains(&right)
    }

    pub(super) fn is_named(&self, id_or_secret: &str) -> bool {
        self.id == id_or_secret || self.spec.secret == id_or_secret
    }
}

/// All tokens.
#[derive(Debug)]
pub(super) struct Tokens(Vec<Arc<Token>>);

impl Tokens {
    pub(super) fn new(specs: Vec<TokenSpec>) -> Self {
        let number = |(index, spec)| Arc::new(Token { id: format!("{:032x}", index + 1), spec });
        Self(specs.into_iter().enumerate().map(number).collect())
    }

    pub(super) fn find(&self, id_or_secret: &str) -> Option<&Arc<Token>> {
        self.0.iter().find(|token| token.is_named(id_or_secret))
    }

    /// The token that a request carries. A revoked one is as unknown as any other.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        path: &str,
        revoked: &BTreeSet<String>,
    ) -> Result<Arc<Token>, Failure> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            let message = "Missing X-Auth-Key, X-Auth-Email or Authorization headers";
            return Err(Failure::new(StatusCode::BAD_REQUEST, 9106, message));
        };
        let malformed = || {
            let inner = (6111, "Invalid format for Authorization header");
            Failure::new(StatusCode::BAD_REQUEST, 6003, "Invalid request headers").because(inner)
        };
        let secret =
            value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).ok_or_else(malformed)?;
        let known = self.0.iter().find(|token| token.spec.secret == secret && !revoked.contains(&token.id));
        known.cloned().ok_or_else(|| {
            if path.ends_with("/tokens/verify") {
                Failure::new(StatusCode::UNAUTHORIZED, 1000, "Invalid API Token")
            } else {
                Failure::new(StatusCode::FORBIDDEN, 9109, "Invalid access token")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_with_rights_and_zones_has_only_those() {
        let spec: TokenSpec = "s3cr3t:dns_edit@example.com".parse().expect("valid");
        assert!(!format!("{spec:?}").contains("s3cr3t"));
        let tokens = Tokens::new(vec![spec]);
        let token = tokens.find("s3cr3t").expect("known");
        assert!(token.check(Right::DnsRead, "example.com").is_ok());
        assert!(token.check(Right::ZoneRead, "example.com").is_err());
        assert!(token.check(Right::DnsEdit, "example.net").is_err());
    }

    #[test]
    fn an_unknown_right_lists_the_known_ones() {
        let error = "x:dns_write".parse::<TokenSpec>().expect_err("no such right").to_string();
        assert!(error.contains("dns_edit"), "{error}");
    }
}
