//! What the tests share: an emulator on free ports, a client for it, waiting with a deadline.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::time::{Duration, Instant};

use diptych_cloudflare::address::{NameTarget, Owner};
use diptych_cloudflare::client::{Client, ClientOptions, NewRecord, RecordType, ZoneId};
use diptych_cloudflare::emulator::{Emulator, EmulatorOptions};
use diptych_core::ids::ClusterId;

pub(crate) const TOKEN: &str = "yQ2tUPGMVrkpE5iELSRy7Vw8hDfKjBnCxZaQwErT";
pub(crate) const HOSTNAME: &str = "files.example.com";

pub(crate) fn options() -> EmulatorOptions {
    EmulatorOptions::local("example.com", TOKEN).expect("valid options")
}

pub(crate) async fn start(options: EmulatorOptions) -> Emulator {
    Emulator::start(options).await.expect("free ports")
}

pub(crate) fn client_with(emulator: &Emulator, token: &str) -> Client {
    let options = ClientOptions::new(token.parse().expect("a token")).base_url(&emulator.api_url());
    Client::new(options.call_limit(Duration::from_secs(5))).expect("plain http needs nothing")
}

pub(crate) fn client(emulator: &Emulator) -> Client {
    client_with(emulator, TOKEN)
}

pub(crate) async fn zone(client: &Client) -> ZoneId {
    client.zone_by_name("example.com").await.expect("the API answers").expect("the zone exists").id
}

pub(crate) fn owner() -> Owner {
    Owner::new(ClusterId([0xd1; 16]))
}

pub(crate) fn target(address: &str) -> NameTarget {
    NameTarget {
        hostname: HOSTNAME.to_owned(),
        addresses: vec![address.parse().expect("an address")],
        proxied: true,
        ttl: 60,
        owner: owner(),
    }
}

pub(crate) fn record(name: &str, kind: RecordType, content: &str) -> NewRecord {
    NewRecord {
        name: name.to_owned(),
        kind,
        content: content.to_owned(),
        proxied: false,
        ttl: 1,
        comment: owner().comment().to_owned(),
    }
}

/// Asks again until the answer is there; a test that never gets one fails.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
