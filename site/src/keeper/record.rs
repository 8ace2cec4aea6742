//! A site's record of the lease in its catalog: four keys, changed together in a transaction that compares all of them.

use bytes::Bytes;
use diptych_catalog::{Batch, Catalog, CatalogError, Change, Expect, Guard, View, Write};
use diptych_core::ids::{Epoch, KeeperNumber, SiteName};
use diptych_core::keys::{self, Key};
use diptych_core::lease::{Persisted, SiteRecord, Token};
use diptych_core::records::{Cursor, Gate, KeeperLease, Position, Record, Term, Vote};

use crate::context::now_ms;
use crate::error::SiteError;

/// Reads the record as a view shows it.
pub fn read(view: &dyn View, site: &SiteName) -> Result<SiteRecord, SiteError> {
    let vote = view.get(&keys::site_vote(site))?.map(|raw| Vote::decode(&raw)).transpose()?;
    let gate = view.get(&keys::site_gate(site))?.map(|raw| Gate::decode(&raw)).transpose()?;
    let keeper = view.get(&keys::site_keeper(site))?.map(|raw| KeeperLease::decode(&raw)).transpose()?;
    let old =
        view.get(&keys::site_old_token(site))?.map(|raw| Token(String::from_utf8_lossy(&raw).into_owned()));
    Ok(SiteRecord {
        vote,
        keeper: keeper.map_or(KeeperNumber(0), |keeper| keeper.number),
        gate: gate.unwrap_or(Gate::Closed),
        old,
    })
}

/// The keys of a record, with their values; None: absent. The keeper's key is compared only.
fn entries(site: &SiteName, record: &SiteRecord) -> [(Key, Option<Bytes>); 3] {
    let gate = match record.gate {
        Gate::Closed => None,
        open => Some(Bytes::from(open.encode())),
    };
    [
        (keys::site_vote(site), record.vote.as_ref().map(|vote| Bytes::from(vote.encode()))),
        (keys::site_gate(site), gate),
        (keys::site_old_token(site), record.old.as_ref().map(|token| Bytes::from(token.0.clone()))),
    ]
}

/// Guards that hold while the stored record is `record`, its keeper's number included.
pub fn unchanged(
    view: &dyn View,
    site: &SiteName,
    record: &SiteRecord,
) -> Result<Option<Vec<Guard>>, SiteError> {
    if read(view, site)? != *record {
        return Ok(None);
    }
    let all =
        [keys::site_vote(site), keys::site_gate(site), keys::site_old_token(site), keys::site_keeper(site)];
    let guard = |key: Key| -> Result<Guard, SiteError> {
        let expect = view.get(&key)?.map_or(Expect::Absent, Expect::Value);
        Ok(Guard { key, expect })
    };
    all.into_iter().map(guard).collect::<Result<Vec<_>, _>>().map(Some)
}

/// What must be written to turn the record into `new`.
pub fn writes(site: &SiteName, new: &SiteRecord) -> Vec<Write> {
    let write = |(key, value): (Key, Option<Bytes>)| match value {
        Some(value) => Write::Put(key, value),
        None => Write::Delete(key),
    };
    entries(site, new).into_iter().map(write).collect()
}

/// Stores `new` if the stored record is `expect`.
///
/// FENCING (durable vote before swap): `Stored` is answered only for what the catalog has made durable.
pub async fn persist(
    catalog: &dyn Catalog,
    new: &SiteRecord,
    expect: &SiteRecord,
) -> Result<Persisted, SiteError> {
    let site = catalog.site().clone();
    let view = catalog.view().await?;
    let Some(mut guards) = unchanged(view.as_ref(), &site, expect)? else {
        return refused(view.as_ref(), &site);
    };
    let mut writes = writes(&site, new);
    if let (Gate::Open(epoch), true) = (new.gate, new.gate != expect.gate) {
        begin_term(view.as_ref(), &site, epoch, &mut guards, &mut writes)?;
    }
    let change = Change { guards, writes };
    match catalog.commit(Batch::one(None, change)).await {
        Ok(committed) if committed.all_applied() => Ok(Persisted::Stored { at: committed.position }),
        Ok(_) => refused(catalog.view().await?.as_ref(), &site),
        Err(CatalogError::Unclear { .. }) => Ok(Persisted::Unknown),
        Err(error) => Err(error.into()),
    }
}

