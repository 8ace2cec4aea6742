//! Sessions of REST: begun, used, refreshed, stolen, ended.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use crate::common::{Others, TOKEN, TestSite, user};
use async_trait::async_trait;
use diptych_core::ids::{FamilyId, KeeperNumber};
use diptych_core::keys;
use diptych_core::records::{Record, TokenFamily};
use diptych_core::session::{FAMILY_MS, Holder, TokenMark, User, issue};
use diptych_gateway::Limits;
use diptych_gateway::authority::SingleSite;
use diptych_gateway::rest::Reviewer;
use diptych_wire::review::{Access, Resource, Verb};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

struct Pair {
    session: String,
    refresh: String,
}

async fn call(site: &TestSite, method: Method, path: &str, token: Option<&str>, body: String) -> Response {
    let mut request = site.http.request(method, site.rest(path)).body(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.expect("an answer")
}

async fn begin(site: &TestSite, token: &str) -> Response {
    call(site, Method::POST, "/api/v1/sessions", Some(token), String::new()).await
}

async fn refresh(site: &TestSite, token: &str) -> Response {
    let body = json!({"refresh_token": token}).to_string();
    call(site, Method::POST, "/api/v1/sessions/refresh", None, body).await
}

async fn list(site: &TestSite, token: &str) -> StatusCode {
    call(site, Method::GET, "/api/v1/files", Some(token), String::new()).await.status()
}

async fn pair(answer: Response) -> Pair {
    assert!(answer.status().is_success(), "{}", answer.text().await.expect("a body"));
    assert_eq!(answer.headers()["cache-control"], "private, no-store");
    let document: Value = answer.json().await.expect("JSON");
    let text = |name: &str| document[name].as_str().expect("text").to_owned();
    assert!(text("expires") < text("refresh_expires"), "{document}");
    Pair { session: text("token"), refresh: text("refresh_token") }
}

async fn refused(answer: Response, status: StatusCode) -> String {
    let found = answer.status();
    let text = answer.text().await.expect("a body");
    assert_eq!(found, status, "{text}");
    text
}

/// Jane may list files, as long as nobody took that from her; the administrator may change the site. Her groups are many if she is `popular`.
#[derive(Default)]
struct Cluster {
    asked: Mutex<Vec<String>>,
    may_nothing: Mutex<HashSet<String>>,
}

#[async_trait]
impl Reviewer for Cluster {
    async fn identify(&self, token: &str) -> Result<Option<User>, String> {
        self.asked.lock().expect("no panic").push(token.to_owned());
        Ok(match token {
            "jane" | "joe" | "admin" => Some(user(token)),
            "popular" => Some(User { groups: vec!["g".repeat(200); 50], ..user(token) }),
            _ => None,
        })
    }

    async fn allows(&self, user: &User, access: Access, _: &str) -> Result<bool, String> {
        if user.name == "admin" {
            return Ok(access == Access { verb: Verb::Update, resource: Resource::StorageClusters });
        }
        let lists = access == Access { verb: Verb::List, resource: Resource::FileObjects };
        Ok(lists && !self.may_nothing.lock().expect("no panic").contains(&user.name))
    }
}

async fn beside(cluster: &Arc<Cluster>) -> TestSite {
    let reviewer = Some(Arc::clone(cluster) as Arc<dyn Reviewer>);
    let others = Others { reviewer, ..Others::default() };
    let authority = Arc::new(SingleSite { keeper: KeeperNumber(1) });
    TestSite::start_beside(Limits::default(), authority, others, |catalog| catalog).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reaches_what_its_configured_token_does_until_it_is_ended() {
    let site = TestSite::start().await;
    let tokens = pair(begin(&site, TOKEN).await).await;
    let stored =
        call(&site, Method::POST, "/api/v1/files?id=a", Some(&tokens.session), "bytes".to_owned()).await;
    assert_eq!(stored.status(), StatusCode::CREATED);
    assert_eq!(list(&site, &tokens.session).await, StatusCode::OK);

    let end =
        async |token: &str| call(&site, Method::DELETE, "/api/v1/sessions", Some(token), String::new()).await;
    refused(end(TOKEN).await, StatusCode::BAD_REQUEST).await;
    assert_eq!(end(&tokens.session).await.status(), StatusCode::NO_CONTENT);
    crate::common::eventually("the session is over", async || {
        list(&site, &tokens.session).await == StatusCode::UNAUTHORIZED
    })
    .await;
    let said = refused(refresh(&site, &tokens.refresh).await, StatusCode::UNAUTHORIZED).await;
    assert!(said.contains("begin a new one"), "{said}");
    assert_eq!(list(&site, TOKEN).await, StatusCode::OK, "the token itself goes on");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_good_once_and_its_second_use_ends_the_session() {
    let site = TestSite::start().await;
    let first = pair(begin(&site, TOKEN).await).await;
    let other = pair(begin(&site, TOKEN).await).await;
    let second = pair(refresh(&site, &first.refresh).await).await;
    assert!(second.session != first.session && second.refresh != first.refresh);
    for session in [&first.session, &second.session] {
        assert_eq!(list(&site, session).await, StatusCode::OK);
    }

    let said = refused(refresh(&site, &first.refresh).await, StatusCode::UNAUTHORIZED).await;
    assert!(said.contains("used before"), "{said}");
    refused(refresh(&site, &second.refresh).await, StatusCode::UNAUTHORIZED).await;
    crate::common::eventually("both session tokens are refused", async || {
        list(&site, &first.session).await == StatusCode::UNAUTHORIZED
            && list(&site, &second.session).await == StatusCode::UNAUTHORIZED
    })
    .await;
    assert_eq!(list(&site, &other.session).await, StatusCode::OK, "another session of the same holder");
    assert_eq!(site.count(b"t/").await, 2, "an end is remembered");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_show_one_refresh_token_at_once_one_gets_tokens_and_nobody_keeps_a_session() {
    let site = TestSite::start().await;
    let first = pair(begin(&site, TOKEN).await).await;
    let answers = futures::future::join_all((0..8).map(|_| refresh(&site, &first.refresh))).await;
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status().is_success());
    assert_eq!(good.len(), 1);
    assert!(bad.iter().all(|answer| answer.status() == StatusCode::UNAUTHORIZED));
    for answer in good {
        let next = pair(answer).await;
        refused(refresh(&site, &next.refresh).await, StatusCode::UNAUTHORIZED).await;
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_users_session_may_is_asked_for_the_user_each_time_and_its_tokens_go_to_no_api_server() {
    let cluster = Arc::new(Cluster::default());
    let site = beside(&cluster).await;
    let tokens = pair(begin(&site, "jane").await).await;
    assert_eq!(list(&site, &tokens.session).await, StatusCode::OK);
    let said =
        call(&site, Method::POST, "/api/v1/files?id=a", Some(&tokens.session), "bytes".to_owned()).await;
    let said = refused(said, StatusCode::FORBIDDEN).await;
    assert!(said.contains("jane may not create fileobjects"), "{said}");
    let tokens = pair(refresh(&site, &tokens.refresh).await).await;
    assert_eq!(list(&site, &tokens.session).await, StatusCode::OK);

    // A right that nobody has looked at in this gateway yet, since what was seen is remembered for a minute.
    cluster.may_nothing.lock().expect("no panic").insert("joe".to_owned());
    let joe = pair(begin(&site, "joe").await).await;
    assert_eq!(list(&site, &joe.session).await, StatusCode::FORBIDDEN);
    assert_eq!(*cluster.asked.lock().expect("no panic"), ["jane", "joe"]);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_configured_token_that_it_was_begun_with() {
    let site = TestSite::start().await;
    let keyring = site.gateway().context().keyring();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let now = now.as_millis() as u64;
    let begun_with = async |token: &str, family: FamilyId| {
        let holder =
            Holder::Configured { namespace: "default".to_owned(), token: TokenMark::of(&keyring, token) };
        let tokens = issue(&keyring, (family, holder), [1; 16], now + FAMILY_MS, now).expect("tokens");
        site.put_keys(vec![(keys::token_family(family), tokens.record.encode().into())]).await;
        tokens
    };
    let good = begun_with(TOKEN, FamilyId([1; 16])).await;
    assert_eq!(list(&site, &good.session).await, StatusCode::OK);
    let old = begun_with("the-token-before", FamilyId([2; 16])).await;
    let answer = call(&site, Method::GET, "/api/v1/files", Some(&old.session), String::new()).await;
    let said = refused(answer, StatusCode::UNAUTHORIZED).await;
    assert!(said.contains("not configured any more"), "{said}");
    refused(refresh(&site, &old.refresh).await, StatusCode::UNAUTHORIZED).await;
    assert!(refresh(&site, &good.refresh).await.status().is_success());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_ends_the_sessions_of_others_and_nobody_else_does() {
    let cluster = Arc::new(Cluster::default());
    let site = beside(&cluster).await;
    let janes = [pair(begin(&site, "jane").await).await, pair(begin(&site, "jane").await).await];
    let joe = pair(begin(&site, "joe").await).await;
    let end = async |token: &str, query: &str| {
        call(&site, Method::DELETE, &format!("/api/v1/sessions?{query}"), Some(token), String::new()).await
    };
    let said = refused(end(&janes[0].session, "user=joe").await, StatusCode::FORBIDDEN).await;
    assert!(said.contains("jane may not update storageclusters"), "{said}");
    let ended: Value = end("admin", "user=jane").await.json().await.expect("JSON");
    assert_eq!(ended, json!({"ended": 2}));
    for jane in &janes {
        crate::common::eventually("jane's session is over", async || {
            list(&site, &jane.session).await == StatusCode::UNAUTHORIZED
        })
        .await;
        refused(refresh(&site, &jane.refresh).await, StatusCode::UNAUTHORIZED).await;
    }
    assert_eq!(list(&site, &joe.session).await, StatusCode::OK);

    let view = diptych_catalog::Catalog::view(site.catalog.as_ref()).await.expect("a view");
    let page = view.scan(&keys::token_families(), 10).expect("it reads");
    let open = page.entries.iter().filter(|(_, raw)| !TokenFamily::decode(raw).expect("a family").revoked);
    let open: Vec<_> = open.filter_map(|(key, _)| keys::family_of(key)).collect();
    let [family] = open.as_slice() else { panic!("{open:?}") };
    let ended: Value = end("admin", &format!("family={family}")).await.json().await.expect("JSON");
    assert_eq!(ended, json!({"ended": 1}));
    crate::common::eventually("joe's session is over", async || {
        list(&site, &joe.session).await == StatusCode::UNAUTHORIZED
    })
    .await;
    let unknown = FamilyId([9; 16]);
    refused(end("admin", &format!("family={unknown}")).await, StatusCode::BAD_REQUEST).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_good_token_begins_refreshes_and_ends_nothing_and_is_counted() {
    let cluster = Arc::new(Cluster::default());
    let site = beside(&cluster).await;
    let tokens = pair(begin(&site, TOKEN).await).await;
    refused(begin(&site, "eve").await, StatusCode::UNAUTHORIZED).await;
    refused(begin(&site, &tokens.session).await, StatusCode::FORBIDDEN).await;
    refused(begin(&site, &tokens.refresh).await, StatusCode::UNAUTHORIZED).await;
    let said = refused(begin(&site, "popular").await, StatusCode::BAD_REQUEST).await;
    assert!(said.contains("so many groups"), "{said}");
    assert_eq!(list(&site, &tokens.refresh).await, StatusCode::UNAUTHORIZED);

    // A forged refresh token ends nothing: only one that was truly given out does.
    let (signed, signature) = tokens.refresh.rsplit_once('.').expect("a signature");
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    refused(refresh(&site, &forged).await, StatusCode::UNAUTHORIZED).await;
    refused(refresh(&site, &tokens.session).await, StatusCode::UNAUTHORIZED).await;
    refused(refresh(&site, "").await, StatusCode::UNAUTHORIZED).await;
    let path = "/api/v1/sessions/refresh";
    for body in ["{}".to_owned(), "x".repeat(1 << 20)] {
        let said = refused(call(&site, Method::POST, path, None, body).await, StatusCode::BAD_REQUEST).await;
        assert!(said.contains("refresh_token"), "{said}");
    }
    assert_eq!(list(&site, &tokens.session).await, StatusCode::OK);

    // Signed as it should be, but of a family that nobody knows.
    site.delete_all(b"t/").await;
    crate::common::eventually("its family is gone", async || {
        list(&site, &tokens.session).await == StatusCode::UNAUTHORIZED
    })
    .await;
    refused(refresh(&site, &tokens.refresh).await, StatusCode::UNAUTHORIZED).await;
    let metrics = call(&site, Method::GET, "/metrics", None, String::new()).await.text().await.expect("text");
    let counted = |code: &str| metrics.contains(&format!("refusals_total{{code=\"{code}\",front=\"rest\"}}"));
    assert!(counted("Unauthorized") && counted("AccessDenied") && counted("InvalidArgument"), "{metrics}");
    assert!(![&tokens.session, &tokens.refresh].iter().any(|token| metrics.contains(token.as_str())));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_keeps_no_token() {
    let site = TestSite::start().await;
    let tokens = pair(begin(&site, TOKEN).await).await;
    let view = diptych_catalog::Catalog::view(site.catalog.as_ref()).await.expect("a view");
    let page = view.scan(&keys::token_families(), 10).expect("it reads");
    let [(_, raw)] = page.entries.as_slice() else { panic!("{} families", page.entries.len()) };
    let family = TokenFamily::decode(raw).expect("a family");
    assert!(family.takes(&tokens.refresh) && !family.revoked);
    let holds =
        |token: &str| raw.windows(16).any(|window| token.as_bytes().windows(16).any(|part| part == window));
    assert!(!holds(&tokens.session) && !holds(&tokens.refresh));
    site.stop().await;
}
