//! The lease record under races and faults.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::{HOSTNAME, TOKEN, client, eventually, options, owner, record, start, target, zone};
use diptych_cloudflare::address::Pointed;
use diptych_cloudflare::client::{Client, ClientOptions, RecordFilter, RecordType};
use diptych_cloudflare::emulator::{CallFault, Emulator, NextCalls, Only};
use diptych_cloudflare::witness::{LeaseRecord, NameFlip, Nonce, RecordWitness, Swap, WitnessError};
use diptych_core::ids::Epoch;
use futures::future::join_all;

async fn witness(emulator: &Emulator) -> RecordWitness {
    let client = client(emulator);
    let zone = zone(&client).await;
    RecordWitness::new(client, zone, HOSTNAME, owner())
}

fn lease(epoch: u64, site: &str, nonce: u8) -> LeaseRecord {
    LeaseRecord { epoch: Epoch(epoch), site: site.parse().expect("a site"), nonce: Nonce([nonce; 16]) }
}

async fn addresses(emulator: &Emulator) -> Vec<String> {
    let client = client(emulator);
    let zone = zone(&client).await;
    let filter = RecordFilter { name: Some(HOSTNAME.to_owned()), kind: Some(RecordType::A) };
    client.records(&zone, &filter).await.expect("listed").into_iter().map(|record| record.content).collect()
}

