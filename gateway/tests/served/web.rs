//! The web page, as a browser asks for it.

use crate::common::{TOKEN, TestSite};
use reqwest::{Response, StatusCode};

const FILES: [(&str, &str); 8] = [
    ("/", "text/html; charset=utf-8"),
    ("/web/style.css", "text/css; charset=utf-8"),
    ("/web/icon.svg", "image/svg+xml"),
    ("/web/main.js", "text/javascript; charset=utf-8"),
    ("/web/api.js", "text/javascript; charset=utf-8"),
    ("/web/dom.js", "text/javascript; charset=utf-8"),
    ("/web/files.js", "text/javascript; charset=utf-8"),
    ("/web/status.js", "text/javascript; charset=utf-8"),
];

async fn get(site: &TestSite, path: &str) -> Response {
    site.http.get(site.rest(path)).send().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_all_that_it_loads_are_served_to_everybody_under_a_strict_policy() {
    let site = TestSite::start().await;
    let mut all = String::new();
    for (path, content_type) in FILES {
        let answer = get(&site, path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let headers = answer.headers().clone();
        assert_eq!(headers["content-type"], content_type, "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        let policy = headers["content-security-policy"].to_str().expect("text");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        all += &answer.text().await.expect("text");

        let again = site.http.get(site.rest(path)).header("if-none-match", &headers["etag"]).send().await;
        assert_eq!(again.expect("an answer").status(), StatusCode::NOT_MODIFIED, "{path}");
    }
    // What the policy would refuse is not in it, and what it names is served.
    for forbidden in ["https://", "<style", "onclick", "innerHTML", "localStorage", "sessionStorage", "eval("]
    {
        assert!(!all.contains(forbidden), "{forbidden}");
    }
    let named = all.split('"').filter(|text| text.starts_with("/web/") || text.starts_with("./"));
    for name in named.map(|name| name.replace("./", "/web/")) {
        assert!(FILES.iter().any(|(path, _)| *path == name), "{name} is not served");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_the_page_there_is_nothing_without_a_token() {
    let site = TestSite::start().await;
    for path in ["/web", "/web/", "/web/other.js", "/web/../Cargo.toml", "/index.html"] {
        let answer = get(&site, path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/json", "{path}");
    }
    let posted = site.http.post(site.rest("/")).send().await.expect("an answer");
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get(&site, "/api/v1/files").await.status(), StatusCode::UNAUTHORIZED);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_a_page_can_not_act_as_the_page() {
    let site = TestSite::start().await;
    let url = site.rest("/api/v1/files?id=page.html");
    let page = "<script>alert(1)</script>";
    let request = site.http.post(url).bearer_auth(TOKEN).header("content-type", "text/html").body(page);
    assert_eq!(request.send().await.expect("an answer").status(), StatusCode::CREATED);
    let read = site.get("page.html").await;
    assert_eq!(read.headers()["content-type"], "text/html");
    assert_eq!(read.headers()["content-security-policy"], "default-src 'none'; sandbox");
    assert_eq!(read.headers()["x-content-type-options"], "nosniff");
    assert_eq!(read.text().await.expect("text"), page);
    site.stop().await;
}
