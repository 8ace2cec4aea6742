//! The client of the internal HTTP links.

use std::convert::Infallible;
use std::time::Duration;

use diptych_core::ids::ClusterId;
use diptych_wire::authority::{Authority, Request};
use diptych_wire::http::{HttpClient, HttpError, empty, full, serve};
use diptych_wire::identity::{Expected, Identity, Role};
use diptych_wire::tls::Credentials;
use http::Response;
use tokio::net::TcpListener;

const CLUSTER: ClusterId = ClusterId([3; 16]);

fn credentials(authority: &Authority, role: Role) -> Credentials {
    let identity =
        Identity { cluster: CLUSTER, site: "east".parse().expect("a name"), role, name: "n".to_owned() };
    let issued = authority.issue(&Request::new(identity, Duration::from_hours(1))).expect("a certificate");
    Credentials::new(&issued).expect("credentials")
}

async fn get(client: &HttpClient) -> Result<http::StatusCode, HttpError> {
    let request = http::Request::get(client.uri("/").expect("a URI")).body(empty()).expect("a request");
    client.send(request).await.map(|answer| answer.status())
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_left_for_another() {
    let authority = Authority::create(CLUSTER).expect("an authority");
    let (server, client) = (credentials(&authority, Role::Gateway), credentials(&authority, Role::Operator));
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let answers = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addresses =
        [&silent, &closed, &answers].map(|listener| listener.local_addr().expect("it is bound").to_string());
    drop(closed);
    let service = tower::service_fn(async |_| Ok::<_, Infallible>(Response::new(full("here"))));
    tokio::spawn(async move { serve(answers, &server, Expected::any_of(CLUSTER), service).await });

    let any = HttpClient::of_any(&addresses, &client, Expected::any_of(CLUSTER)).expect("a client");
    assert_eq!(get(&any).await.expect("the third answers"), 200);
    let none = HttpClient::of_any(&addresses[..2], &client, Expected::any_of(CLUSTER)).expect("a client");
    let error = get(&none).await.expect_err("one is silent, one closed");
    assert!(matches!(error, HttpError::Unreachable { .. }), "{error}");
}
