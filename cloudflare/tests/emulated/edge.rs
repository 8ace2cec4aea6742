//! DNS and edge: what they see and when, how bodies go through, what a dead origin looks like.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{HOSTNAME, client, eventually, options, record, start, target, zone};
use bytes::Bytes;
use diptych_cloudflare::address::point_name;
use diptych_cloudflare::client::RecordType;
use diptych_cloudflare::emulator::{EdgeListener, Emulator, EmulatorOptions};
use futures::StreamExt;
use hickory_server::proto::op::{Message, Query, ResponseCode};
use hickory_server::proto::rr::{Name, RData, RecordType as DnsType};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const MIB: usize = 1 << 20;

// ---- an origin, a client, a resolver ----

/// What an origin does with a request.
async fn answer(
    name: &'static str,
    request: Request<Incoming>,
) -> Result<Response<axum::body::Body>, Infallible> {
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned()
    };
    let seen =
        format!("{name} {} {} {}", header("host"), header("cf-connecting-ip"), header("x-forwarded-for"));
    match request.uri().path() {
        "/count" => {
            let mut body = request.into_body();
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
            Ok(Response::new(bytes.to_string().into()))
        }
        "/download" => {
            let chunk = Bytes::from(vec![7u8; MIB]);
            let frames =
                futures::stream::repeat(chunk).take(64).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
            Ok(Response::new(axum::body::Body::new(StreamBody::new(frames))))
        }
        "/refuse" => Ok(Response::builder().status(401).body("no".into()).expect("a response")),
        "/head" => {
            Ok(Response::builder().header("content-length", "12345").body("".into()).expect("a response"))
        }
        _ => Ok(Response::new(seen.into())),
    }
}

/// Serves on that address until dropped. All connections end with it, as if the process were killed.
struct Origin {
    connections: Arc<AtomicUsize>,
    tasks: tokio::task::JoinHandle<()>,
}

impl Origin {
    async fn start(name: &'static str, address: SocketAddr) -> (Self, SocketAddr) {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let bound = listener.local_addr().expect("bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let tasks = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let service = service_fn(move |request| answer(name, request));
                serving.spawn(async move {
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                });
            }
        });
        (Self { connections, tasks }, bound)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

/// An emulator whose edge leads to this port, and the name pointed at 127.0.0.1.
async fn fronted(origin_port: u16, change: impl FnOnce(&mut EmulatorOptions)) -> (Emulator, SocketAddr) {
    let mut options = options();
    options.edges = vec![EdgeListener { listen: SocketAddr::from(([127, 0, 0, 1], 0)), origin_port }];
    change(&mut options);
    let emulator = start(options).await;
    let client = client(&emulator);
    point_name(&client, &zone(&client).await, &target("127.0.0.1")).await.expect("pointed");
    let edge = emulator.edge_addresses()[0];
    (emulator, edge)
}

async fn send<B>(edge: SocketAddr, request: Request<B>) -> Result<(StatusCode, Bytes), hyper::Error>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let stream = TcpStream::connect(edge).await.expect("the edge listens");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, body))
}

fn get(path: &str, host: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", host).body(Full::default()).expect("a request")
}

async fn text(edge: SocketAddr, path: &str, host: &str) -> (u16, String) {
    let (status, body) = send(edge, get(path, host)).await.expect("answered");
    (status.as_u16(), String::from_utf8_lossy(&body).into_owned())
}

fn query(name: &str, kind: DnsType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 4711;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).expect("a name"), kind));
    message
}

async fn ask_udp(server: SocketAddr, name: &str, kind: DnsType) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    socket.send_to(&query(name, kind).to_vec().expect("encoded"), server).await.expect("sent");
    let mut buffer = [0; 1500];
    let got = tokio::time::timeout(Duration::from_millis(700), socket.recv(&mut buffer)).await.ok()?;
    Some(Message::from_vec(&buffer[..got.expect("received")]).expect("a DNS message"))
}

