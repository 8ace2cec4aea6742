//! Which headers the edge drops, adds and changes.

use std::net::IpAddr;

use http::header::{
    CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SERVER, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;

use super::ORIGIN_VERSION;
use super::page::{EdgeFailure, Ray};

/// Of one connection only (RFC 9110, 7.6.1). Whether a body is chunked follows from the body.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
];

const CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const VISITOR: HeaderName = HeaderName::from_static("cf-visitor");
const RAY: HeaderName = HeaderName::from_static("cf-ray");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cf-cache-status");

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// The request as the origin gets it: path only, the client's Host, where it came from.
pub(super) fn to_origin(
    mut request: Request<Incoming>,
    client: IpAddr,
    scheme: &'static str,
    ray: &Ray,
) -> Result<Request<Incoming>, EdgeFailure> {
    let authority =
        request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = path.parse::<Uri>().map_err(|_| EdgeFailure::BadRequest)?;
    *request.uri_mut() = uri;
    *request.version_mut() = ORIGIN_VERSION;
    let headers = request.headers_mut();
    drop_hop_by_hop(headers);
    // The edge asks the client for the body itself, once the origin takes it.
    headers.remove(EXPECT);
    if let Some(authority) = authority {
        headers.insert(HOST, authority);
    }
    let address = HeaderValue::from_str(&client.to_string()).map_err(|_| EdgeFailure::BadRequest)?;
    let before = headers.get(&FORWARDED_FOR).and_then(|value| value.to_str().ok());
    let chain = before.map_or_else(|| client.to_string(), |before| format!("{before}, {client}"));
    headers.insert(FORWARDED_FOR, HeaderValue::from_str(&chain).map_err(|_| EdgeFailure::BadRequest)?);
    headers.insert(CONNECTING_IP, address);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    let visitor = HeaderValue::from_str(&format!("{{\"scheme\":\"{scheme}\"}}"));
    headers.insert(VISITOR, visitor.map_err(|_| EdgeFailure::BadRequest)?);
    headers.insert(RAY, ray.header());
    Ok(request)
}

/// The answer as the client gets it.
pub(super) fn to_client(mut response: Response<Incoming>, ray: &Ray) -> Response<Incoming> {
    let headers = response.headers_mut();
    drop_hop_by_hop(headers);
    headers.insert(SERVER, HeaderValue::from_static("cloudflare"));
    headers.insert(CACHE_STATUS, HeaderValue::from_static("DYNAMIC"));
    headers.insert(RAY, ray.header());
    response
}