#[tokio::test]
async fn the_first_swap_creates_the_record_and_the_next_needs_its_token() {
    let emulator = start(options()).await;
    let witness = witness(&emulator).await;
    assert_eq!(witness.name(), "_diptych-lease.files.example.com");
    assert_eq!(witness.read().await.expect("read"), None);
    let Swap::Won { token: first, name: NameFlip::NotAsked } =
        witness.swap(None, &lease(1, "east", 1), None).await.expect("answered")
    else {
        panic!("nobody else is there")
    };
    assert!(matches!(witness.swap(None, &lease(1, "west", 2), None).await, Ok(Swap::Lost)));
    let Swap::Won { token: second, .. } =
        witness.swap(Some(&first), &lease(1, "east", 3), None).await.expect("answered")
    else {
        panic!("the token is the record's")
    };
    assert_ne!(first, second);
    assert!(matches!(witness.swap(Some(&first), &lease(2, "west", 4), None).await, Ok(Swap::Lost)));
    let held = witness.read().await.expect("read").expect("there");
    assert_eq!((held.token, held.record), (second, lease(1, "east", 3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_swaps_from_one_token_exactly_one_wins() {
    let emulator = start(options()).await;
    let witness = witness(&emulator).await;
    let mut token = None;
    for round in 0..4u64 {
        let started_from = token.clone();
        let swaps = (0..50u8).map(|number| {
            let (witness, token) = (witness.clone(), started_from.clone());
            async move {
                let record = lease(round + 1, if number % 2 == 0 { "east" } else { "west" }, number);
                witness.swap(token.as_ref(), &record, None).await.map(|swap| (record, swap))
            }
        });
        let mut winners = Vec::new();
        for result in join_all(swaps.map(tokio::spawn)).await {
            match result.expect("no panic").expect("answered") {
                (record, Swap::Won { token, .. }) => winners.push((record, token)),
                (_, Swap::Lost) => {}
            }
        }
        let held = witness.read().await.expect("read").expect("there");
        assert_eq!(winners, [(held.record, held.token.clone())]);
        token = Some(held.token);
        emulator.clear_faults();
    }
}

#[tokio::test]
async fn a_swap_flips_the_name_in_the_same_batch() {
    let emulator = start(options()).await;
    let witness = witness(&emulator).await;
    let won = witness.swap(None, &lease(1, "east", 1), Some(&target("192.0.2.1"))).await.expect("answered");
    let Swap::Won { token, name: NameFlip::Done(Pointed::Changed) } = won else { panic!("{won:?}") };
    assert_eq!(addresses(&emulator).await, ["192.0.2.1"]);
    let lost = witness.swap(None, &lease(2, "west", 2), Some(&target("192.0.2.2"))).await;
    assert!(matches!(lost, Ok(Swap::Lost)));
    assert_eq!(addresses(&emulator).await, ["192.0.2.1"], "who loses the record must not move the name");
    let won = witness.swap(Some(&token), &lease(2, "west", 3), Some(&target("192.0.2.2"))).await;
    assert!(matches!(won, Ok(Swap::Won { name: NameFlip::Done(Pointed::Changed), .. })));
    assert_eq!(addresses(&emulator).await, ["192.0.2.2"]);
}

#[tokio::test]
async fn a_foreign_record_on_the_public_name_does_not_cost_the_lease() {
    let emulator = start(options()).await;
    let witness = witness(&emulator).await;
    let client = client(&emulator);
    let mut foreign = record(HOSTNAME, RecordType::A, "198.51.100.7");
    foreign.comment = "hands off".to_owned();
    client.create_record(&zone(&client).await, &foreign).await.expect("made");
    let won = witness.swap(None, &lease(1, "east", 1), Some(&target("192.0.2.1"))).await;
    assert!(matches!(won, Ok(Swap::Won { name: NameFlip::Failed(_), .. })));
    assert_eq!(addresses(&emulator).await, ["198.51.100.7"]);
}

#[tokio::test]
async fn a_batch_refused_because_of_the_name_is_sent_once_more_without_it() {
    let emulator = start(options()).await;
    let witness = witness(&emulator).await;
    // An address that Cloudflare refuses (9021: no such time) makes the name's half of the batch fail.
    let mut bad = target("192.0.2.1");
    (bad.proxied, bad.ttl) = (false, 7);
    let won = witness.swap(None, &lease(1, "east", 1), Some(&bad)).await.expect("answered");
    assert!(matches!(won, Swap::Won { name: NameFlip::Failed(_), .. }), "{won:?}");
    assert_eq!(addresses(&emulator).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_unclear_swap_is_found_by_its_nonce() {
    let emulator = start(options()).await;
    let zone_id = zone(&client(&emulator)).await;
    let hasty = ClientOptions::new(TOKEN.parse().expect("a token")).base_url(&emulator.api_url());
    let client = Client::new(hasty.call_limit(Duration::from_millis(400))).expect("plain http");
    let witness = RecordWitness::new(client, zone_id, HOSTNAME, owner());
    let mut token = None;
    for (number, fault) in
        [(1, CallFault::TimeoutApplied), (2, CallFault::BadGatewayApplied), (3, CallFault::CutApplied)]
    {
        emulator.set_faults(|faults| faults.next = vec![NextCalls { calls: 1, fault, only: Only::Writes }]);
        let record = lease(u64::from(number), "east", number);
        let error = witness.swap(token.as_ref(), &record, None).await.expect_err("no answer");
        assert!(error.may_be_applied());
        let held = eventually("the own nonce", async || {
            witness.read().await.expect("read").filter(|held| held.record.nonce == record.nonce)
        });
        token = Some(held.await.token);
    }
}

#[tokio::test]
async fn a_swap_that_was_written_but_not_read_back_may_be_applied() {
    let emulator = start(options()).await;
    let witness = witness(&emulator).await;
    emulator.set_faults(|faults| {
        faults.next = vec![NextCalls { calls: 1, fault: CallFault::BadGateway, only: Only::Reads }];
    });
    let error = witness.swap(None, &lease(1, "east", 1), None).await.expect_err("not read back");
    assert!(matches!(&error, WitnessError::NotReadBack(_)) && error.may_be_applied());
    assert_eq!(witness.read().await.expect("read").expect("written").record, lease(1, "east", 1));
}

#[tokio::test]
async fn a_record_that_diptych_did_not_write_is_neither_read_nor_replaced() {
    let emulator = start(options()).await;
    let witness = witness(&emulator).await;
    let client = client(&emulator);
    let zone = zone(&client).await;
    let foreign = record(witness.name(), RecordType::Cname, "somewhere.example.net");
    client.create_record(&zone, &foreign).await.expect("made");
    assert!(matches!(witness.read().await, Err(WitnessError::Foreign { .. })));
    assert!(matches!(
        witness.swap(None, &lease(1, "east", 1), None).await,
        Err(WitnessError::Foreign { .. })
    ));
    let names: BTreeSet<_> = client
        .records(&zone, &RecordFilter::default())
        .await
        .expect("listed")
        .into_iter()
        .map(|record| record.content)
        .collect();
    assert_eq!(names, BTreeSet::from(["somewhere.example.net".to_owned()]));
}