async fn ask_tcp(server: SocketAddr, name: &str, kind: DnsType) -> Message {
    let mut stream = TcpStream::connect(server).await.expect("connected");
    let bytes = query(name, kind).to_vec().expect("encoded");
    stream.write_u16(u16::try_from(bytes.len()).expect("short")).await.expect("sent");
    stream.write_all(&bytes).await.expect("sent");
    let mut answer = vec![0; usize::from(stream.read_u16().await.expect("answered"))];
    stream.read_exact(&mut answer).await.expect("answered");
    Message::from_vec(&answer).expect("a DNS message")
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let data = message.answers.iter().map(|record| &record.data);
    data.filter_map(|data| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    })
    .collect()
}

// ---- DNS ----

#[tokio::test]
async fn dns_answers_open_records_and_hides_proxied_ones_behind_the_edge() {
    let (emulator, _edge) =
        fronted(1, |options| options.edge_addresses = vec![IpAddr::from([127, 9, 9, 9])]).await;
    let dns = emulator.dns_address().expect("it has one");
    let client = client(&emulator);
    let zone = zone(&client).await;
    for (name, kind, content) in [
        ("open.example.com", RecordType::A, "192.0.2.1"),
        ("open.example.com", RecordType::Aaaa, "2001:db8::1"),
        ("alias.example.com", RecordType::Cname, "open.example.com"),
        ("text.example.com", RecordType::Other("TXT".to_owned()), "\"hello world\""),
    ] {
        client.create_record(&zone, &record(name, kind, content)).await.expect("made");
    }
    let open = ask_udp(dns, "open.example.com", DnsType::A).await.expect("answered");
    assert_eq!(addresses(&open), [IpAddr::from([192, 0, 2, 1])]);
    assert!(open.metadata.authoritative);
    let six = ask_tcp(dns, "OPEN.example.com", DnsType::AAAA).await;
    assert_eq!(addresses(&six), ["2001:db8::1".parse::<IpAddr>().expect("an address")]);
    let alias = ask_tcp(dns, "alias.example.com", DnsType::A).await;
    assert_eq!((alias.answers.len(), addresses(&alias)), (2, vec![IpAddr::from([192, 0, 2, 1])]));
    let proxied = ask_udp(dns, HOSTNAME, DnsType::A).await.expect("answered");
    assert_eq!(addresses(&proxied), [IpAddr::from([127, 9, 9, 9])]);
    let txt = ask_udp(dns, "text.example.com", DnsType::TXT).await.expect("answered");
    assert!(txt.answers[0].data.to_string().contains("hello world"));
    for kind in [DnsType::SOA, DnsType::NS] {
        assert!(!ask_udp(dns, "example.com", kind).await.expect("answered").answers.is_empty(), "{kind}");
    }
    let missing = ask_udp(dns, "missing.example.com", DnsType::A).await.expect("answered");
    assert_eq!((missing.metadata.response_code, missing.authorities.len()), (ResponseCode::NXDomain, 1));
    let no_such_type = ask_udp(dns, "open.example.com", DnsType::TXT).await.expect("answered");
    assert_eq!((no_such_type.metadata.response_code, no_such_type.answers.len()), (ResponseCode::NoError, 0));
    let elsewhere = ask_udp(dns, "example.net", DnsType::A).await.expect("answered");
    assert_eq!(elsewhere.metadata.response_code, ResponseCode::Refused);
    emulator.set_faults(|faults| faults.dns_down = true);
    assert!(ask_udp(dns, HOSTNAME, DnsType::A).await.is_none());
}

#[tokio::test]
async fn the_api_shows_a_change_at_once_and_dns_only_after_the_propagation() {
    let emulator = start(options()).await;
    let dns = emulator.dns_address().expect("it has one");
    let client = client(&emulator);
    let zone = zone(&client).await;
    emulator.set_faults(|faults| faults.propagation_ms = 600);
    let sent = Instant::now();
    client.create_record(&zone, &record("a.example.com", RecordType::A, "192.0.2.1")).await.expect("made");
    assert_eq!(
        client
            .records(&zone, &diptych_cloudflare::client::RecordFilter::default())
            .await
            .expect("listed")
            .len(),
        1
    );
    let early = ask_udp(dns, "a.example.com", DnsType::A).await.expect("answered");
    assert!(sent.elapsed() > Duration::from_millis(600) || addresses(&early).is_empty());
    eventually("it has spread", async || {
        let answer = ask_udp(dns, "a.example.com", DnsType::A).await.expect("answered");
        (!addresses(&answer).is_empty()).then_some(())
    })
    .await;
    assert!(sent.elapsed() >= Duration::from_millis(600));
}

