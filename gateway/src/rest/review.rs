//! Callers that a cluster knows and this program does not: their tokens and rights are reviewed elsewhere, and remembered for
//! a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::Method;
use moka::sync::Cache;
use sha2::{Digest, Sha256};

/// A right that was seen is good for so long.
const FRESH: Duration = Duration::from_mins(1);
/// And for so long while nobody can be asked: files are read and written though the API server is away.
const STALE: Duration = Duration::from_hours(1);
/// Verdicts that are remembered.
const KNOWN: u64 = 10_000;

/// What a request would do, in the words of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access {
    /// `get`, `list`, `create`, `update` or `delete`.
    pub verb: &'static str,
    /// API group of the resource.
    pub group: &'static str,
    /// Its plural.
    pub resource: &'static str,
}

impl Access {
    /// Of a request that matched the route `path`.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        let files = ["/api/v1/files", "/api/files", "/api/v1/fragments"];
        let resource = |verb, group, resource| Self { verb, group, resource };
        if !files.iter().any(|prefix| path.starts_with(prefix)) {
            let verb = if method == Method::GET { "get" } else { "update" };
            return resource(verb, "diptych.dev", "storageclusters");
        }
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::DELETE => "delete",
            _ if path.contains('{') => "get",
            _ => "list",
        };
        resource(verb, "files.diptych.dev", "fileobjects")
    }
}

/// What was found of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its holder may do it.
    Allowed,
    /// Its holder, named here, may not.
    Denied(String),
    /// It is nobody's.
    Unknown,
}

/// Who reviews tokens and rights.
#[async_trait]
pub trait Reviewer: Send + Sync + 'static {
    /// Whether the holder of `token` may do this. The error: nobody can be asked now, and why.
    async fn review(&self, token: &str, access: Access) -> Result<Verdict, String>;
}

/// A reviewer, what it said lately, and the namespace that those act in whom it allows.
#[derive(Clone)]
pub struct Reviews {
    reviewer: Arc<dyn Reviewer>,
    pub(super) namespace: String,
    allowed: Cache<([u8; 32], Access), Instant>,
}

impl Reviews {
    /// Nothing is known yet.
    pub fn new(reviewer: Arc<dyn Reviewer>, namespace: String) -> Self {
        let allowed = Cache::builder().max_capacity(KNOWN).time_to_live(STALE).build();
        Self { reviewer, namespace, allowed }
    }

    pub(super) async fn review(&self, token: &str, access: Access) -> Result<Verdict, String> {
        let key = (Sha256::digest(token).into(), access);
        let seen = self.allowed.get(&key);
        if seen.is_some_and(|seen| seen.elapsed() < FRESH) {
            return Ok(Verdict::Allowed);
        }
        let verdict = match self.reviewer.review(token, access).await {
            Err(reason) if seen.is_some() => {
                tracing::warn!(reason, "a right that was seen within the hour is taken for good");
                return Ok(Verdict::Allowed);
            }
            reviewed => reviewed?,
        };
        match verdict {
            Verdict::Allowed => self.allowed.insert(key, Instant::now()),
            Verdict::Denied(_) | Verdict::Unknown => self.allowed.invalidate(&key),
        }
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_request_is_a_verb_on_a_resource() {
        let of = |method: Method, path| {
            let access = Access::of(&method, path);
            (access.verb, access.resource)
        };
        assert_eq!(of(Method::GET, "/api/v1/files/"), ("list", "fileobjects"));
        assert_eq!(of(Method::GET, "/api/files/{*id}"), ("get", "fileobjects"));
        assert_eq!(of(Method::HEAD, "/api/v1/files/{*id}"), ("get", "fileobjects"));
        assert_eq!(of(Method::POST, "/api/v1/files/"), ("create", "fileobjects"));
        assert_eq!(of(Method::PUT, "/api/v1/files/{*id}"), ("update", "fileobjects"));
        assert_eq!(of(Method::DELETE, "/api/v1/files/{*id}"), ("delete", "fileobjects"));
        assert_eq!(of(Method::GET, "/api/v1/status"), ("get", "storageclusters"));
        assert_eq!(of(Method::POST, "/api/v1/promote"), ("update", "storageclusters"));
    }

    struct Says(Mutex<Result<Verdict, String>>);

    #[async_trait]
    impl Reviewer for Says {
        async fn review(&self, _: &str, _: Access) -> Result<Verdict, String> {
            self.0.lock().expect("no panic").clone()
        }
    }

    #[tokio::test]
    async fn a_right_that_was_seen_outlives_the_reviewer_but_not_its_refusal() {
        let says = Arc::new(Says(Mutex::new(Ok(Verdict::Allowed))));
        let reviews = Reviews::new(says.clone(), "default".to_owned());
        let access = Access::of(&Method::GET, "/api/v1/files/{*id}");
        assert_eq!(reviews.review("a", access).await, Ok(Verdict::Allowed));
        *says.0.lock().expect("no panic") = Err("away".to_owned());
        assert_eq!(reviews.review("a", access).await, Ok(Verdict::Allowed), "it was seen");
        assert_eq!(reviews.review("b", access).await, Err("away".to_owned()), "another's was not");
        let key = (Sha256::digest("a").into(), access);
        let Some(old) = Instant::now().checked_sub(FRESH) else { return };
        reviews.allowed.insert(key, old);
        assert_eq!(reviews.review("a", access).await, Ok(Verdict::Allowed), "nobody can be asked");
        *says.0.lock().expect("no panic") = Ok(Verdict::Denied("eve".to_owned()));
        assert_eq!(reviews.review("a", access).await, Ok(Verdict::Denied("eve".to_owned())));
        *says.0.lock().expect("no panic") = Err("away".to_owned());
        assert_eq!(reviews.review("a", access).await, Err("away".to_owned()), "it was taken back");
    }
}
