//! The connection to etcd, what its errors mean, and the incarnation that it holds.

use std::fmt::Display;
use std::time::Duration;

use diptych_core::records::Position;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, GetResponse, Identity, TlsOptions, Txn,
    TxnOp, WatchOptions,
};
use tokio::time::timeout;

use super::space::{Incarnation, Space};
use super::tail::Tail;
use super::{EtcdOptions, EtcdTls};
use crate::CatalogError;
use crate::disk::{corrupt, unavailable};

/// etcd refuses pings that come more often than each 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// A watch that catches up gets up to 1,000 revisions in a message.
const MESSAGE_BYTES: usize = 1 << 30;

/// A connection.
#[derive(Clone)]
pub(super) struct Etcd {
    pub(super) client: Client,
    pub(super) space: Space,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Etcd").field("space", &self.space).finish_non_exhaustive()
    }
}

pub(super) fn read_error(error: &impl Display) -> CatalogError {
    unavailable(format!("etcd says: {error}"))
}

pub(super) fn silent(patience: Duration) -> CatalogError {
    unavailable(format!("etcd did not answer within {patience:?}"))
}

pub(super) fn unclear(patience: Duration) -> CatalogError {
    CatalogError::Unclear { reason: format!("etcd did not answer within {patience:?}") }
}

/// Of a transaction: only what etcd says before it takes one means that nothing was done.
pub(super) fn commit_error(error: &Error) -> CatalogError {
    /// gRPC's numbers for invalid argument, permission denied, resource exhausted, failed precondition, unimplemented,
    /// unauthenticated.
    const REFUSALS: [i32; 6] = [3, 7, 8, 9, 12, 16];
    let refused = match error {
        Error::GRpcStatus(status) => REFUSALS.contains(&i32::from(status.code())),
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => true,
        _ => false,
    };
    if refused {
        unavailable(format!("etcd refused a commit, nothing was done: {error}"))
    } else {
        CatalogError::Unclear { reason: format!("etcd says: {error}") }
    }
}

impl EtcdTls {
    fn options(&self) -> TlsOptions {
        let options = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&self.authority))
            .identity(Identity::from_pem(&self.certificate, &self.key));
        match &self.domain {
            Some(domain) => options.domain_name(domain),
            None => options,
        }
    }
}

/// The revision and the cluster of an answer.
pub(super) fn header(answer: &GetResponse) -> Result<(u64, u64), CatalogError> {
    let header = answer.header().ok_or_else(|| unavailable("etcd answered without a header"))?;
    Ok((header.revision() as u64, header.cluster_id()))
}

impl Etcd {
    pub(super) async fn connect(options: &EtcdOptions, space: Space) -> Result<Self, CatalogError> {
        // Without a leader a watch is cancelled rather than left silent.
        let mut connection = ConnectOptions::new()
            .with_connect_timeout(options.timeout)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if let Some(tls) = &options.tls {
            connection = connection.with_tls(tls.options());
        }
        let client = Client::connect(&options.endpoints, Some(connection))
            .await
            .map_err(|error| read_error(&error))?;
        Ok(Self { client, space })
    }

    /// Commits from `first` on, of everything: then each revision of etcd has at least one event, and the mirror
    /// reaches each revision that etcd confirms.
    pub(super) async fn tail(&self, first: u64) -> Result<Tail, CatalogError> {
        let options = WatchOptions::new().with_all_keys().with_start_revision(first as i64);
        let mut client = self.client.watch_client().max_decoding_message_size(MESSAGE_BYTES);
        let watch = client.watch([], Some(options)).await.map_err(|error| read_error(&error))?;
        Ok(Tail::new(watch, self.space.clone()))
    }

    /// Newest revision and incarnation, confirmed by a majority after the call.
    pub(super) async fn confirm(&self) -> Result<Position, CatalogError> {
        let answer = self.client.kv_client().get(self.space.incarnation(), None).await;
        let answer = answer.map_err(|error| read_error(&error))?;
        let (revision, _) = header(&answer)?;
        let found = answer.kvs().first().and_then(|pair| Incarnation::decode(pair.value()));
        let found = found.ok_or_else(|| corrupt("etcd holds no incarnation of the catalog any more"))?;
        Ok(Position { incarnation: found.number, revision })
    }

    /// The incarnation; a new one where there is none, where etcd was restored, or where it is behind `known`, what
    /// the mirror had from it.
    pub(super) async fn ensure_incarnation(&self, known: Position) -> Result<u64, CatalogError> {
        loop {
            let answer = self.client.kv_client().get(self.space.incarnation(), None).await;
            let answer = answer.map_err(|error| read_error(&error))?;
            let (revision, cluster) = header(&answer)?;
            let stored = answer.kvs().first().map(|pair| pair.value().to_vec());
            let found = stored.as_deref().and_then(Incarnation::decode);
            if let Some(found) = found {
                let went_back = found.number == known.incarnation && revision < known.revision;
                if found.cluster == cluster && !went_back {
                    return Ok(found.number);
                }
                tracing::error!(
                    revision,
                    known = known.revision,
                    "etcd was restored: the catalog is a new incarnation"
                );
            }
            self.put_incarnation(stored, Incarnation { number: rand::random(), cluster }).await?;
        }
    }

    async fn put_incarnation(&self, stored: Option<Vec<u8>>, new: Incarnation) -> Result<(), CatalogError> {
        let name = self.space.incarnation();
        let unchanged = match stored {
            Some(stored) => Compare::value(name, CompareOp::Equal, stored),
            None => Compare::version(name, CompareOp::Equal, 0),
        };
        let transaction = Txn::new().when([unchanged]).and_then([TxnOp::put(name, new.encode(), None)]);
        self.client.kv_client().txn(transaction).await.map_err(|error| read_error(&error))?;
        Ok(())
    }

    /// Forgets what came before `revision` and was replaced.
    pub(super) async fn compact(&self, revision: u64, patience: Duration) -> Result<(), CatalogError> {
        let mut client = self.client.kv_client();
        let answer =
            timeout(patience, client.compact(revision as i64, None)).await.map_err(|_| silent(patience))?;
        match answer {
            Err(Error::GRpcStatus(status)) if status.message().contains("has been compacted") => Ok(()),
            Err(error) => Err(read_error(&error)),
            Ok(_) => Ok(()),
        }
    }
}