// ---- the edge ----

#[tokio::test]
async fn the_edge_keeps_the_host_and_says_who_the_client_is() {
    let (_origin, address) = Origin::start("east", SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let (_emulator, edge) =
        fronted(address.port(), |options| options.default_host = Some(HOSTNAME.to_owned())).await;
    let with_port = format!("{HOSTNAME}:{}", edge.port());
    let (status, body) = text(edge, "/", &with_port).await;
    assert_eq!((status, body), (200, format!("east {with_port} 127.0.0.1 127.0.0.1")));
    let (status, body) = text(edge, "/", &edge.to_string()).await;
    assert_eq!((status, body), (200, format!("east {edge} 127.0.0.1 127.0.0.1")));
    assert_eq!(text(edge, "/", "other.example.com").await.0, 530);
}

#[tokio::test]
async fn connections_to_the_origin_are_used_again() {
    let (origin, address) = Origin::start("east", SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let (_emulator, edge) = fronted(address.port(), |_| {}).await;
    for _ in 0..50 {
        assert_eq!(text(edge, "/", HOSTNAME).await.0, 200);
    }
    assert!(origin.connections.load(Ordering::Relaxed) < 10);
}

#[tokio::test]
async fn a_flip_takes_traffic_to_the_other_origin_and_a_dead_origin_fails_fast() {
    let (east, address) = Origin::start("east", SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let west_address = SocketAddr::from((Ipv4Addr::new(127, 0, 2, 1), address.port()));
    let (_west, _) = Origin::start("west", west_address).await;
    let (emulator, edge) = fronted(address.port(), |_| {}).await;
    assert!(text(edge, "/", HOSTNAME).await.1.starts_with("east"));
    drop(east);
    let dead = Instant::now();
    eventually("the origin is down", async || (text(edge, "/", HOSTNAME).await.0 == 521).then_some(())).await;
    assert!(dead.elapsed() < Duration::from_secs(2));
    let client = client(&emulator);
    let zone = zone(&client).await;
    emulator.set_faults(|faults| faults.propagation_ms = 300);
    point_name(&client, &zone, &target("127.0.2.1")).await.expect("flipped");
    eventually("the edge has heard", async || {
        text(edge, "/", HOSTNAME).await.1.starts_with("west").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let (_origin, address) = Origin::start("west", SocketAddr::from(([127, 0, 2, 1], 0))).await;
    let (emulator, edge) = fronted(address.port(), |_| {}).await;
    let client = client(&emulator);
    let mut both = target("127.0.0.1");
    both.addresses.push(IpAddr::from([127, 0, 2, 1]));
    point_name(&client, &zone(&client).await, &both).await.expect("pointed");
    for _ in 0..10 {
        let request =
            Request::put("/count").header("host", HOSTNAME).body(Full::new(Bytes::from_static(b"12345")));
        let (status, body) = send(edge, request.expect("a request")).await.expect("answered");
        assert_eq!((status.as_u16(), body.as_ref()), (200, b"5".as_ref()));
    }
}

fn upload(
    path: &str,
    mebibytes: usize,
    length: bool,
) -> Request<StreamBody<impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>>>> {
    let chunk = Bytes::from(vec![1u8; MIB]);
    let frames = futures::stream::repeat(chunk).take(mebibytes).map(|chunk| Ok(Frame::data(chunk)));
    let mut request = Request::put(path).header("host", HOSTNAME);
    if length {
        request = request.header("content-length", mebibytes * MIB);
    }
    request.body(StreamBody::new(frames)).expect("a request")
}

/// Most memory that this process ever held, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("there is such a line");
    line.split_whitespace().nth(1).expect("a number").parse::<usize>().expect("a number") * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_64_mib_go_both_ways_without_being_held() {
    let (_origin, address) = Origin::start("east", SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let (_emulator, edge) = fronted(address.port(), |_| {}).await;
    let before = peak_memory();
    for length in [true, false] {
        let (status, body) = send(edge, upload("/count", 64, length)).await.expect("answered");
        assert_eq!((status.as_u16(), body.as_ref()), (200, (64 * MIB).to_string().as_bytes()));
    }
    let stream = TcpStream::connect(edge).await.expect("the edge listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let mut body = sender.send_request(get("/download", HOSTNAME)).await.expect("answered").into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.expect("whole").data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(bytes, 64 * MIB);
    let grown = peak_memory() - before;
    assert!(grown < 32 * MIB, "held {grown} bytes more while 192 MiB went through");
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_413_with_or_without_a_length() {
    let (_origin, address) = Origin::start("east", SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let (_emulator, edge) = fronted(address.port(), |options| options.body_limit = 2 * MIB as u64).await;
    assert_eq!(send(edge, upload("/count", 2, true)).await.expect("answered").0.as_u16(), 200);
    // The client may see the answer or the cut, as it is still sending.
    for length in [true, false] {
        if let Ok((status, _)) = send(edge, upload("/count", 3, length)).await {
            assert_eq!(status.as_u16(), 413);
        }
    }
    let declared = format!("PUT /count HTTP/1.1\r\nhost: {HOSTNAME}\r\ncontent-length: {}\r\n\r\n", 3 * MIB);
    assert!(raw(edge, &declared).await.starts_with("HTTP/1.1 413 "));
    // Just over the limit, so that nothing is left unread that would reset the connection.
    let chunk = |bytes: usize| format!("{bytes:x}\r\n{}\r\n", "x".repeat(bytes));
    let chunks = [chunk(2 * MIB), chunk(10)].concat();
    let chunked =
        format!("PUT /count HTTP/1.1\r\nhost: {HOSTNAME}\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
    assert!(raw(edge, &chunked).await.starts_with("HTTP/1.1 413 "));
}

/// Sends these bytes, and reads the head of the answer.
async fn raw(edge: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(edge).await.expect("the edge listens");
    stream.write_all(request.as_bytes()).await.expect("sent");
    read_head(&mut stream).await
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("ASCII")
}

#[tokio::test]
async fn a_client_that_expects_100_continue_is_asked_for_its_body_only_when_it_is_wanted() {
    let (origin, address) = Origin::start("east", SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let (_emulator, edge) = fronted(address.port(), |options| options.body_limit = 1000).await;
    let head = |length: u32| {
        format!(
            "PUT /count HTTP/1.1\r\nhost: {HOSTNAME}\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut stream = TcpStream::connect(edge).await.expect("the edge listens");
    stream.write_all(head(5).as_bytes()).await.expect("sent");
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 100 "));
    stream.write_all(b"12345").await.expect("sent");
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
    assert!(raw(edge, &head(5000)).await.starts_with("HTTP/1.1 413 "));
    drop(origin);
    eventually("the origin is down", async || {
        raw(edge, &head(5)).await.starts_with("HTTP/1.1 521 ").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let (_origin, address) = Origin::start("east", SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let (_emulator, edge) = fronted(address.port(), |_| {}).await;
    let declared =
        format!("PUT /refuse HTTP/1.1\r\nhost: {HOSTNAME}\r\ncontent-length: 1000000\r\n\r\nbegun");
    assert!(raw(edge, &declared).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn the_length_of_a_head_answer_goes_through() {
    let (_origin, address) = Origin::start("east", SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let (_emulator, edge) = fronted(address.port(), |_| {}).await;
    let head = raw(edge, &format!("HEAD /head HTTP/1.1\r\nhost: {HOSTNAME}\r\n\r\n")).await;
    assert!(
        head.contains("content-length: 12345")
            && head.contains("server: cloudflare")
            && head.contains("cf-ray: "),
        "{head}"
    );
}

#[tokio::test]
async fn an_origin_that_does_not_answer_in_time_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = silent.local_addr().expect("bound").port();
    let (_emulator, edge) =
        fronted(port, |options| options.origin_answer_limit = Duration::from_millis(200)).await;
    assert_eq!(text(edge, "/", HOSTNAME).await.0, 524);
    let breaking = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = breaking.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = breaking.accept().await {
            let _ = stream.read(&mut [0; 100]).await;
        }
    });
    let (_emulator, edge) = fronted(port, |_| {}).await;
    assert_eq!(text(edge, "/", HOSTNAME).await.0, 520);
}
