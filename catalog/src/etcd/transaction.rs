//! A batch as one transaction of etcd: the gate outside, one nested transaction a change, and the answer read back.

use bytes::Bytes;
use diptych_core::ids::SiteName;
use diptych_core::keys;
use diptych_core::records::{Gate, Position, Record};
use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};

use super::space::{Incarnation, Space};
use crate::disk::{corrupt, unavailable};
use crate::redb::read_gate;
use crate::{Batch, CatalogError, Change, Committed, Expect, Guard, Outcome, Write};

/// `--max-txn-ops` of etcd when nobody sets it: operations in a transaction and in those within it, along any path.
const MAX_OPERATIONS: usize = 128;

/// The transaction for a batch that passed `Batch::check`.
///
/// etcd looks at all conditions before it does any write; a batch has no key that one change writes and another looks
/// at, so nobody can tell.
pub(super) fn build(space: &Space, site: &SiteName, batch: &Batch) -> Result<Txn, CatalogError> {
    let too_large = || CatalogError::TooLarge { changes: batch.changes.len(), bytes: batch.bytes() };
    let left = MAX_OPERATIONS - 1 - batch.changes.len();
    let mut operations = vec![TxnOp::get(space.incarnation(), None)];
    for change in &batch.changes {
        operations.push(TxnOp::txn(nested(space, change, left).ok_or_else(too_large)?));
    }
    let Some(epoch) = batch.epoch else { return Ok(Txn::new().and_then(operations)) };
    // FENCING: the gate's exact bytes are compared in the transaction that writes.
    let gate = space.name(&keys::site_gate(site));
    let open = Compare::value(gate.as_slice(), CompareOp::Equal, Gate::Open(epoch).encode());
    Ok(Txn::new().when([open]).and_then(operations).or_else([TxnOp::get(gate, None)]))
}

/// A change: its guards, its writes, and a look at what the guards are about where they do not hold.
fn nested(space: &Space, change: &Change, left: usize) -> Option<Txn> {
    let compares: Vec<Compare> = change.guards.iter().map(|guard| compare(space, guard)).collect();
    let looks: Vec<TxnOp> = change.guards.iter().map(|guard| look(space, guard)).collect();
    let writes = change.writes.iter().map(|write| match write {
        Write::Put(key, value) => TxnOp::put(space.name(key), value.to_vec(), None),
        Write::Delete(key) => TxnOp::delete(space.name(key), None),
    });
    let writes = grouped(writes.collect(), compares.len(), left)?;
    Some(Txn::new().when(compares).and_then(writes).or_else(looks))
}

fn compare(space: &Space, guard: &Guard) -> Compare {
    let name = space.name(&guard.key);
    match &guard.expect {
        Expect::Absent => Compare::version(name, CompareOp::Equal, 0),
        Expect::Present => Compare::version(name, CompareOp::Greater, 0),
        Expect::Value(value) => Compare::value(name, CompareOp::Equal, value.to_vec()),
    }
}

fn look(space: &Space, guard: &Guard) -> TxnOp {
    let options = match &guard.expect {
        Expect::Absent | Expect::Present => GetOptions::new().with_keys_only(),
        Expect::Value(_) => GetOptions::new(),
    };
    TxnOp::get(space.name(&guard.key), Some(options))
}

/// Writes beyond what one transaction may hold go into transactions within it. None: too many for that too.
fn grouped(writes: Vec<TxnOp>, guards: usize, left: usize) -> Option<Vec<TxnOp>> {
    let count = writes.len();
    if count.max(guards) <= left {
        return Some(writes);
    }
    let groups = (1..left).find(|groups| groups.max(&guards) + count.div_ceil(*groups) <= left)?;
    let mut writes = writes.into_iter().peekable();
    let mut operations = Vec::with_capacity(groups);
    while writes.peek().is_some() {
        let group: Vec<TxnOp> = writes.by_ref().take(count.div_ceil(groups)).collect();
        operations.push(TxnOp::txn(Txn::new().and_then(group)));
    }
    Some(operations)
}

/// What etcd says became of the batch.
pub(super) fn answer(batch: &Batch, answer: &TxnResponse) -> Result<Committed, CatalogError> {
    let operations = answer.op_responses();
    if let (Some(epoch), false) = (batch.epoch, answer.succeeded()) {
        let found = match operations.first() {
            Some(TxnOpResponse::Get(gate)) => {
                gate.kvs().first().map(|pair| Bytes::copy_from_slice(pair.value()))
            }
            _ => None,
        };
        return Err(CatalogError::GateClosed { epoch, found: read_gate(found)? });
    }
    let revision = answer.header().map(|header| header.revision() as u64);
    let revision = revision.ok_or_else(|| unavailable("etcd answered without a header"))?;
    let Some((TxnOpResponse::Get(incarnation), nested)) = operations.split_first() else {
        return Err(corrupt("etcd's answer is cut"));
    };
    let incarnation = incarnation.kvs().first().and_then(|pair| Incarnation::decode(pair.value()));
    let incarnation =
        incarnation.ok_or_else(|| corrupt("etcd holds no incarnation of the catalog any more"))?.number;
    let outcomes = batch.changes.iter().zip(nested).map(|(change, answer)| outcome(change, answer)).collect();
    Ok(Committed { position: Position { incarnation, revision }, outcomes })
}

fn outcome(change: &Change, answer: &TxnOpResponse) -> Outcome {
    match answer {
        TxnOpResponse::Txn(answer) if !answer.succeeded() => {
            let looks = answer.op_responses();
            let refusing = change.guards.iter().zip(&looks).position(|(guard, look)| !holds(guard, look));
            Outcome::Refused { guard: refusing.unwrap_or(0) }
        }
        _ => Outcome::Applied,
    }
}

fn holds(guard: &Guard, look: &TxnOpResponse) -> bool {
    let TxnOpResponse::Get(look) = look else { return true };
    let found = look.kvs().first();
    match &guard.expect {
        Expect::Absent => found.is_none(),
        Expect::Present => found.is_some(),
        Expect::Value(value) => found.is_some_and(|found| found.value() == value.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use diptych_core::keys::Key;

    use super::*;
    use crate::Limits;

    fn writes(count: usize) -> Vec<TxnOp> {
        (0..count).map(|number| TxnOp::put(number.to_be_bytes(), [], None)).collect()
    }

    #[test]
    fn few_writes_stand_in_their_change() {
        assert_eq!(grouped(writes(63), 32, 63).map(|operations| operations.len()), Some(63));
    }

    #[test]
    fn the_most_writes_that_the_limits_allow_can_be_grouped() {
        let fits = |limits: Limits, changes: usize| {
            grouped(writes(limits.writes), limits.guards, MAX_OPERATIONS - 1 - changes).is_some()
        };
        assert!(fits(Limits::ACTIVE, Limits::ACTIVE.changes));
        assert!(fits(Limits::UNFENCED, 1));
    }

    #[test]
    fn writes_that_no_grouping_holds_are_refused_as_too_large() {
        let many = (0..3_500_u32).map(|number| Write::Delete(Key(number.to_be_bytes().to_vec()))).collect();
        let mut changes = vec![Change::default(); 63];
        changes.push(Change::blind(many));
        let site = "east".parse().expect("a name");
        let refused = build(&Space::new("p/"), &site, &Batch { epoch: None, changes });
        assert!(matches!(refused, Err(CatalogError::TooLarge { changes: 64, .. })));
    }
}
