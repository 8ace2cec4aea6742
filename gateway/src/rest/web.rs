//! The web page: what a browser needs lies in this binary (`gateway/web`), and nothing of it comes from elsewhere.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, StatusCode};

use crate::objects::TagList;

/// A file of the page.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

macro_rules! asset {
    ($path:literal, $content_type:literal, $file:literal) => {
        Asset {
            path: $path,
            content_type: $content_type,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/", $file)),
        }
    };
}

static ASSETS: [Asset; 8] = [
    asset!("/", "text/html; charset=utf-8", "index.html"),
    asset!("/web/style.css", "text/css; charset=utf-8", "style.css"),
    asset!("/web/icon.svg", "image/svg+xml", "icon.svg"),
    asset!("/web/main.js", "text/javascript; charset=utf-8", "main.js"),
    asset!("/web/api.js", "text/javascript; charset=utf-8", "api.js"),
    asset!("/web/dom.js", "text/javascript; charset=utf-8", "dom.js"),
    asset!("/web/files.js", "text/javascript; charset=utf-8", "files.js"),
    asset!("/web/status.js", "text/javascript; charset=utf-8", "status.js"),
];

/// Scripts and styles are files of this origin, calls go to it alone, nobody frames the page, and no text becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Open to everybody: the page knows nothing before it is shown a token.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let tag = blake3::hash(asset.text.as_bytes()).to_hex()[..32].to_owned();
        router.route(asset.path, get(move |headers: HeaderMap| async move { answer(asset, &tag, &headers) }))
    })
}

fn answer(asset: &Asset, tag: &str, asked: &HeaderMap) -> Response {
    let headers: [(HeaderName, &str); 7] = [
        (CONTENT_TYPE, asset.content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        // Asked for again each time, and sent only when it is another: all files of a page are of one version.
        (CACHE_CONTROL, "private, no-cache"),
        (ETAG, &format!("\"{tag}\"")),
    ];
    let known = asked.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).map(TagList::parse);
    if known.is_some_and(|known| known.matches(tag)) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, asset.text).into_response()
}
