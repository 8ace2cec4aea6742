//! The connection to etcd, what its errors mean, and the incarnation that it holds.

use std::fmt::Display;
use std::sync::Arc;

use diptych_core::records::Position;
use etcd_client::{
    Certificate, Compare, CompareOp, Error, GetOptions, GetResponse, Identity, KvClient, TlsOptions, Txn,
    TxnOp, TxnResponse, WatchOptions,
};
use tokio::time::timeout;

use super::members::{CallError, Members};
use super::space::{Incarnation, Space};
use super::tail::Tail;
use super::{EtcdOptions, EtcdTls};
use crate::disk::{corrupt, unavailable};
use crate::{CatalogError, Room};

/// A watch that catches up gets up to 1,000 revisions in a message; a page of a snapshot is what it is asked to be.
const MESSAGE_BYTES: usize = 1 << 30;

/// A connection.
#[derive(Debug, Clone)]
pub(super) struct Etcd {
    pub(super) members: Arc<Members>,
    pub(super) space: Space,
}

pub(super) fn read_error(error: &impl Display) -> CatalogError {
    unavailable(error.to_string())
}

/// Of a transaction: only what etcd says before it takes one means that nothing was done.
pub(super) fn commit_error(error: &CallError) -> CatalogError {
    /// gRPC's numbers for invalid argument, permission denied, resource exhausted, failed precondition, unimplemented,
    /// unauthenticated.
    const REFUSALS: [i32; 6] = [3, 7, 8, 9, 12, 16];
    let refused = match error {
        CallError::Etcd(Error::GRpcStatus(status)) => REFUSALS.contains(&i32::from(status.code())),
        CallError::Etcd(Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_)) => {
            true
        }
        _ => false,
    };
    if refused {
        unavailable(format!("a commit was refused, nothing was done: {error}"))
    } else {
        CatalogError::Unclear { reason: error.to_string() }
    }
}

impl EtcdTls {
    pub(super) fn options(&self) -> TlsOptions {
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
        let members = Members::connect(options, space.incarnation()).await?;
        Ok(Self { members, space })
    }

    /// Tried again where a member does not answer.
    pub(super) async fn get(
        &self,
        key: &[u8],
        options: Option<GetOptions>,
    ) -> Result<GetResponse, CatalogError> {
        let get = |client: KvClient| {
            let (key, options) = (key.to_vec(), options.clone());
            async move { client.max_decoding_message_size(MESSAGE_BYTES).get(key, options).await }
        };
        self.members.read(get).await
    }

    /// Done, not done, or `Unclear`.
    pub(super) async fn commit(&self, transaction: Txn) -> Result<TxnResponse, CatalogError> {
        self.transact(transaction).await.map_err(|error| commit_error(&error))
    }

    async fn transact(&self, transaction: Txn) -> Result<TxnResponse, CallError> {
        self.members.commit(|mut client| async move { client.txn(transaction).await }).await
    }

    /// Commits from `first` on, of everything: then each revision of etcd has at least one event, and the mirror
    /// reaches each revision that etcd confirms.
    pub(super) async fn tail(&self, first: u64) -> Result<Tail, CatalogError> {
        let options = WatchOptions::new().with_all_keys().with_start_revision(first as i64);
        let (client, _) = self.members.chosen();
        let mut client = client.watch_client().max_decoding_message_size(MESSAGE_BYTES);
        let watch = client.watch([], Some(options)).await;
        let watch = watch.map_err(|error| read_error(&CallError::Etcd(error)))?;
        Ok(Tail::new(watch, self.space.clone()))
    }

    /// Newest revision and incarnation, confirmed by a majority after the call.
    pub(super) async fn confirm(&self) -> Result<Position, CatalogError> {
        let answer = self.get(self.space.incarnation(), None).await?;
        let (revision, _) = header(&answer)?;
        let found = answer.kvs().first().and_then(|pair| Incarnation::decode(pair.value()));
        let found = found.ok_or_else(|| corrupt("etcd holds no incarnation of the catalog any more"))?;
        Ok(Position { incarnation: found.number, revision })
    }

    /// The incarnation; a new one where there is none, where etcd was restored, or where it is behind `known`, what
    /// the mirror had from it.
    pub(super) async fn ensure_incarnation(&self, known: Position) -> Result<u64, CatalogError> {
        loop {
            let answer = self.get(self.space.incarnation(), None).await?;
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
        self.transact(transaction).await.map(drop).map_err(|error| read_error(&error))
    }

    /// What the member that is used now takes of its disk: all of them hold the same.
    pub(super) async fn room(&self) -> Result<Room, CatalogError> {
        let (client, _) = self.members.chosen();
        let mut client = client.maintenance_client();
        let patience = self.members.patience();
        let status = timeout(patience, client.status()).await;
        let status = status
            .map_err(|_| read_error(&CallError::Silent(patience)))?
            .map_err(|error| read_error(&CallError::Etcd(error)))?;
        // 0 is what an etcd before 3.6 says.
        let limit = u64::try_from(status.db_size_quota()).ok().filter(|quota| *quota > 0);
        Ok(Room { used: status.raft_used_db_size().unsigned_abs(), limit })
    }

    /// Forgets what came before `revision` and was replaced.
    pub(super) async fn compact(&self, revision: u64) -> Result<(), CatalogError> {
        let compact = |mut client: KvClient| async move { client.compact(revision as i64, None).await };
        match self.members.commit(compact).await {
            Err(CallError::Etcd(Error::GRpcStatus(status)))
                if status.message().contains("has been compacted") =>
            {
                Ok(())
            }
            Err(error) => Err(read_error(&error)),
            Ok(_) => Ok(()),
        }
    }
}
