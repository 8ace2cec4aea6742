//! Callers that a cluster knows and this program does not: their tokens and rights are reviewed elsewhere, and remembered for
//! a while.

use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use diptych_core::session::User;
use diptych_wire::review::{Access, Resource, Verb};
use http::Method;
use moka::sync::Cache;
use sha2::{Digest, Sha256};

/// What was seen is good for so long.
const FRESH: Duration = Duration::from_mins(1);
/// And for so long while nobody can be asked: files are read and written though the API server is away.
const STALE: Duration = Duration::from_hours(1);
/// Tokens, and rights, that are remembered.
const KNOWN: u64 = 10_000;

/// What a request does that matched the route `path`.
pub(super) fn access_of(method: &Method, path: &str) -> Access {
    let conflicts = path.starts_with("/api/v1/conflicts");
    let files = ["/api/v1/files", "/api/files", "/api/v1/fragments", "/api/v1/ledger"];
    if !conflicts && !files.iter().any(|prefix| path.starts_with(prefix)) {
        let verb = if method == Method::GET { Verb::Get } else { Verb::Update };
        return Access { verb, resource: Resource::StorageClusters };
    }
    let verb = match *method {
        // A file gets another head.
        Method::POST if conflicts => Verb::Update,
        Method::POST => Verb::Create,
        Method::PUT | Method::PATCH => Verb::Update,
        Method::DELETE => Verb::Delete,
        _ if path.contains('{') => Verb::Get,
        _ => Verb::List,
    };
    Access { verb, resource: Resource::FileObjects }
}

/// Who knows tokens and rights.
#[async_trait]
pub trait Reviewer: Send + Sync + 'static {
    /// Whose token this is; None: nobody's. The error: nobody can be asked now, and why.
    async fn identify(&self, token: &str) -> Result<Option<User>, String>;

    /// Whether a user may do this in a namespace. The error as above.
    async fn allows(&self, user: &User, access: Access, namespace: &str) -> Result<bool, String>;
}

/// A reviewer, what it said lately, and the namespace of the site: what no bucket is named for is done there.
#[derive(Clone)]
pub struct Reviews {
    reviewer: Arc<dyn Reviewer>,
    pub(super) namespace: String,
    /// By token's hash.
    holders: Remembered<[u8; 32], User>,
    /// By user's hash, and namespace.
    rights: Remembered<([u8; 32], Access, String), ()>,
}

impl Reviews {
    /// Nothing is known yet.
    pub fn new(reviewer: Arc<dyn Reviewer>, namespace: String) -> Self {
        Self { reviewer, namespace, holders: Remembered::default(), rights: Remembered::default() }
    }

    pub(super) async fn identify(&self, token: &str) -> Result<Option<User>, String> {
        self.holders.or_ask(Sha256::digest(token).into(), self.reviewer.identify(token)).await
    }

    pub(super) async fn allows(&self, user: &User, access: Access, namespace: &str) -> Result<bool, String> {
        let text = serde_json::to_vec(user).map_err(|error| error.to_string())?;
        let key = (Sha256::digest(text).into(), access, namespace.to_owned());
        let ask = async { Ok(self.reviewer.allows(user, access, namespace).await?.then_some(())) };
        Ok(self.rights.or_ask(key, ask).await?.is_some())
    }
}

/// What was said yes to, and until when it need not be asked again.
#[derive(Clone)]
struct Remembered<K, V>(Cache<K, (V, Instant)>);

impl<K, V> Default for Remembered<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn default() -> Self {
        Self(Cache::builder().max_capacity(KNOWN).time_to_live(STALE).build())
    }
}

