//! Files that an agent lends to who comes by its unix socket.

mod support;

use std::os::unix::fs::FileExt;

use diptych_core::ids::{DeviceId, InstanceId};
use diptych_store::OpenOptions;
use diptych_wire::agent::{AgentError, ExtentFacts, Lend, RowAt, RowPlace};
use diptych_wire::client::{AgentClient, CallError, ClientOptions, Endpoint, Loan};
use diptych_wire::identity::Role;
use support::{Site, at, content, credentials, extent_id, facts, place, rows_of, stamp, until};

/// A gateway on the machine of the first node.
fn beside(site: &Site, role: Role) -> AgentClient {
    let endpoint = Endpoint {
        site: "east".parse().expect("a name"),
        node: "n0".parse().expect("a name"),
        address: "127.0.0.1:9".to_owned(),
        socket: Some(site.socket(0)),
    };
    let options = ClientOptions::default();
    AgentClient::new(endpoint, &credentials(&site.authority, "east", role, "gw"), options).expect("a client")
}

async fn placed(site: &Site, number: u8) -> (ExtentFacts, Vec<u8>, InstanceId) {
    let bytes = content(u64::from(number), 300_000);
    let facts = facts(extent_id(number), 1, &bytes);
    let row = rows_of(1, &bytes, 1).remove(0);
    let instance = place(&site.gateway(0), &facts, 0, 0, &row).await;
    (facts, row, instance)
}

async fn deleted(site: &Site, row: RowAt) {
    let answers = site.gateway(0).delete(stamp(1, 1), vec![row]).await.expect("an answer");
    assert_eq!(answers, vec![Ok(())]);
}

async fn borrow(client: &AgentClient, at: RowAt) -> (Loan, RowPlace) {
    let located = client.locate(vec![at]).await.expect("an answer").remove(0);
    let place = located.expect("it is there").expect("it lies in a file");
    (client.borrow(at.device, place.segment).await.expect("it is lent"), place)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_read_in_the_file_that_its_agent_lends_until_the_connection_ends() {
    let mut site = Site::start(1).await;
    site.raise_all().await;
    let (facts, row, instance) = placed(&site, 1).await;
    let gateway = beside(&site, Role::Gateway);
    let there = at(facts.extent, 0, 0, Some(instance));
    let (loan, RowPlace { segment, offset, len }) = borrow(&gateway, there).await;
    assert_eq!(len, row.len() as u64);
    let mut read = vec![0; row.len()];
    loan.file().read_exact_at(&mut read, offset).expect("it reads");
    assert!(read == row, "other bytes lie there");
    loan.file().write_at(b"x", offset).expect_err("it was lent for reading");
    assert!(loan.is_good());
    // Many at once: each answer has its own descriptor.
    let loans = futures::future::join_all((0..40).map(|_| gateway.borrow(DeviceId(0), segment))).await;
    for loan in loans {
        loan.expect("it is lent").file().read_exact_at(&mut read, offset).expect("it reads");
        assert!(read == row, "other bytes lie there");
    }

    site.restart(0).await;
    until("the loan has ended with the agent", || async { !loan.is_good() }).await;
    let (again, place) = borrow(&gateway, there).await;
    again.file().read_exact_at(&mut read, place.offset).expect("it reads");
    assert!(read == row && again.is_good());
    drop(gateway);
    until("the loan has ended with the client", || async { !again.is_good() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lent_over_tls_nor_to_who_may_not_read_everything() {
    let site = Site::start(1).await;
    site.raise_all().await;
    let (facts, _, instance) = placed(&site, 1).await;
    let there = at(facts.extent, 0, 0, Some(instance));
    let (_, RowPlace { segment, .. }) = borrow(&beside(&site, Role::Gateway), there).await;
    let far = site.gateway(0);
    let refused = far.locate(vec![there]).await.expect_err("it knows of no socket");
    assert!(matches!(refused, CallError::Unreachable { .. }), "{refused}");
    let lend = Lend { device: DeviceId(0), segment };
    let refused = far.call(&lend, vec![], 0, ClientOptions::default().call).await.expect_err("that is TLS");
    assert!(refused.to_string().contains("over the unix socket only"), "{refused}");
    let refused = beside(&site, Role::Agent).borrow(DeviceId(0), segment).await.expect_err("a sibling");
    assert!(matches!(refused.agent(), Some(AgentError::Denied { .. })), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_or_a_segment_that_is_gone_is_not_found_and_the_old_loan_reads_on() {
    let small = OpenOptions {
        capacity: Some(4 << 30),
        segment_bytes: 1 << 20,
        zero_ahead_bytes: 0,
        ..OpenOptions::default()
    };
    let site = Site::start_on(1, small).await;
    site.raise_all().await;
    let (facts, row, instance) = placed(&site, 1).await;
    let gateway = beside(&site, Role::Gateway);
    let there = at(facts.extent, 0, 0, Some(instance));
    let (loan, RowPlace { segment, offset, .. }) = borrow(&gateway, there).await;
    deleted(&site, there).await;
    let located = gateway.locate(vec![there]).await.expect("an answer").remove(0);
    assert_eq!(located, Err(AgentError::NotFound));
    // Until its segment is full, sealed, and freed since nothing in it lives.
    for number in 2..8 {
        let (facts, _, instance) = placed(&site, number).await;
        deleted(&site, at(facts.extent, 0, 0, Some(instance))).await;
    }
    until("the segment is freed", || async {
        let lent = gateway.borrow(DeviceId(0), segment).await;
        matches!(&lent, Err(CallError::Agent(AgentError::NotFound)))
    })
    .await;
    let mut read = vec![0; row.len()];
    loan.file().read_exact_at(&mut read, offset).expect("it reads on");
    assert!(read == row && loan.is_good(), "records are never overwritten");
}