/// The term's record goes into the transaction that opens its gate: no commit of the term stands before its beginning,
/// and the transaction compares the cursor, so that P is where the other site's feed was left.
fn begin_term(
    view: &dyn View,
    site: &SiteName,
    epoch: Epoch,
    guards: &mut Vec<Guard>,
    writes: &mut Vec<Write>,
) -> Result<(), SiteError> {
    let key = keys::term(epoch);
    if view.get(&key)?.is_some() {
        return Ok(());
    }
    let cursor_key = keys::cursor(site);
    let cursor = view.get(&cursor_key)?;
    let followed = cursor.as_deref().map(Cursor::decode).transpose()?;
    let term = Term {
        holder: site.clone(),
        taken_over_at: followed.map(|cursor| cursor.applied),
        begun_at: held_since(view, site, epoch)?.unwrap_or(view.position()),
        begun_ms: now_ms(),
    };
    guards.push(Guard { key: cursor_key, expect: cursor.map_or(Expect::Absent, Expect::Value) });
    guards.push(Guard { key: key.clone(), expect: Expect::Absent });
    writes.push(Write::Put(key, Bytes::from(term.encode())));
    Ok(())
}

/// Where the terms of this site began that no other site's came between; None: the newest that is known is another's.
///
/// FENCING (nothing vanishes): a site that wins again, after a restart or because the other one's vote had risen, goes on with
/// what it has committed. The other site may not have followed all of that, and takes what stands behind Q alone.
fn held_since(view: &dyn View, site: &SiteName, epoch: Epoch) -> Result<Option<Position>, SiteError> {
    let own = newest_term(view, epoch)?.filter(|(_, term)| term.holder == *site);
    let incarnation = view.position().incarnation;
    Ok(own.map(|(_, term)| term.begun_at).filter(|begun| begun.incarnation == incarnation))
}

/// The newest term that is known, of `epoch` or before.
pub(crate) fn newest_term(view: &dyn View, epoch: Epoch) -> Result<Option<(Epoch, Term)>, SiteError> {
    // Votes that won nothing leave gaps, and few of them.
    for epoch in (1..=epoch.0).rev().map(Epoch) {
        if let Some(raw) = view.get(&keys::term(epoch))? {
            return Ok(Some((epoch, Term::decode(&raw)?)));
        }
    }
    Ok(None)
}

fn refused(view: &dyn View, site: &SiteName) -> Result<Persisted, SiteError> {
    Ok(Persisted::Refused { record: Some(read(view, site)?), at: view.position() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::west;

    /// The term that `catalog`'s site begins now.
    async fn begin(catalog: &dyn Catalog, epoch: Epoch) -> Term {
        let site = catalog.site().clone();
        let own = read(catalog.view().await.expect("a view").as_ref(), &site).expect("it reads");
        let opened = SiteRecord { gate: Gate::Open(epoch), ..own.clone() };
        let stored = persist(catalog, &opened, &own).await.expect("it answers");
        assert!(matches!(stored, Persisted::Stored { .. }), "{stored:?}");
        let view = catalog.view().await.expect("a view");
        Term::decode(&view.get(&keys::term(epoch)).expect("it reads").expect("it is there")).expect("a term")
    }

    #[tokio::test]
    async fn terms_in_a_row_begin_where_the_first_did_until_another_site_has_one() {
        let (context, _folder) = west();
        let catalog = context.catalog.as_ref();
        let first = begin(catalog, Epoch(1)).await;
        let again = begin(catalog, Epoch(4)).await;
        assert_eq!(again.begun_at, first.begun_at, "what was committed between them is followed");
        let holder = context.peer.clone().expect("there are two");
        let other = Write::Put(keys::term(Epoch(5)), Bytes::from(Term { holder, ..again }.encode()));
        catalog.commit(Batch::one(None, Change::blind(vec![other]))).await.expect("it commits");
        let before = catalog.position().await.expect("a position");
        let after = begin(catalog, Epoch(6)).await;
        assert_eq!(after.begun_at, before, "what came from the other site is not sent back");
    }
}