impl<K, V> Remembered<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// What is remembered, or what `ask` says. A no is not remembered, and ends what was.
    async fn or_ask(
        &self,
        key: K,
        ask: impl Future<Output = Result<Option<V>, String>>,
    ) -> Result<Option<V>, String> {
        let seen = self.0.get(&key);
        match &seen {
            Some((value, fresh_until)) if Instant::now() < *fresh_until => return Ok(Some(value.clone())),
            _ => {}
        }
        let said = match (ask.await, seen) {
            (Err(reason), Some((value, _))) => {
                tracing::warn!(reason, "what was seen within the hour is taken for good");
                return Ok(Some(value));
            }
            (said, _) => said?,
        };
        match &said {
            Some(value) => self.0.insert(key, (value.clone(), Instant::now() + FRESH)),
            None => self.0.invalidate(&key),
        }
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_request_is_a_verb_on_a_resource() {
        let of = |method: Method, path| {
            let access = access_of(&method, path);
            (access.verb.as_str(), access.resource.plural())
        };
        assert_eq!(of(Method::GET, "/api/v1/files/"), ("list", "fileobjects"));
        assert_eq!(of(Method::GET, "/api/files/{*id}"), ("get", "fileobjects"));
        assert_eq!(of(Method::HEAD, "/api/v1/files/{*id}"), ("get", "fileobjects"));
        assert_eq!(of(Method::POST, "/api/v1/files/"), ("create", "fileobjects"));
        assert_eq!(of(Method::PUT, "/api/v1/files/{*id}"), ("update", "fileobjects"));
        assert_eq!(of(Method::PATCH, "/api/v1/files/{*id}"), ("update", "fileobjects"));
        assert_eq!(of(Method::DELETE, "/api/v1/files/{*id}"), ("delete", "fileobjects"));
        assert_eq!(of(Method::GET, "/api/v1/conflicts"), ("list", "fileobjects"));
        assert_eq!(of(Method::POST, "/api/v1/conflicts/{version}"), ("update", "fileobjects"));
        assert_eq!(of(Method::DELETE, "/api/v1/conflicts/{version}"), ("delete", "fileobjects"));
        assert_eq!(of(Method::GET, "/api/v1/ledger"), ("list", "fileobjects"));
        assert_eq!(of(Method::GET, "/api/v1/status"), ("get", "storageclusters"));
        for path in ["/api/v1/promote", "/api/v1/force-vote"] {
            assert_eq!(of(Method::POST, path), ("update", "storageclusters"));
        }
        assert_eq!(of(Method::DELETE, "/api/v1/promote"), ("update", "storageclusters"));
    }

    /// Says of every token that it is this user's, who may do everything.
    struct Says(Mutex<Result<Option<User>, String>>);

    impl Says {
        fn now(&self, answer: Result<Option<User>, String>) {
            *self.0.lock().expect("no panic") = answer;
        }
    }

    #[async_trait]
    impl Reviewer for Says {
        async fn identify(&self, _: &str) -> Result<Option<User>, String> {
            self.0.lock().expect("no panic").clone()
        }

        async fn allows(&self, user: &User, _: Access, _: &str) -> Result<bool, String> {
            Ok(self.identify("").await?.as_ref() == Some(user))
        }
    }

    fn user(name: &str) -> User {
        User { name: name.to_owned(), uid: None, groups: vec![], extra: [].into() }
    }

    #[tokio::test]
    async fn what_was_seen_outlives_the_reviewer_but_not_its_refusal() {
        let says = Arc::new(Says(Mutex::new(Ok(Some(user("jane"))))));
        let reviews = Reviews::new(says.clone(), "default".to_owned());
        let access = access_of(&Method::GET, "/api/v1/files/{*id}");
        assert_eq!(reviews.identify("a").await, Ok(Some(user("jane"))));
        assert_eq!(reviews.allows(&user("jane"), access, "default").await, Ok(true));

        says.now(Err("away".to_owned()));
        assert_eq!(reviews.identify("a").await, Ok(Some(user("jane"))), "it was seen");
        assert_eq!(reviews.identify("b").await, Err("away".to_owned()), "another's was not");
        assert_eq!(reviews.allows(&user("jane"), access, "default").await, Ok(true));
        assert_eq!(reviews.allows(&user("joe"), access, "default").await, Err("away".to_owned()));

        // Some time later, while nobody can be asked.
        let key = Sha256::digest("a").into();
        reviews.holders.0.insert(key, (user("jane"), Instant::now()));
        assert_eq!(reviews.identify("a").await, Ok(Some(user("jane"))));
        says.now(Ok(None));
        assert_eq!(reviews.identify("a").await, Ok(None));
        says.now(Err("away".to_owned()));
        assert_eq!(reviews.identify("a").await, Err("away".to_owned()), "it was taken back");
    }

    #[tokio::test]
    async fn a_right_is_one_users_and_of_all_that_its_cluster_says_of_it() {
        let says = Arc::new(Says(Mutex::new(Ok(Some(user("jane"))))));
        let reviews = Reviews::new(says, "default".to_owned());
        let access = access_of(&Method::GET, "/api/v1/files/{*id}");
        assert_eq!(reviews.allows(&user("jane"), access, "default").await, Ok(true));
        let in_a_group = User { groups: vec!["ops".to_owned()], ..user("jane") };
        assert_eq!(reviews.allows(&in_a_group, access, "default").await, Ok(false));
    }
}
